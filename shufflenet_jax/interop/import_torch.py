"""Makes an Orbax checkpoint of a PyTorch ShuffleNet V1: the authors' release or pytorchcv's.

    python -m shufflenet_jax.interop.import_torch --from=FILE.pth.tar --to=DIR

FILE holds a state dict as torch.save wrote it, alone or in one of the usual containers, or is a safetensors file; no
code in it is run. Layout, groups and scale are read from the file. The checkpoint holds the 1,000 ImageNet class names
and how pictures are resized and scaled, so `evaluate`, `predict` and `train --config.init_from=DIR` need nothing else.
Needs PyTorch: python -m pip install torch==2.13.0.
"""

from absl import flags

from shufflenet_jax import cli


def define_flags(values: flags.FlagValues) -> None:
  cli.define_path(values, "from", "The PyTorch or safetensors file.")
  cli.define_path(values, "to", "The work directory to make; it must be new or empty.")


def main(values: flags.FlagValues) -> None:
  from shufflenet_jax.interop import torch_checkpoint

  imported = torch_checkpoint.import_file(values["from"].value, values.to)
  print(f"read as {imported.layout}: {imported.network}, {imported.classes} classes")
  print(f"checkpoint: {imported.path}")
  print(f"next: python -m shufflenet_jax.predict --checkpoint={values.to} picture.jpg")


command = cli.Command(main, define_flags, required=("from", "to"))

if __name__ == "__main__":
  command()
