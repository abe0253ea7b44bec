#!/usr/bin/env bash
# Runs on each worker (VM) of a slice; launch/tpu_vm calls it over ssh, on all workers at once.
#
#   worker.sh setup               make a virtual environment with the pinned requirements
#   worker.sh check CHIPS HOSTS   check that JAX sees all chips of the slice
#   worker.sh start LOGS COPY... -- ARG...
#                                 run python -m shufflenet_jax.train ARG... in the background, after python -m
#                                 shufflenet_jax.data.stage COPY..., unless COPY... is empty; LOGS: gs://... or ""
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
  grep -aqs -e 'shufflenet_jax\.train' -e 'shufflenet_jax\.data\.stage' "/proc/$1/cmdline"
}

# Whether the script that runs the processes and records the status is there: it may be between two of them.
job_alive() {
  [ -f "$run/job" ] && grep -aqs 'launch/worker\.sh' "/proc/$(cat "$run/job")/cmdline"
}

state() {
  local what=idle
  if [ -f "$run/status" ] && [ -f "$run/stopped" ]; then
    what=stopped
    case $(cat "$run/status") in 0 | 75) ;; *) what="stopped without a checkpoint (status $(cat "$run/status"))" ;; esac
  elif [ -f "$run/status" ]; then
    what="exited $(cat "$run/status")"
  elif [ -f "$run/pid" ]; then
    what=lost
    if alive "$(cat "$run/pid")" || job_alive; then what=running; fi
    if [ -f "$run/status" ]; then state && return; fi # it was written meanwhile
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

# Runs one of the package's commands as the process of this run; returns its exit status.
run_command() {
  local status
  "$venv/bin/python" -u -m "$@" >>"$run/log.txt" 2>&1 &
  process=$!
  echo "$process" >"$run/pid"
  # A signal ends `wait` early, with another status. Only once the process is gone is the status that of the process.
  while
    status=0
    wait "$process" || status=$?
    kill -0 "$process" 2>/dev/null
  do :; done
  return "$status"
}

# Runs in the background and records the exit status, although nobody waits for it.
job() {
  local logs=$1 status=0 copier
  shift
  local copy=()
  while [ "$1" != -- ]; do
    copy+=("$1")
    shift
  done
  shift
  echo $$ >"$run/job"
  process=
  stopping=
  trap 'stopping=1; kill -TERM $process 2>/dev/null || true' TERM
  while sleep 60 && kill -0 $$ 2>/dev/null; do copy_log "$logs"; done & # ends by itself if this script is killed
  copier=$!
  if [ ${#copy[@]} -gt 0 ]; then run_command shufflenet_jax.data.stage "${copy[@]}" || status=$?; fi
  # A stop that came after the copying has no process to go to.
  if [ "$status" = 0 ] && { [ "$stopping" ] || [ -f "$run/stopped" ]; }; then status=75; fi
  if [ "$status" = 0 ]; then run_command shufflenet_jax.train "$@" || status=$?; fi
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
  rm -f "$run/status" "$run/pid" "$run/job" "$run/stopped"
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
  local told=
  for _ in $(seq "$1"); do
    [ "$(state)" = running ] || break
    # Training may just have followed the copying: then it is another process.
    if [ "$(cat "$run/pid")" != "$told" ]; then
      told=$(cat "$run/pid")
      kill -TERM "$told" 2>/dev/null || true
    fi
    sleep 1
  done
  if [ "$(state)" = running ]; then
    kill -KILL "$(cat "$run/pid")" 2>/dev/null || true
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
