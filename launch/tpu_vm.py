"""Trains on a Cloud TPU slice, with gcloud.

    launch/tpu_vm up     --name=NAME --zone=ZONE --type=v5litepod-16 --spot --retry=20 -- TRAINING FLAGS
    launch/tpu_vm create --name=NAME --zone=ZONE --type=v5litepod-16 [--spot | --reserved]
    launch/tpu_vm setup | run | status | logs | stop | delete --name=NAME --zone=ZONE --type=v5litepod-16

Everything after -- is passed to `python -m shufflenet_jax.train` unchanged. `up` does create, setup and run, waits for
the end, and deletes the slice whatever happens; with --retry it replaces a preempted slice and resumes. --dry_run
prints each command and runs none. Exit status: 0 done; 75 preempted; 2 wrong input, which a retry would not fix; 1 any
other failure; 3 still running (status only); 4 a slice could not be deleted and may still be billed; 5 stopped by
`stop`.
"""

from __future__ import annotations

import argparse
import pathlib
import signal
import sys
import tempfile

from launch import arguments, names, outcomes, packing, staging
from launch.commands import CommandFailed, Runner, escape_unencodable_output, print_line
from launch.failures import Preempted, StillBilled, Stopped, Unreachable
from launch.gcloud import TpuVm
from launch.recovery import Run, bring_up
from launch.slice_request import SliceRequest
from launch.workers import Workers
from shufflenet_jax.errors import UserError
from shufflenet_jax.tpu import slices

COMMANDS = {
  "up": "create, setup, run, wait for the end, delete; with --retry, start again after a preemption",
  "create": "request a slice and wait until it is ACTIVE",
  "setup": "copy the checkout, install the pinned requirements, count the chips",
  "run": "copy the checkout, start training on all workers",
  "status": "print the states of the slice and of each worker; the exit status is the outcome",
  "logs": "print the newest lines of a worker's log",
  "stop": "stop training, with a checkpoint; the slice stays, and is billed",
  "delete": "delete the slice and everything on its disks",
}
# The commands that request a slice, that copy the checkout to it, and that start training.
REQUESTING, PACKING, TRAINING = ("up", "create"), ("up", "setup", "run"), ("up", "run")


def parser() -> argparse.ArgumentParser:
  """The flags of all commands."""
  one_line = arguments.OneLineParser
  main = one_line("launch/tpu_vm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=one_line)
  for command, words in COMMANDS.items():
    sub = commands.add_parser(command, help=words, description=words, allow_abbrev=False)
    add = sub.add_argument
    add("--name", required=True, help="of the slice")
    add("--zone", required=True, help="for example us-central1-a")
    add("--type", required=True, help="accelerator type, for example v5litepod-16, v6e-8, v4-8, v5p-8")
    add("--project", help="default: gcloud's own setting")
    add("--dry_run", action="store_true", help="print each command, run none")
    add("--poll_seconds", type=float, default=30, help="time between two polls of the slice's state (%(default)s)")
    if command in REQUESTING:
      capacity = sub.add_mutually_exclusive_group()
      for kind in ("spot", "reserved"):
        capacity.add_argument(f"--{kind}", action="store_const", const=kind, dest="capacity", default="on_demand")
      add(
        "--wait_minutes", type=int, default=360, help="time to wait for ACTIVE; then the request expires (%(default)s)"
      )
      add(
        "--gcloud_flag",
        action="append",
        default=[],
        metavar="FLAG",
        help="further flag of the request, for example =--network=NAME",
      )
      add("--keep", action="store_true", help="do not delete the slice when a step fails; it continues to be billed")
    if command in PACKING:
      add("--commit", help="commit to run (default: HEAD, if nothing is uncommitted)")
      add("--allow_dirty", action="store_true", help="run the tracked files with their uncommitted changes")
    if command in TRAINING:
      add("--bucket", help="gs://BUCKET/FOLDER to copy logs to, every minute")
      add("--stage_data", action="store_true", help="first copy the dataset into the memory of each worker")
    if command == "up":
      add(
        "--retry", type=int, default=0, help="maximum number of recoveries, from preemptions and failures (%(default)s)"
      )
      add("--max_hours", type=float, default=72, help="limit of training, for each start (%(default)g)")
    if command == "logs":
      add("--worker", type=int, default=0, help="number of the worker (%(default)s)")
      add("--lines", type=int, default=50, help="number of lines (%(default)s)")
      add("--follow", action="store_true", help="print new lines until interrupted")
    if command == "delete":
      add("--yes", action="store_true", help="do not ask")
  return main


def checked(argv: list[str]) -> tuple[argparse.Namespace, list[str], Workers]:
  """Parses and checks a command line before anything is run; returns (flags, arguments of training, workers)."""
  own, training = arguments.split(argv)
  flags = parser().parse_args(own)
  for name in ("name", "zone", "project", "bucket"):
    names.check(name, getattr(flags, name, None))
  names.check_numbers(flags, "poll_seconds", "retry", "wait_minutes", "max_hours", "lines", "worker")
  names.check_gcloud_flags(getattr(flags, "gcloud_flag", []))
  vm = TpuVm(flags.name, flags.zone, flags.project, slices.from_accelerator_type(flags.type))
  if flags.command in TRAINING:
    training = names.check_training(training, distributed=vm.slice.hosts > 1)
    if flags.stage_data:
      staging.split(training)  # checks it
  elif training:
    raise UserError(f"{flags.command} takes nothing after --")
  if flags.command == "logs" and flags.worker >= vm.slice.hosts:
    raise UserError(f"--worker={flags.worker}: {flags.type} has {vm.slice.hosts}, counted from 0")
  workdir = names.flag_value(training, "workdir")
  if flags.command == "up" and not workdir.startswith("gs://"):
    if flags.retry:
      raise UserError(f"--workdir={workdir}: --retry needs gs://..., because a preempted slice's disks are deleted")
    if not flags.keep:
      raise UserError(f"--workdir={workdir} would be deleted with the slice: give gs://..., or --keep")
  return flags, training, Workers(SliceRequest(vm, Runner(flags.dry_run), flags.poll_seconds))


def _status(workers: Workers) -> int:
  request, runner = workers.request, workers.runner
  if runner.dry_run:
    runner.run(workers.vm.describe())
    workers.states()
    return outcomes.DONE
  found = request.state()
  if found is None:
    raise UserError(f"there is no slice named {workers.vm.name} in {workers.vm.zone}")
  state, reason = found
  runner.report(f"{workers.vm.name}: {state}" + (f" ({reason})" if reason else ""))
  if state == "FAILED":
    return outcomes.FAILED
  if state != "ACTIVE":
    return outcomes.PREEMPTED if request.is_gone() else outcomes.RUNNING
  states, line = workers.states()
  outcome = outcomes.of_workers(states)
  runner.report("\n".join([*(f"  worker: {state}" for state in states), f"  {line}", outcomes.WORDS[outcome]]))
  return outcome


def _delete(flags: argparse.Namespace, request: SliceRequest) -> int:
  if not (flags.yes or flags.dry_run):
    print(f"Delete {flags.name}, and everything on its disks? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
      raise UserError(f"{flags.name} was not deleted, and is billed if it is ACTIVE (--yes does not ask)")
  if not flags.dry_run and request.state() is None:
    raise UserError(f"there is no slice named {flags.name} in {flags.zone}")
  request.delete()
  return outcomes.DONE


def dispatch(flags: argparse.Namespace, training: list[str], workers: Workers) -> int:
  """Runs a command; returns the exit status."""
  request, runner = workers.request, workers.runner
  if flags.command == "status":
    return _status(workers)
  if flags.command == "delete":
    return _delete(flags, request)
  if flags.command == "logs":
    rest = (str(flags.lines), *(["follow"] if flags.follow else []))
    return runner.attach(workers.vm.worker("log", *rest, worker=str(flags.worker)))
  if flags.command == "stop":
    workers.stop()
    runner.report(f"{flags.name} still exists, and is billed; {request.remedy()}")
    return outcomes.DONE
  if flags.command in PACKING and not flags.dry_run:
    with tempfile.TemporaryDirectory(prefix="shufflenet_jax_") as folder:
      return _with_archive(flags, training, workers, packing.pack(flags, training, runner, folder))
  archive = packing.pack(flags, training, runner, "/tmp") if flags.command in PACKING else None  # a dry run, or create
  return _with_archive(flags, training, workers, archive)


def _with_archive(
  flags: argparse.Namespace, training: list[str], workers: Workers, archive: pathlib.Path | None
) -> int:
  """Runs up, create, setup or run; `archive` is the packed checkout, None for `create`, which needs none."""
  request, runner = workers.request, workers.runner
  logs = f"{flags.bucket.rstrip('/')}/{flags.name}" if getattr(flags, "bucket", None) else ""
  copy = []
  if getattr(flags, "stage_data", False):
    copy, training = staging.split(training)
  if flags.command == "up":
    run = Run(
      archive, training, capacity=flags.capacity, retry=flags.retry, keep=flags.keep, wait_minutes=flags.wait_minutes,
      max_hours=flags.max_hours, logs=logs, copy=copy, create_flags=flags.gcloud_flag,
    )  # fmt: skip
    try:
      return bring_up(workers, run)
    finally:
      if request.chip_hours:
        runner.report(f"about {request.chip_hours:.1f} chip-hours")
  if flags.command == "create":
    request.refuse_existing()
    with request.deleted_on_error(flags.keep):
      request.create(flags.capacity, flags.wait_minutes, flags.gcloud_flag)
      request.wait_active(flags.wait_minutes)
    chips = workers.vm.slice.chips
    runner.report(f"{flags.name} is billed from now on: {chips} chip-hours per hour; {request.remedy()}")
  elif flags.command == "setup":
    workers.setup(archive)
  else:
    if "running" in workers.states()[0]:
      raise UserError(f"{flags.name} is training already; stop it first: launch/tpu_vm stop")
    workers.upload(archive)
    workers.start(training, logs, copy)
  return outcomes.DONE


def main(argv: list[str]) -> int:
  """Runs a command line; returns the exit status."""
  escape_unencodable_output()
  workers = None

  def interrupt(number, frame):
    raise KeyboardInterrupt

  # The slice must also be deleted when the terminal is closed or a service is stopped.
  for number in (signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
      signal.signal(number, interrupt)
  try:
    flags, training, workers = checked(argv)
    return dispatch(flags, training, workers)
  except UserError as error:
    status = outcomes.WRONG
    print_line(f"error: {error}", sys.stderr)
  except StillBilled as error:
    status = outcomes.STILL_BILLED
    print_line(f"error: {error}", sys.stderr)
  except Preempted:
    status = outcomes.PREEMPTED
    print_line(f"error: {workers.vm.name} was preempted; {workers.request.remedy()}", sys.stderr)
  except (CommandFailed, Stopped, Unreachable) as error:
    status = outcomes.FAILED
    print_line(f"error: {error}", sys.stderr)
  except KeyboardInterrupt:
    status = 130
    print_line("interrupted", sys.stderr)
  if workers and status not in (outcomes.STILL_BILLED, outcomes.WRONG) and flags.command in ("setup", "run", "stop"):
    print_line(f"{workers.vm.name} is still billed; {workers.request.remedy()}", sys.stderr)
  return status
