#!/usr/bin/env bash
# Runs a training of several processes on this machine's CPU, as the hosts of a TPU slice would: a rehearsal at a desk.
#
#   launch/local.sh N -- ARGS      N processes of python -m shufflenet_jax.train ARGS
#   launch/local.sh N MODULE -- ARGS            of python -m shufflenet_jax.MODULE, for instance evaluate
#
# Each process has one device; DEVICES=4 gives each four. PYTHON names the interpreter (.venv/bin/python).
# SIGTERM and Ctrl-C are passed on to all of them; a second Ctrl-C ends them at once. Exit status: 0 done, 2 wrong input,
# 75 stopped by SIGTERM, 130 by Ctrl-C, with a checkpoint once training has begun, 1 otherwise; one that fails ends the
# others, see config.peer_timeout_seconds.
set -uo pipefail

usage() {
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
}

case ${1:-} in
  -h | --help) usage && exit 0 ;;
  '' | *[!0-9]* | 0*) echo "error: '${1:-}' is no number of processes; launch/local.sh N -- ARGS" >&2 && exit 2 ;;
esac
given=("$@")
count=$1
shift
module=train
if [ "${1:-}" != -- ] && [ $# -gt 0 ]; then
  module=$1
  shift
fi
if [ "${1:-}" != -- ]; then
  echo "error: what the processes are given stands behind --; launch/local.sh N -- ARGS" >&2
  exit 2
fi
shift

root=$(cd "$(dirname "$0")/.." && pwd)
if [ ! -f "$root/shufflenet_jax/$module.py" ]; then
  echo "error: $module is no command; train or evaluate" >&2
  exit 2
fi
python=${PYTHON:-$root/.venv/bin/python}
free_port='import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])'
if ! port=$("$python" -c "$free_port" 2>&1); then
  reason=${port##*$'\n'}
  echo "error: PYTHON=$python cannot be used (${reason:-no message}); make install makes .venv" >&2
  exit 2
fi
port=${port##*$'\n'} # behind any warnings
export JAX_PLATFORMS=cpu JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo JAX_NUM_CPU_DEVICES=${DEVICES:-1}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

# A script that starts this one with & has it ignore Ctrl-C, which bash cannot undo by itself.
if [[ $(trap -p INT) == "trap -- '' "* ]]; then
  exec "$python" -c 'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp("bash", sys.argv[1:])' \
    bash "$0" "${given[@]}"
fi

pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM
trap 'kill -INT "${pids[@]}" 2>/dev/null' INT
for ((i = 0; i < count; i++)); do
  # In a session of its own, so that Ctrl-C does not reach it twice: from the terminal and from here. Bash has processes
  # started with & ignore Ctrl-C; `trap - INT` undoes that, so that one that still starts ends, too.
  (
    trap - INT TERM
    exec setsid "$python" -u -m "shufflenet_jax.$module" \
      --coordinator="localhost:$port" --num_processes="$count" --process_id="$i" "$@"
  ) &
  pids+=($!)
done

wrong=0 failed=0 stopped=0 interrupted=0
for pid in "${pids[@]}"; do
  # A signal ends `wait` early; only when the process is gone is its status the one to keep.
  while
    status=0
    wait "$pid" || status=$?
    kill -0 "$pid" 2>/dev/null
  do :; done
  case $status in
    0) ;;
    2) wrong=1 ;;
    75 | 143) stopped=1 ;;      # 143: by SIGTERM, before it could begin
    130) interrupted=1 ;;
    *)
      failed=1
      # Whatever it was, or because another one was lost (JAX then aborts: status 134).
      echo "launch/local.sh: process $pid ended with status $status; the same command goes on from the newest checkpoint" >&2
      ;;
  esac
done
if ((wrong)); then exit 2; fi
if ((failed)); then exit 1; fi
if ((interrupted)); then exit 130; fi
if ((stopped)); then exit 75; fi
