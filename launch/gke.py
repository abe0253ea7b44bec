"""Trains on a TPU node pool of GKE: makes a JobSet and applies it with kubectl.

    launch/gke manifest --name=NAME --type=v5litepod-16 --image=IMAGE [--slices=2] [--spot] [--retry=9] -- FLAGS
    launch/gke apply    with the same flags: kubectl apply
    launch/gke status | logs | delete --name=NAME

Everything after -- is passed to `python -m shufflenet_jax.train` unchanged. --dry_run prints each command and runs
none. Exit status: 0 done; 2 wrong input, which a retry would not fix; 1 any other failure; 3 still running (status
only).
"""

from __future__ import annotations

import argparse
import json
import sys

from launch import arguments, jobset, names, outcomes, staging
from launch.commands import CommandFailed, Runner, escape_unencodable_output, print_line
from shufflenet_jax.errors import UserError
from shufflenet_jax.tpu import slices

COMMANDS = {
  "manifest": "print the JobSet as JSON, which kubectl reads like YAML",
  "apply": "start the JobSet",
  "status": "print the JobSet's state; the exit status is the outcome",
  "logs": "print the newest log lines of one host",
  "delete": "delete the JobSet; a checkpoint is saved only if Kubernetes' 30 s suffice",
}
MANIFEST_COMMANDS = ("manifest", "apply")


def parser() -> argparse.ArgumentParser:
  """The flags of all commands."""
  one_line = arguments.OneLineParser
  main = one_line("launch/gke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=one_line)
  for command, words in COMMANDS.items():
    sub = commands.add_parser(command, help=words, description=words, allow_abbrev=False)
    add = sub.add_argument
    add("--name", required=True, help="of the JobSet")
    add("--namespace", default="default", help="of Kubernetes (%(default)s)")
    add("--dry_run", action="store_true", help="print each command, run none")
    if command in MANIFEST_COMMANDS:
      add("--type", required=True, help="accelerator type of a slice, for example v5litepod-16, v6e-8, v4-8, v5p-8")
      add("--slices", type=int, default=1, help="number of slices (%(default)s)")
      add("--image", required=True, help="built from launch/Dockerfile")
      add("--spot", action="store_true", help="run on spot nodes")
      add("--retry", type=int, default=0, help="maximum number of restarts (%(default)s)")
      add("--service_account", help="of Kubernetes, with access to the bucket")
      add("--stage_data", action="store_true", help="first copy the dataset into the memory of each host")
    if command == "logs":
      add("--worker", type=int, default=0, help="number of the host in each slice (%(default)s)")
      add("--lines", type=int, default=50, help="number of lines (%(default)s)")
      add("--follow", action="store_true", help="print new lines until interrupted")
    if command == "delete":
      add("--yes", action="store_true", help="do not ask")
  return main


def checked(argv: list[str]) -> tuple[argparse.Namespace, dict | None]:
  """Parses and checks a command line; returns (flags, the manifest if the command makes one)."""
  own, training = arguments.split(argv)
  flags = parser().parse_args(own)
  for name in ("name", "namespace", "image", "service_account"):
    names.check(name, getattr(flags, name, None))
  names.check_numbers(flags, "worker", "lines")
  if flags.command not in MANIFEST_COMMANDS:
    if training:
      raise UserError(f"{flags.command} takes nothing after --")
    return flags, None
  # The Pods are named NAME-slice-NUMBER-HOST-xxxxx, with at most 63 characters.
  if len(flags.name) > 40:
    raise UserError(f"--name={flags.name} has {len(flags.name)} characters; 40 at most, because Pods get longer names")
  if flags.slices < 1 or flags.retry < 0:
    raise UserError(f"--slices={flags.slices} must be 1 or more, --retry={flags.retry} 0 or more")
  s = slices.from_accelerator_type(flags.type)
  training = names.check_training(training, distributed=s.hosts * flags.slices > 1)
  workdir = names.flag_value(training, "workdir")
  if not workdir.startswith("gs://"):
    raise UserError(f"--workdir={workdir} would be deleted with the Pod: give gs://...")
  copy, training = staging.split(training) if flags.stage_data else ([], training)
  return flags, jobset.manifest(
    flags.name, s, flags.image, training, copy=copy, slices=flags.slices, spot=flags.spot, retry=flags.retry,
    namespace=flags.namespace, service_account=flags.service_account,
  )  # fmt: skip


def _status(flags: argparse.Namespace, runner: Runner) -> int:
  kubectl = ["kubectl", "get", f"--namespace={flags.namespace}"]
  pods = [*kubectl, "pods", f"--selector=jobset.sigs.k8s.io/jobset-name={flags.name}"]
  text = runner.run([*kubectl, "jobset", flags.name, "--output=json"], show=False)
  runner.run(pods)
  if runner.dry_run:
    return outcomes.DONE
  try:
    status = json.loads(text or "{}").get("status", {})
  except ValueError:
    raise CommandFailed([*kubectl, "jobset"], 0, f"no JSON: {text.strip()!r}") from None
  outcome, reason = outcomes.RUNNING, ""
  for condition in status.get("conditions", []):
    if condition["status"] == "True" and condition["type"] in ("Completed", "Failed"):
      reason = condition.get("reason", "")
      wrong = "FailJobSet" in reason
      outcome = outcomes.DONE if condition["type"] == "Completed" else outcomes.WRONG if wrong else outcomes.FAILED
  runner.report(f"{outcomes.WORDS[outcome]}, {status.get('restarts', 0)} restarts" + (f" ({reason})" if reason else ""))
  return outcome


def _json(manifest: dict) -> str:
  return json.dumps(manifest, indent=2)


def dispatch(flags: argparse.Namespace, manifest: dict | None) -> int:
  """Runs a command; returns the exit status."""
  runner = Runner(flags.dry_run)
  where = f"--namespace={flags.namespace}"
  if flags.command == "manifest":
    print_line(_json(manifest))
  elif flags.command == "apply":
    runner.run(["kubectl", "apply", where, "--filename=-"], stdin=_json(manifest))
  elif flags.command == "status":
    return _status(flags, runner)
  elif flags.command == "logs":
    chosen = f"jobset.sigs.k8s.io/jobset-name={flags.name},batch.kubernetes.io/job-completion-index={flags.worker}"
    rest = ["--follow"] if flags.follow else []
    return runner.attach(["kubectl", "logs", where, f"--selector={chosen}", "--prefix", f"--tail={flags.lines}", *rest])
  else:
    if not (flags.yes or flags.dry_run):
      print(f"Delete the JobSet {flags.name}? [y/N] ", end="", flush=True)
      if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError(f"{flags.name} was not deleted (--yes does not ask)")
    runner.run(["kubectl", "delete", "jobset", flags.name, where])
  return outcomes.DONE


def main(argv: list[str]) -> int:
  """Runs a command line; returns the exit status."""
  escape_unencodable_output()
  try:
    return dispatch(*checked(argv))
  except UserError as error:
    status = outcomes.WRONG
    print_line(f"error: {error}", sys.stderr)
  except CommandFailed as error:
    status = outcomes.FAILED
    print_line(f"error: {error}", sys.stderr)
  except KeyboardInterrupt:
    status = 130
  return status
