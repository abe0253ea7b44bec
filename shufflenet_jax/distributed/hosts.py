"""Several processes as one run, on JAX's own runtime: joining, stopping together, and losing one."""

import atexit
import contextlib
import faulthandler
import os
import signal
import sys
import threading
from typing import NamedTuple

from absl import flags

from shufflenet_jax import signals
from shufflenet_jax.errors import PREEMPTED, Interrupted, Preempted, RunFailed, UserError

SLOWEST_SECONDS = 300  # how long hosts wait for the slowest one, at the start and at the end


class Process(NamedTuple):
  """Which of a run's processes this is, from 0, and how many there are."""

  index: int
  count: int


def this_process() -> Process:
  """This process. Initialises JAX."""
  import jax

  return Process(jax.process_index(), jax.process_count())


def define_flags(values: flags.FlagValues) -> None:
  """Defines --distributed, for jobs whose hosts JAX can find, and three flags that specify them for other jobs."""
  flags.DEFINE_bool(
    "distributed", False, "Join the other hosts of the job, which JAX finds on Cloud TPU, GKE and Slurm.", values
  )
  flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if JAX cannot find it (launch/local.sh).", values)
  flags.DEFINE_integer("num_processes", None, "With --coordinator: the number of processes.", flag_values=values)
  flags.DEFINE_integer("process_id", None, "With --coordinator: which process this is, from 0.", flag_values=values)


def join(values, peer_timeout_seconds: int, preemptible: bool) -> None:
  """Joins this process to the others of the run, if the flags ask for it.

  Args:
    values: the parsed flags.
    peer_timeout_seconds: a process that hears nothing from another one for that long ends with an error.
    preemptible: whether the caller calls `StopRequest.reached`. SIGTERM then no longer ends the process by itself.

  Raises:
    UserError: the flags contradict each other, or JAX finds no other hosts.
    RunFailed: the other processes did not join in time.
  """
  given = (values.coordinator, values.num_processes, values.process_id)
  if any(v is not None for v in given):
    _check_flags(*given)
  elif not values.distributed:
    return
  import jax

  # When another process is lost, JAX prints a line and aborts. The stacks of all threads would bury that line.
  faulthandler.disable()
  jax.config.update("jax_enable_preemption_service", preemptible)
  try:
    jax.distributed.initialize(
      *given,
      initialization_timeout=SLOWEST_SECONDS,
      heartbeat_timeout_seconds=peer_timeout_seconds,
      shutdown_timeout_seconds=SLOWEST_SECONDS,
    )
  except ValueError as error:
    raise UserError(f"--distributed: JAX found no job of several hosts here ({error})") from None
  except RuntimeError as error:
    text = " ".join(str(error).split())[:200]
    raise RunFailed(f"the processes of this run did not all join within {SLOWEST_SECONDS} s ({text})") from None


def _check_flags(coordinator, num_processes, process_id) -> None:
  if None in (coordinator, num_processes, process_id):
    raise UserError("--coordinator, --num_processes and --process_id go together; with --distributed JAX finds them")
  host, _, port = coordinator.rpartition(":")
  if not (host and port.isdigit() and 0 < int(port) < 65536):
    raise UserError(f"--coordinator={coordinator} is not HOST:PORT")
  if not 0 <= process_id < num_processes:
    raise UserError(f"--process_id={process_id} must be from 0 to {num_processes - 1}, below --num_processes")


def exit_on_sigterm() -> None:
  """Makes SIGTERM end the process at once with the status of a preemption: while it starts, nothing needs saving."""
  signal.signal(signal.SIGTERM, lambda *_: os._exit(PREEMPTED))


class StopRequest(contextlib.AbstractContextManager):
  """Stops every process at the same step on SIGTERM, Ctrl-C or, on TPU VMs, JAX's preemption notice.

  A single process handles the signals itself. With several, JAX's preemption
  service handles SIGTERM, and makes them agree on the step after the one that
  the furthest of them has reached. The service handles no other signal, so
  Ctrl-C is passed on to it as SIGTERM.

  Attributes:
    interrupted: whether this process was stopped by Ctrl-C.
  """

  def __init__(self):
    import jax

    self.interrupted = False
    self._asked = False
    self._alone = jax.process_count() == 1
    self._before = None
    self._stack = contextlib.ExitStack()

  def __enter__(self):
    if self._alone and threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *exception):
    self._stack.close()
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _note(self, *_):
    self._asked = True

  def _interrupt(self):
    self.interrupted = True
    if self._alone:
      self._asked = True
    else:
      os.kill(os.getpid(), signal.SIGTERM)

  def hold_interrupts(self) -> None:
    """From now on Ctrl-C is a request to save and stop. Call this as soon as there is something to save.

    Before that, for instance while compiling, Ctrl-C ends the command at once.
    """
    self._stack.enter_context(signals.held(self._interrupt))

  def reached(self, step: int) -> bool:
    """Returns whether to save and stop now. To be called after every step."""
    if self._alone:
      return self._asked
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)

  def asked(self) -> bool:
    """Returns whether to stop now, without waiting for the current batch or evaluation.

    Always False with several processes, which can agree only between steps.
    """
    return self._alone and self._asked

  def error(self, step: int, last_step: int) -> Preempted:
    """The exception to raise once `step` is saved; its status depends on the signal."""
    text = f"at step {step} of {last_step}, which is saved; the same command resumes from there"
    return Interrupted(f"interrupted {text}") if self.interrupted else Preempted(f"stopped {text}")


@contextlib.contextmanager
def lost_peers_end_the_run(peer_timeout_seconds: int):
  """Turns what JAX raises when another process is gone into a `RunFailed`."""
  import jax

  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    text = " ".join(str(error).split())
    # These errors are this process's own and do not mean that another one is gone.
    if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in text or "INVALID_ARGUMENT" in text:
      raise
    raise RunFailed(
      f"another process of this run is gone, or silent for {peer_timeout_seconds} s"
      f" (config.peer_timeout_seconds); start all of them again to resume ({text[:200]})"
    ) from error


def tell(error: Exception, text: str) -> None:
  """Prints to stderr how the command ends; after a stop on request only the first process does."""
  stopped = isinstance(error, Preempted)
  if not (stopped and joined() and sys.modules["jax"].process_index()):
    print(text if stopped else f"error: {text}", file=sys.stderr, flush=True)


def leave(status: int, together: bool = False) -> None:
  """Ends this process immediately if it is one of several: an ordinary exit would wait for processes that do not end.

  Args:
    status: the exit status.
    together: whether all processes are ending, as after a stop on request. The others need process 0 until they end,
      so JAX's shutdown barrier is run first.
  """
  if joined():
    sys.stdout.flush()
    if together:
      with contextlib.suppress(Exception):
        sys.modules["jax"].distributed.shutdown()
    os._exit(status)


def end_process(status: int | None) -> None:
  """Exits, without Python's own shutdown.

  That would wait for TensorFlow's threads that read data ahead, which a bucket's outage can hold for minutes; and it
  would abort the process, with another status, if a thread is in JAX's or TensorFlow's code.
  """
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError):  # its reader has left; the status is still the command's
      stream.flush()
  atexit._run_exitfuncs()
  os._exit(status or 0)


def joined() -> bool:
  """Whether this process is one of several."""
  jax = sys.modules.get("jax")
  return jax is not None and jax.distributed.is_initialized()
