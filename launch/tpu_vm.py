"""Trains on a Cloud TPU slice, over gcloud.

    launch/tpu_vm up     --name=NAME --zone=ZONE --type=v5litepod-16 --spot --retry=20 -- TRAINING FLAGS
    launch/tpu_vm create --name=NAME --zone=ZONE --type=v5litepod-16 [--spot | --reserved]
    launch/tpu_vm setup | run | status | logs | stop | delete --name=NAME --zone=ZONE --type=v5litepod-16

What stands behind -- goes to `python -m shufflenet_jax.train` as it is. `up` is create, setup and run, waits for the
end, and deletes the slice whatever happens; with --retry it brings a preempted slice back. --dry_run prints each
command and runs none. Exit status: 0 done; 75 preempted; 2 wrong input, a retry won't mend it; 1 failed otherwise;
3 still running (status only); 4 a slice could not be deleted and may still be billed; 5 stopped by `stop`.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import signal
import sys
import tempfile

from launch import names, outcomes
from launch.gcloud import CommandFailed, Runner, TpuVm, escape_what_the_console_cannot_encode, tell
from launch.lifecycle import ROOT, Lifecycle, Preempted, StillBilled, Stopped, Unreachable
from launch.recovery import bring_up
from shufflenet_jax.errors import UserError
from shufflenet_jax.tpu import slices

COMMANDS = {
  "up": "create, setup, run, wait for the end, delete; with --retry again after a preemption",
  "create": "request a slice and wait until it is ACTIVE",
  "setup": "copy the checkout, install the pinned requirements, count the chips",
  "run": "copy the checkout, start training on all workers",
  "status": "the slice's state and each worker's; the exit status says the outcome",
  "logs": "the newest lines of a worker's log",
  "stop": "end training, with a checkpoint; the slice stays, and is billed",
  "delete": "delete the slice and what lies on its disks",
}
REQUESTING, SHIPPING, TRAINING = ("up", "create"), ("up", "setup", "run"), ("up", "run")


class OneLineParser(argparse.ArgumentParser):
  """Says what is wrong in one line."""

  def error(self, message: str):
    raise UserError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
  """Flags of all commands."""
  main = OneLineParser("launch/tpu_vm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=OneLineParser)
  for command, words in COMMANDS.items():
    sub = commands.add_parser(command, help=words, description=words, allow_abbrev=False)
    add = sub.add_argument
    add("--name", required=True, help="of the slice")
    add("--zone", required=True, help="as us-central1-a")
    add("--type", required=True, help="accelerator type, as v5litepod-16, v6e-8, v4-8, v5p-8")
    add("--project", help="gcloud's own setting unless given")
    add("--dry_run", action="store_true", help="print each command, run none")
    add("--poll_seconds", type=float, default=30, help="between two looks (%(default)s)")
    if command in REQUESTING:
      capacity = sub.add_mutually_exclusive_group()
      for kind in ("spot", "reserved"):
        capacity.add_argument(f"--{kind}", action="store_const", const=kind, dest="capacity", default="on_demand")
      add("--wait_minutes", type=int, default=360, help="for ACTIVE; the request expires then, too (%(default)s)")
      add("--gcloud_flag", action="append", default=[], metavar="FLAG", help="for the request, as =--network=NAME")
      add("--keep", action="store_true", help="do not delete the slice, which goes on being billed, when a step fails")
    if command in SHIPPING:
      add("--commit", help="what to run (HEAD, from a clean tree)")
      add("--allow_dirty", action="store_true", help="run the tree's tracked files as they are")
    if command in TRAINING:
      add("--bucket", help="gs://BUCKET/FOLDER that logs are copied to, every minute")
    if command == "up":
      add("--retry", type=int, default=0, help="recoveries at most, from preemptions and failures (%(default)s)")
      add("--max_hours", type=float, default=72, help="of training, each time (%(default)g)")
    if command == "logs":
      add("--worker", type=int, default=0, help="which (%(default)s)")
      add("--lines", type=int, default=50, help="how many (%(default)s)")
      add("--follow", action="store_true", help="go on until interrupted")
    if command == "delete":
      add("--yes", action="store_true", help="do not ask")
  return main


def checked(argv: list[str]) -> tuple[argparse.Namespace, list[str], Lifecycle]:
  """Flags, training's arguments and the slice, all of them looked at before anything is run."""
  split = argv.index("--") if "--" in argv else len(argv)
  flags, training = parser().parse_args(argv[:split]), argv[split + 1 :]
  for name in ("name", "zone", "project", "bucket"):
    names.check(name, getattr(flags, name, None))
  names.check_numbers(flags, "poll_seconds", "retry", "wait_minutes", "max_hours", "lines", "worker")
  names.check_gcloud_flags(getattr(flags, "gcloud_flag", []))
  vm = TpuVm(flags.name, flags.zone, flags.project, slices.from_accelerator_type(flags.type))
  if flags.command in TRAINING:
    training = names.check_training(training, distributed=vm.slice.hosts > 1)
  elif training:
    raise UserError(f"{flags.command} takes nothing behind --")
  if flags.command == "logs" and flags.worker >= vm.slice.hosts:
    raise UserError(f"--worker={flags.worker}: {flags.type} has {vm.slice.hosts}, counted from 0")
  workdir = names.flag_value(training, "workdir")
  if flags.command == "up" and not workdir.startswith("gs://"):
    if flags.retry:
      raise UserError(f"--workdir={workdir}: --retry needs gs://..., for a preempted slice takes its disks with it")
    if not flags.keep:
      raise UserError(f"--workdir={workdir} would be deleted with the slice: give gs://..., or --keep")
  return flags, training, Lifecycle(vm, Runner(flags.dry_run), flags.poll_seconds)


def pack(flags: argparse.Namespace, training: list[str], runner: Runner, folder: str) -> pathlib.Path:
  """Packs what is to be run into a folder, ahead of everything that costs.

  Raises:
    UserError: uncommitted changes, no such commit, one without the config's file, or git's own reason for not looking.
  """
  git = ["git", "-C", str(ROOT)]
  commit = flags.commit or "HEAD"
  try:
    runner.run([*git, "rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}"], show=False)
  except CommandFailed as error:
    if error.status == 127:
      raise
    if "Needed a single revision" not in error.text:  # git could not look: another owner, no repository, ...
      raise UserError(f"--commit={commit} cannot be looked up in {ROOT}: {error.reason}") from None
    raise UserError(f"--commit={commit} is no commit of {ROOT}") from None
  if not flags.commit:
    if flags.allow_dirty:
      # A commit of the tree as it is, on no branch; "" where nothing has changed.
      commit = runner.run([*git, "stash", "create"], show=False).strip() or "HEAD"
    elif changes := runner.run([*git, "status", "--porcelain"], show=False, note="must print nothing"):
      n = len(changes.splitlines())
      raise UserError(f"{n} uncommitted changes would not be run: commit them, or give --allow_dirty or --commit")
  config = (names.flag_value(training, "config") or "").partition(":")[0]
  if config and not config.startswith("/"):
    try:
      runner.run([*git, "cat-file", "-e", f"{commit}:./{config}"], show=False)
    except CommandFailed as error:
      if not re.search("does not exist in|exists on disk, but not in", error.text):
        raise UserError(f"--config={config} cannot be looked up in {commit}: {error.reason}") from None
      raise UserError(f"--config={config} is no file of what would be run ({commit}): commit it") from None
  archive = pathlib.Path(folder, f"{flags.name}.tar.gz")
  note = "of the commit that `stash create` printed, if it did" if flags.allow_dirty and not flags.commit else ""
  runner.run([*git, "archive", "--format=tar.gz", f"--output={archive}", commit], note=note)
  return archive


def _status(life: Lifecycle) -> int:
  if life.runner.dry_run:
    life.runner.run(life.vm.describe())
    life.worker_states()
    return outcomes.DONE
  found = life.state()
  if found is None:
    raise UserError(f"there is no slice named {life.vm.name} in {life.vm.zone}")
  life.runner.say(f"{life.vm.name}: {found[0]}" + (f" ({found[1]})" if found[1] else ""))
  if found[0] != "ACTIVE":
    return outcomes.FAILED if found[0] == "FAILED" else outcomes.PREEMPTED if life.is_gone() else outcomes.RUNNING
  states, line = life.worker_states()
  outcome = outcomes.of_workers(states)
  life.runner.say("\n".join([*(f"  worker: {state}" for state in states), f"  {line}", outcomes.WORDS[outcome]]))
  return outcome


def _delete(flags: argparse.Namespace, life: Lifecycle) -> int:
  if not (flags.yes or flags.dry_run):
    print(f"Delete {flags.name}, and whatever lies on its disks? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
      raise UserError(f"{flags.name} is left as it is, and billed if it is ACTIVE (--yes does not ask)")
  if not flags.dry_run and life.state() is None:
    raise UserError(f"there is no slice named {flags.name} in {flags.zone}")
  life.delete()
  return outcomes.DONE


def dispatch(flags: argparse.Namespace, training: list[str], life: Lifecycle) -> int:
  """Does what a command says; returns the exit status."""
  if flags.command == "status":
    return _status(life)
  if flags.command == "delete":
    return _delete(flags, life)
  if flags.command == "logs":
    rest = (str(flags.lines), *(["follow"] if flags.follow else []))
    return life.runner.attach(life.vm.worker("log", *rest, worker=str(flags.worker)))
  if flags.command == "stop":
    life.stop()
    life.runner.say(f"{flags.name} is still there, and billed; {life.remedy()}")
    return outcomes.DONE
  if flags.command in SHIPPING and not flags.dry_run:
    with tempfile.TemporaryDirectory(prefix="shufflenet_jax_") as folder:
      return _with_archive(flags, training, life, pack(flags, training, life.runner, folder))
  archive = pack(flags, training, life.runner, "/tmp") if flags.command in SHIPPING else None  # a dry run's, or none
  return _with_archive(flags, training, life, archive)


def _with_archive(flags: argparse.Namespace, training: list[str], life: Lifecycle, archive: pathlib.Path | None) -> int:
  logs = f"{flags.bucket.rstrip('/')}/{flags.name}" if getattr(flags, "bucket", None) else ""
  if flags.command == "up":
    try:
      return bring_up(
        life, archive, training, capacity=flags.capacity, retry=flags.retry, keep=flags.keep,
        wait_minutes=flags.wait_minutes, max_hours=flags.max_hours, logs=logs, extra=flags.gcloud_flag,
      )  # fmt: skip
    finally:
      if life.chip_hours:
        life.runner.say(f"about {life.chip_hours:.1f} chip-hours")
  if flags.command == "create":
    life.refuse_existing()
    with life.deleted_on_error(flags.keep):
      life.create(flags.capacity, flags.wait_minutes, flags.gcloud_flag)
      life.wait_active(flags.wait_minutes)
    life.runner.say(f"{flags.name} is billed from now on: {life.vm.slice.chips} chip-hours an hour; {life.remedy()}")
  elif flags.command == "setup":
    life.setup(archive)
  else:
    if "running" in life.worker_states()[0]:
      raise UserError(f"{flags.name} is training already; stop it first: launch/tpu_vm stop")
    life.upload(archive)
    life.start(training, logs)
  return outcomes.DONE


def main(argv: list[str]) -> int:
  """Runs a command line; returns the exit status."""
  escape_what_the_console_cannot_encode()
  life = None

  def interrupt(number, frame):
    raise KeyboardInterrupt

  # A closed terminal or a stopped service must not leave a slice behind either.
  for number in (signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
      signal.signal(number, interrupt)
  try:
    flags, training, life = checked(argv)
    return dispatch(flags, training, life)
  except UserError as error:
    status = outcomes.WRONG
    tell(f"error: {error}", sys.stderr)
  except StillBilled as error:
    status = outcomes.STILL_BILLED
    tell(f"error: {error}", sys.stderr)
  except Preempted:
    status = outcomes.PREEMPTED
    tell(f"error: {life.vm.name} has been taken away (preempted); {life.remedy()}", sys.stderr)
  except (CommandFailed, Stopped, Unreachable) as error:
    status = outcomes.FAILED
    tell(f"error: {error}", sys.stderr)
  except KeyboardInterrupt:
    status = 130
    tell("interrupted", sys.stderr)
  if life and status not in (outcomes.STILL_BILLED, outcomes.WRONG) and flags.command in ("setup", "run", "stop"):
    tell(f"{life.vm.name} is still billed; {life.remedy()}", sys.stderr)
  return status
