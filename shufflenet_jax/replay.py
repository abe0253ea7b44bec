"""Repeats a training step whose loss or gradients were not finite, from the dump that training wrote.

    python -m shufflenet_jax.replay --dump=WORKDIR/nonfinite/STEP

For each statistics group (the images that batch norm sees together) it prints the loss, the parameters whose gradients
are not finite, and the examples. It runs on one device, whatever devices the training used.
"""

from absl import flags

from shufflenet_jax import cli


def define_flags(values: flags.FlagValues) -> None:
  cli.define_path(values, "dump", "WORKDIR/nonfinite/STEP, as named in the message of the training.")


def main(values: flags.FlagValues) -> None:
  from shufflenet_jax.training.replay import replay

  finite = True
  for i, (ids, loss, wrong) in enumerate(replay(values.dump)):
    shown = ", ".join(wrong[:6]) + (f" and {len(wrong) - 6} more" if len(wrong) > 6 else "")
    print(f"statistics group {i}: loss {loss:.6g}; gradients not finite: {shown or 'none'}", flush=True)
    if wrong or loss - loss:  # infinite or NaN
      finite = False
      print(f"  examples {', '.join(map(str, ids))}")
  if finite:
    print("all groups are finite here, so the cause is the device used in training, or the mean over the groups")


command = cli.Command(main, define_flags, required=("dump",))

if __name__ == "__main__":
  command()
