"""The kinds of examples: from a record's picture and annotations to what a batch holds of them.

Each kind is a module with these functions, in which `config` is the config's `data` section:

  training(encoded, annotations, seed, config, only_jpegs)   a training example, without `id` and `ok`
  evaluation(encoded, annotations, config)                   an evaluation example, without `id` and `ok`
  of_picture(image, config)                                  what `predict` knows of a picture, without annotations
  blank(config, training)                                    a black example, in place of one that cannot be decoded
  check(batch, num_classes, split)                           raises a `UserError` if annotations are out of range

`annotations` is the second value of `Split.parse`.
"""

from shufflenet_jax.data.stream import labels, objects

KINDS = {"labels": labels, "objects": objects}
