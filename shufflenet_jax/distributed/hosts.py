"""Several processes as one run, on JAX's own runtime: joining, stopping together, and what a lost one looks like."""

import contextlib
import faulthandler
import os
import signal
import sys
import threading

from absl import flags

from shufflenet_jax import signals
from shufflenet_jax.errors import PREEMPTED, Interrupted, Preempted, RunFailed, UserError

SLOWEST_SECONDS = 300  # for the slowest host to come up, and to come to its end


def define_flags(values: flags.FlagValues) -> None:
  """Defines --distributed, where JAX finds the other hosts by itself; the other three where it does not."""
  flags.DEFINE_bool(
    "distributed", False, "Join the other hosts of the job, as JAX finds them on Cloud TPU, GKE, Slurm.", values
  )
  flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, where JAX does not find it (launch/local.sh).", values
  )
  flags.DEFINE_integer("num_processes", None, "With --coordinator: how many there are.", flag_values=values)
  flags.DEFINE_integer("process_id", None, "With --coordinator: which of them this is, from 0.", flag_values=values)


def join(values, peer_timeout_seconds: int, preemptible: bool) -> None:
  """Joins this process to the others, where flags say that there are any.

  Args:
    values: the parsed flags.
    peer_timeout_seconds: after that long without a sign of life of another process this one ends, with an error.
    preemptible: whether the caller asks `StopRequest.reached`; SIGTERM then no longer ends the process by itself.

  Raises:
    UserError: flags that do not go together, or no others to be found.
    RunFailed: they did not come.
  """
  given = (values.coordinator, values.num_processes, values.process_id)
  if any(v is not None for v in given):
    _check_flags(*given)
  elif not values.distributed:
    return
  import jax

  # Where another process is lost, JAX says so and aborts: the stacks of all threads would bury that line.
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
    raise RunFailed(f"the processes of this run did not all come within {SLOWEST_SECONDS} s ({text})") from None


def _check_flags(coordinator, num_processes, process_id) -> None:
  if None in (coordinator, num_processes, process_id):
    raise UserError("--coordinator, --num_processes and --process_id go together; with --distributed JAX finds them")
  host, _, port = coordinator.rpartition(":")
  if not (host and port.isdigit() and 0 < int(port) < 65536):
    raise UserError(f"--coordinator={coordinator} is not HOST:PORT")
  if not 0 <= process_id < num_processes:
    raise UserError(f"--process_id={process_id} must be from 0 to {num_processes - 1}, below --num_processes")


def exit_on_sigterm() -> None:
  """SIGTERM ends the process at once, with the status of a preemption: while it starts there is nothing to save."""
  signal.signal(signal.SIGTERM, lambda *_: os._exit(PREEMPTED))


class StopRequest(contextlib.AbstractContextManager):
  """Notes SIGTERM, Ctrl-C (and, on TPU VMs, JAX's preemption notice), and stops every process at the same step.

  One process notes the signals itself. Several have JAX's preemption service note
  SIGTERM, which lets them agree on the step after the furthest of them; as that
  service knows no other signal, Ctrl-C is passed on to it as SIGTERM.

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
    """From now on Ctrl-C is a request to save and stop. To be called once there is something to save.

    Until then, for instance while compiling, Ctrl-C does what it did before: it ends a command at once.
    """
    self._stack.enter_context(signals.held(self._interrupt))

  def reached(self, step: int) -> bool:
    """Returns whether to save and stop now. Call it after every step."""
    if self._alone:
      return self._asked
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)

  def asked(self) -> bool:
    """Returns whether to stop now, without waiting for the batch or evaluation under way.

    Always false for several processes: they can agree only between steps.
    """
    return self._alone and self._asked

  def error(self, step: int, last_step: int) -> Preempted:
    """What to raise once `step` is saved; its status depends on the signal."""
    text = f"at step {step} of {last_step}, which is saved; the same command goes on"
    return Interrupted(f"interrupted {text}") if self.interrupted else Preempted(f"stopped {text}")


@contextlib.contextmanager
def lost_peers_end_the_run(peer_timeout_seconds: int):
  """What JAX raises where another process is gone, as a `RunFailed`."""
  import jax

  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    text = " ".join(str(error).split())
    # What a program does wrong by itself is no news of the others.
    if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in text or "INVALID_ARGUMENT" in text:
      raise
    raise RunFailed(
      f"another process of this run is gone, or silent for {peer_timeout_seconds} s"
      f" (config.peer_timeout_seconds); start all of them again to go on ({text[:200]})"
    ) from error


def tell(error: Exception, text: str) -> None:
  """Prints how the command ends to stderr; a stop on request is the first process's to tell."""
  stopped = isinstance(error, Preempted)
  if not (stopped and joined() and sys.modules["jax"].process_index()):
    print(text if stopped else f"error: {text}", file=sys.stderr, flush=True)


def leave(status: int, together: bool = False) -> None:
  """Ends a process of several at once: the ordinary end would wait for those that do not end.

  Args:
    status: the exit status.
    together: whether all processes are ending, as after a stop on request. Nobody waits for process 0, so JAX's
      shutdown barrier is run first.
  """
  if joined():
    sys.stdout.flush()
    if together:
      with contextlib.suppress(Exception):
        sys.modules["jax"].distributed.shutdown()
    os._exit(status)


def joined() -> bool:
  """Whether this process is one of several."""
  jax = sys.modules.get("jax")
  return jax is not None and jax.distributed.is_initialized()
