"""What a command does to its own process before it parses its flags: streams, environment, memory.

`cli` calls `prepare_process` once. A program that uses the package as a library needs none of this; the package `data`
silences TensorFlow for it.
"""

import glob
import os
import sys

from shufflenet_jax.errors import RunFailed, UserError

HUGE_PAGES_FILE = "/sys/kernel/mm/transparent_hugepage/enabled"
_ACCELERATOR_DEVICES = ("/dev/accel*", "/dev/vfio/*", "/dev/nvidia*", "/dev/kfd")  # TPU, TPU, NVIDIA, AMD


def prepare_process() -> None:
  """Prepares the streams and the environment; on a CPU it may re-execute the process, see `use_huge_pages`.

  Environment variables that the user has set are kept.
  """
  for stream in (sys.stdout, sys.stderr):
    # Characters that a terminal or file cannot encode are printed as \xfc; otherwise they could end a long run.
    stream.reconfigure(errors="backslashreplace")
  quiet_tensorflow()
  if not _accelerators():
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # otherwise libtpu searches for a TPU for seconds, and warns
  if os.environ.get("JAX_PLATFORMS") == "cpu":
    use_huge_pages()


def quiet_tensorflow() -> None:
  """Keeps TensorFlow, once it is imported, from logging to the terminal, unless the user has set the same variables."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters it raises as well
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # TensorFlow only decodes here; oneDNN would log a notice


def _accelerators() -> list[str]:
  return [path for pattern in _ACCELERATOR_DEVICES for path in glob.glob(pattern)]


def use_huge_pages() -> None:
  """Re-executes with glibc huge pages enabled, if the kernel's policy is `madvise`.

  XLA:CPU allocates a step's temporaries anew in every step, hundreds of megabytes, which the kernel clears page by page
  on first use: with small pages that is a quarter of the processor time of training (benchmarks/RESULTS.md). glibc
  reads its setting, the variable GLIBC_TUNABLES, only when a process starts, so this takes an `exec`, which keeps the
  process id and costs a twentieth of a second. Does nothing on other systems, or if the variable is set already, as it
  is after the `exec`.
  """
  if "GLIBC_TUNABLES" in os.environ:
    return
  try:
    with open(HUGE_PAGES_FILE) as file:
      if "[madvise]" not in file.read():
        return
  except OSError:
    return
  os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
  os.execv(sys.executable, sys.orig_argv)


def check_devices() -> None:
  """Raises a clearer error if JAX has no devices. Call it after an unexpected error, which may be due to that.

  Raises:
    UserError: JAX was asked for a platform that this machine does not have.
    RunFailed: the machine has accelerators, but JAX cannot use them now; another process may still hold them.
  """
  jax = sys.modules.get("jax")
  if jax is None:
    return
  try:
    jax.devices()
  except Exception as error:  # RuntimeError, and for cuda without its plugin an AssertionError without a text
    platforms = os.environ.get("JAX_PLATFORMS", "")
    reason = f" ({error})" if str(error) else ""
    if _accelerators():
      raise RunFailed(
        f"JAX cannot use the accelerators of this machine{reason}; end the process that holds them, and start again"
      ) from error
    raise UserError(
      f"JAX finds no devices for JAX_PLATFORMS={platforms}{reason}; unset it to use the devices of this machine"
    ) from error
