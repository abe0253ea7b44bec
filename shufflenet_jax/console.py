"""The commands that a wheel installs: `shufflenet-train FLAGS` is `python -m shufflenet_jax.train FLAGS`."""

import functools
import runpy


def _run(module: str) -> None:
  # A command defines its flags only where it is the program itself, so it is run the way `python -m` does.
  runpy.run_module(f"shufflenet_jax.{module}", run_name="__main__", alter_sys=True)


train = functools.partial(_run, "train")
evaluate = functools.partial(_run, "evaluate")
predict = functools.partial(_run, "predict")
replay = functools.partial(_run, "replay")
complexity = functools.partial(_run, "complexity")
export_pictures = functools.partial(_run, "data.export")
prepare = functools.partial(_run, "data.prepare")
import_torch = functools.partial(_run, "interop.import_torch")
tpu_check = functools.partial(_run, "tpu.check")
tpu_plan = functools.partial(_run, "tpu.plan")
