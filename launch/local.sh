#!/usr/bin/env bash
# Rehearses a run on a TPU slice: trains with several processes on this machine's CPU, one for each host of the slice.
#
#   launch/local.sh N -- ARGS           N processes of python -m shufflenet_jax.train ARGS
#   launch/local.sh N MODULE -- ARGS    N processes of python -m shufflenet_jax.MODULE, for example evaluate
#
# Each process has one device; DEVICES=4 gives it four. PYTHON names the interpreter (default: .venv/bin/python).
# SIGTERM and Ctrl-C are passed on to all processes; a second Ctrl-C ends them at once. If one process fails, the others
# end within config.peer_timeout_seconds. Exit status: 0 done; 2 wrong input; 75 stopped by SIGTERM and 130 by Ctrl-C,
# both with a checkpoint once training has begun; 1 any other failure.
set -uo pipefail

usage() {
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
}

case ${1:-} in
  -h | --help) usage && exit 0 ;;
  '' | *[!0-9]* | 0*) echo "error: '${1:-}' is not a number of processes; launch/local.sh N -- ARGS" >&2 && exit 2 ;;
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
  echo "error: -- is missing before the processes' arguments; launch/local.sh N -- ARGS" >&2
  exit 2
fi
shift

root=$(cd "$(dirname "$0")/.." && pwd)
if [ ! -f "$root/shufflenet_jax/$module.py" ]; then
  echo "error: $module is not a command; give train or evaluate" >&2
  exit 2
fi
python=${PYTHON:-$root/.venv/bin/python}
free_port='import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])'
if ! port=$("$python" -c "$free_port" 2>&1); then
  reason=${port##*$'\n'}
  echo "error: PYTHON=$python cannot be used (${reason:-no message}); make install makes .venv" >&2
  exit 2
fi
port=${port##*$'\n'} # the last line, after any warnings
export JAX_PLATFORMS=cpu JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo JAX_NUM_CPU_DEVICES=${DEVICES:-1}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

# If a script starts this one with &, bash ignores Ctrl-C and cannot undo that: let Python do it and start bash again.
if [[ $(trap -p INT) == "trap -- '' "* ]]; then
  exec "$python" -c 'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp("bash", sys.argv[1:])' \
    bash "$0" "${given[@]}"
fi

pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM
trap 'kill -INT "${pids[@]}" 2>/dev/null' INT
for ((i = 0; i < count; i++)); do
  # setsid: otherwise Ctrl-C would reach the process twice, from the terminal and from this script. `trap - INT`: bash
  # makes processes that are started with & ignore Ctrl-C, but it must also end one in which Python is still starting.
  (
    trap - INT TERM
    exec setsid "$python" -u -m "shufflenet_jax.$module" \
      --coordinator="localhost:$port" --num_processes="$count" --process_id="$i" "$@"
  ) &
  pids+=($!)
done

wrong=0 failed=0 stopped=0 interrupted=0
for pid in "${pids[@]}"; do
  # A signal ends `wait` early, with another status. Only once the process is gone is the status that of the process.
  while
    status=0
    wait "$pid" || status=$?
    kill -0 "$pid" 2>/dev/null
  do :; done
  case $status in
    0) ;;
    2) wrong=1 ;;
    75 | 143) stopped=1 ;;      # 143: stopped by SIGTERM before Python could handle it
    130) interrupted=1 ;;
    *)
      failed=1
      # It failed itself, or it lost another process (JAX then aborts with status 134).
      echo "launch/local.sh: process $pid ended with status $status; the same command resumes from the newest checkpoint" >&2
      ;;
  esac
done
if ((wrong)); then exit 2; fi
if ((failed)); then exit 1; fi
if ((interrupted)); then exit 130; fi
if ((stopped)); then exit 75; fi
