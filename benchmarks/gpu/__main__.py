"""Training and inference on one GPU, every formulation, compared with PyTorch in one run that ends in nine minutes.

    benchmarks/gpu.sh [--out=DIR] [--seconds=500] [--cells=FIRST-LAST] [--without_torch]
    benchmarks/gpu.sh --rehearse        the same at small sizes on the CPU

Networks: 1x and 0.5x, g=3 and g=8, 1000 classes, 224x224. Batch 256 and 1,024; bfloat16 and float32. All functions of
a cell take turns, round by round, and a figure is the median over the rounds. `speed / PyTorch's` is PyTorch's median
over a function's: of `torch compiled`, or of `torch eager` if that failed. A turn is some steps with one wait at its
end.

Both sides do the same work. Random uint8 images and labels are on the device already; the step converts and normalises
the images.
- Training: forward pass, cross-entropy, backward pass, SGD with momentum 0.9, and weight decay 4e-5 of kernels only.
  Ours is `training.step.train_step` as training runs it, state donated, without mirroring. Beyond that work it computes
  the accuracy and the schedule's learning rate, and checks that loss and gradients are finite. PyTorch's optimizer is
  the fused one.
- Inference: logits in float32, batch norm by the running statistics. Our formulations fold it into convolutions in the
  program, in every call; PyTorch is given no folded weights either.
PyTorch has pytorchcv's network, or the same one in torch_network.py if that is not installed, with our widths: NHWC
(channels-last); in bfloat16 autocast over float32 parameters, as ours; torch.compile with its default mode, for fixed
shapes; convolutions chosen by measuring (cudnn.benchmark), as XLA does. Products of float32 may be computed in TF32 on
both sides, which is XLA's default. `torch eager` is the same without torch.compile.

The cells come in the order of their importance (cells.py). Compiling counts towards --seconds, and takes most of them;
a cell that would not fit is skipped and named. DIR gets results.json and results.md, which are written anew after each
cell; and of our training step in the first cell, its trace (train_step.trace.json.gz, for Perfetto) and its program
(train_step.hlo.txt.gz), from which the report lists the longest kernels.

JAX and PyTorch get half of the card's memory each. A function that does not fit is recorded as such, and the others are
measured. The benchmark needs jax for CUDA, flax, optax and tabulate, for the comparison torch, and neither TensorFlow
nor ml_collections.
"""

import argparse
import datetime
import os
import sys
import threading
import time

GRACE_SECONDS = 25  # after --seconds, what is still running is abandoned


def parsed_arguments() -> argparse.Namespace:
  """The command line's flags, checked; prints what is wrong and exits with 2 otherwise."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--out", default="runs/gpu", help="folder for the results; default: runs/gpu")
  parser.add_argument("--seconds", type=float, default=500, help=f"ends after them, or {GRACE_SECONDS} s later at most")
  parser.add_argument("--cells", default="1-32", help="FIRST-LAST, in the order of importance")
  parser.add_argument("--without_torch", action="store_true", help="measures the formulations alone")
  parser.add_argument("--rehearse", action="store_true", help="small networks, on the CPU")
  arguments = parser.parse_args()
  first, dash, last = arguments.cells.partition("-")
  if not (first.isdecimal() and last.isdecimal() and dash and 1 <= int(first) <= int(last) <= 32):
    parser.error(f"--cells={arguments.cells} must be FIRST-LAST, from 1 to 32, for instance 1-8")
  arguments.cells = range(int(first), int(last) + 1)
  if not arguments.seconds > 0:
    parser.error(f"--seconds={arguments.seconds} must be above 0")
  try:
    os.makedirs(arguments.out, exist_ok=True)
  except OSError as error:
    parser.error(f"--out={arguments.out} cannot be made: {error.strerror}")
  if not os.access(arguments.out, os.W_OK):
    parser.error(f"--out={arguments.out} cannot be written to; name another folder")
  return arguments


def the_device(rehearse: bool):
  """The device that JAX computes on; exits with 2 if it is no GPU and this is no rehearsal."""
  # Half of the memory is for JAX and half for PyTorch, which would otherwise find three quarters of it taken.
  os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
  # With the platform named, JAX says why it cannot use a GPU, where it would otherwise take the CPU.
  os.environ["JAX_PLATFORMS"] = "cpu" if rehearse else os.environ.get("JAX_PLATFORMS", "cuda,cpu")
  import jax

  try:
    device = jax.devices()[0]
  except Exception as error:  # RuntimeError, and without the plugin for CUDA an AssertionError without a text
    sys.exit(_no_gpu(" ".join(str(error).split()) or "its plugin for CUDA is not installed"))
  if device.platform != "gpu" and not rehearse:
    sys.exit(_no_gpu(f"jax.devices() gives {device.device_kind}"))
  return device


def _no_gpu(found: str) -> int:
  print(
    f"error: JAX finds no GPU: {found}; run this on a machine with one and with jax for CUDA"
    " (PYTHON=... names the Python), or give --rehearse for small sizes on the CPU",
    file=sys.stderr,
  )
  return 2


def main() -> int:
  began = time.monotonic()
  arguments = parsed_arguments()
  device = the_device(arguments.rehearse)
  from benchmarks.gpu import cells, machine, report
  from benchmarks.gpu.run import Run

  no_torch = "--without_torch was given" if arguments.without_torch else machine.why_no_torch(arguments.rehearse)
  sizes = cells.REHEARSAL if arguments.rehearse else cells.Sizes()
  title = "Rehearsal on the CPU: the times mean nothing" if arguments.rehearse else "Training and inference on a GPU"
  about = {"title": title, "date": datetime.date.today().isoformat(), "sizes": sizes._asdict()}
  record = report.Record(arguments.out, about | machine.describe(device, not no_torch))
  if no_torch:
    record.notes.append(f"No comparison with PyTorch: {no_torch}.")
  record.save()
  print(report.as_markdown(record), flush=True)

  run = Run(arguments.out, sizes, record, began + arguments.seconds)
  watchdog = threading.Timer(began + arguments.seconds + GRACE_SECONDS - time.monotonic(), run.abandon)
  watchdog.daemon = True
  watchdog.start()
  run.measure(arguments.cells, with_torch=not no_torch)
  watchdog.cancel()
  print(f"\n{report.as_markdown(record)}\nresults in {arguments.out}", flush=True)
  return 0 if record.measured else 1


if __name__ == "__main__":
  status = main()
  sys.stdout.flush()
  os._exit(status)  # a thread may still be compiling what took too long, and Python would crash under it
