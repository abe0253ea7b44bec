"""The kinds of examples: how a record's picture and annotations become an example of a batch.

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
