#!/usr/bin/env bash
# Measures training and inference on one GPU, compared with PyTorch, in under nine minutes; see benchmarks/gpu/__main__.py.
#
#     benchmarks/gpu.sh [--out=DIR] [--seconds=500] [--cells=FIRST-LAST] [--without_torch]
#     benchmarks/gpu.sh --rehearse       # small sizes, on the CPU
#
# PYTHON names another Python than python3, or than .venv's for a rehearsal.
set -euo pipefail
cd "$(dirname "$0")/.."

python=python3
if [[ " $* " == *" --rehearse "* && -x .venv/bin/python ]]; then
  python=.venv/bin/python
fi
python=${PYTHON:-$python}
for package in jax flax optax tabulate; do
  if ! "$python" -c "import importlib.util as u; raise SystemExit(not u.find_spec('$package'))"; then
    echo "error: $python has no $package; PYTHON=... names another Python" >&2
    exit 2
  fi
done
export PYTHONUNBUFFERED=1
exec "$python" -m benchmarks.gpu "$@"
