#!/usr/bin/env bash
# Runs on each worker (VM) of a slice; launch/tpu_vm calls it over ssh, on all workers at once.
#
#   worker.sh setup               make a virtual environment with the pinned requirements
#   worker.sh check CHIPS HOSTS   check that JAX sees all chips of the slice
#   worker.sh start LOGS ARG...   run python -m shufflenet_jax.train ARG... in the background; LOGS: gs://... or ""
#   worker.sh report              print "state: S | newest line of the log", where S is running, exited STATUS, stopped
#                                 (on request), lost (ended without a status) or idle
#   worker.sh log LINES [follow]  print the newest lines of the log
#   worker.sh stop SECONDS        send SIGTERM, after which training saves a checkpoint; SIGKILL after that many seconds
#
# Every command may be repeated: work that has been done is not repeated.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$HOME/shufflenet_jax_venv
run=$HOME/shufflenet_jax_run # log, pid and exit status of the newest run
uv_version=0.13.9

setup() {
  local wanted
  wanted=$(sha256sum requirements.txt)
  if [ "$(cat "$venv/installed" 2>/dev/null)" = "$wanted" ]; then
    echo "requirements are installed already"
    return
  fi
  # TPU VM images have Python 3.10; uv brings a newer one without touching the system's.
  python3 -m pip install --quiet --user "uv==$uv_version"
  python3 -m uv venv --quiet --clear --python 3.11 "$venv"
  python3 -m uv pip install --quiet --python "$venv/bin/python" -r requirements.txt
  echo "$wanted" >"$venv/installed"
  echo "installed the pinned requirements"
}

check() {
  # This has to run on all hosts at the same time: JAX sees a slice's chips only when all hosts take part.
  timeout 600 "$venv/bin/python" - "$1" "$2" <<'PYTHON'
import sys

import jax

chips, hosts = map(int, sys.argv[1:])
if hosts > 1:
  jax.distributed.initialize()
found = (jax.device_count(), jax.process_count(), jax.default_backend())
print(f"jax {jax.__version__}: {found[0]} x {jax.devices()[0].device_kind} on {found[1]} hosts")
if found != (chips, hosts, "tpu"):
  sys.exit(f"error: expected {chips} chips on {hosts} hosts (tpu), found {found[0]} on {found[1]} ({found[2]})")
PYTHON
}

# After a restart of the VM the pid may belong to another process. A dead process may remain as a zombie, which has no
# arguments.
alive() {
  grep -aqs 'shufflenet_jax\.train' "/proc/$1/cmdline"
}

state() {
  local what=idle
  if [ -f "$run/status" ] && [ -f "$run/stopped" ]; then
    what=stopped
    case $(cat "$run/status") in 0 | 75) ;; *) what="stopped without a checkpoint (status $(cat "$run/status"))" ;; esac
  elif [ -f "$run/status" ]; then
    what="exited $(cat "$run/status")"
  elif [ -f "$run/pid" ]; then
    if alive "$(cat "$run/pid")"; then what=running; else what=lost; fi
  fi
  echo "$what"
}

report() {
  echo "state: $(state) | $(tail -n 1 "$run/log.txt" 2>/dev/null)"
}

copy_log() {
  local reason
  [ -n "$1" ] || return 0
  reason=$(gcloud storage cp "$run/log.txt" "${1%/}/$(hostname).txt" --quiet 2>&1 >/dev/null) && return 0
  # Only once: the next minute's copy most likely fails for the same reason.
  grep -qs '^the log is not copied to ' "$run/log.txt" ||
    echo "the log is not copied to $1: ${reason##*$'\n'}" >>"$run/log.txt"
}

# Runs in the background and records the training process's exit status, although nobody waits for it.
job() {
  local logs=$1 status=0 trainer copier
  shift
  "$venv/bin/python" -u -m shufflenet_jax.train "$@" >>"$run/log.txt" 2>&1 &
  trainer=$!
  echo "$trainer" >"$run/pid"
  while sleep 60 && kill -0 "$trainer" 2>/dev/null; do copy_log "$logs"; done & # ends by itself if this script is killed
  copier=$!
  trap 'kill -TERM "$trainer" 2>/dev/null || true' TERM
  # A signal ends `wait` early, with another status. Only once the process is gone is the status that of the process.
  while
    status=0
    wait "$trainer" || status=$?
    kill -0 "$trainer" 2>/dev/null
  do :; done
  kill "$copier" 2>/dev/null || true
  copy_log "$logs" # before the status is written: whoever reads the status may delete the slice
  echo "$status" >"$run/status.part"
  mv "$run/status.part" "$run/status"
}

start() {
  mkdir -p "$run"
  if [ "$(state)" = running ]; then
    echo "already running"
    return
  fi
  rm -f "$run/status" "$run/pid" "$run/stopped"
  printf '== %s\n' "$(date -u +%FT%TZ)" >>"$run/log.txt"
  setsid nohup "$BASH" launch/worker.sh job "$@" </dev/null >/dev/null 2>>"$run/log.txt" &
  for _ in $(seq 300); do
    [ -f "$run/pid" ] && break
    sleep 0.1
  done
  echo "started, process $(cat "$run/pid"), log in $run/log.txt"
}

stop() {
  if [ "$(state)" != running ]; then
    state
    return
  fi
  touch "$run/stopped"
  kill -TERM "$(cat "$run/pid")"
  for _ in $(seq "$1"); do
    [ "$(state)" = running ] || break
    sleep 1
  done
  if [ "$(state)" = running ]; then
    kill -KILL "$(cat "$run/pid")"
    sleep 1
  fi
  state
}

log() {
  if [ "${2:-}" = follow ]; then exec tail -n "$1" -F "$run/log.txt"; fi
  tail -n "$1" "$run/log.txt"
}

command=${1:?setup, check, start, report, log or stop}
shift
case $command in
  setup | check | start | job | report | log | stop) "$command" "$@" ;;
  *) echo "error: $command is not one of setup, check, start, report, log, stop" >&2 && exit 2 ;;
esac
