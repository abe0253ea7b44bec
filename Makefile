# make quickstart   train, evaluate and predict on the bundled digits (minutes, CPU)
# make test         the tests
# make test-slow    training and full-size passes of every comparison network
# make test-chaos   runs that are killed (20; CHAOS_RUNS=N), stopped, moved to other devices, or run out of disk space
# make test-bucket  storage clients, and commands, against an emulated bucket
# make test-torch   the tests against PyTorch, which is installed for them
# make test-browser the page examples/browser/ in headless Chromium; needs npm and Chromium
# make browser      onnxruntime-web for the page examples/browser/; needs npm
# make lint         ruff, import-linter (which folder may import which), shellcheck
# make install      .venv/ alone; every other target makes it first
PYTHON ?= python3
SEED ?= 0
WORKDIR ?= runs/quickstart$(if $(filter-out 0,$(SEED)),_seed$(SEED))
PY := .venv/bin/python
ORT := examples/browser/node_modules/onnxruntime-web/dist

.PHONY: quickstart test test-slow test-chaos test-bucket test-torch test-browser browser lint install

install: .venv/installed

# If PYTHON is given and is not the version that .venv/ was made with, .venv/ is made again.
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(PYTHON) -V 2>/dev/null || echo none),$(shell $(PY) -V 2>/dev/null || echo none))
.PHONY: .venv/installed
endif
endif

# --clear replaces a virtual environment that has another Python or is incomplete; any other is updated.
.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13) and "error: Python 3.11 or 3.12 is needed, this is " + sys.version.split()[0] + "; name one: make install PYTHON=python3.11")'
	@{ $(PY) -m pip --version >/dev/null 2>&1 && [ "$$($(PY) -V)" = "$$($(PYTHON) -V)" ]; } || $(PYTHON) -m venv --clear .venv
	$(PY) -m pip install --quiet -r requirements.txt
	@touch .venv/installed

quickstart: install
	$(PY) -m shufflenet_jax.train --config=configs/quickstart.py --workdir=$(WORKDIR) --config.seed=$(SEED)
	$(PY) -m shufflenet_jax.evaluate --checkpoint=$(WORKDIR)
	$(PY) -m shufflenet_jax.data.export --config=configs/quickstart.py --count=5 --to=$(WORKDIR)/pictures
	$(PY) -m shufflenet_jax.predict --checkpoint=$(WORKDIR) $(WORKDIR)/pictures/*/*.png
	@echo
	@echo "Trained, evaluated from the restored checkpoint, and predicted (folder names above are the true classes)."
	@echo "  checkpoints  $(WORKDIR)/checkpoints"
	@echo "  curves       $(WORKDIR)/curves.png"
	@echo "  TensorBoard  .venv/bin/tensorboard --logdir=$(WORKDIR)"
	@echo "Next: change a field, for instance"
	@echo "  $(PY) -m shufflenet_jax.train --config=configs/quickstart.py --workdir=runs/g8 --config.model.groups=8"

test: install
	$(PY) -m pytest

test-slow: install
	$(PY) -m pytest -m slow

test-chaos: install
	$(PY) -m pytest -m chaos -n 0 -s

test-bucket: install
	$(PY) -m pytest -m bucket

test-torch: .venv/installed-torch
	$(PY) -m pytest -m torch

.venv/installed-torch: requirements-torch.txt .venv/installed
	$(PY) -m pip install --quiet -r requirements-torch.txt
	$(PY) -m pip install --quiet --no-deps pytorchcv==0.0.74
	touch .venv/installed-torch

test-browser: .venv/installed-browser browser
	$(PY) -m pytest -m browser

.venv/installed-browser: requirements-browser.txt .venv/installed
	$(PY) -m pip install --quiet -r requirements-browser.txt
	touch .venv/installed-browser

browser: examples/browser/vendor/installed

# The smallest build of onnxruntime-web: WebAssembly only. Renamed to .js, because some web servers do not know that
# .mjs files are JavaScript, and browsers then refuse them.
examples/browser/vendor/installed: examples/browser/package-lock.json
	npm ci --prefix examples/browser --ignore-scripts --no-audit --no-fund --silent
	mkdir -p examples/browser/vendor
	cp $(ORT)/ort-wasm-simd-threaded.wasm examples/browser/vendor/
	cp $(ORT)/ort.wasm.bundle.min.mjs examples/browser/vendor/ort.wasm.bundle.min.js
	rm -r examples/browser/node_modules
	touch examples/browser/vendor/installed

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports --no-cache --no-logo
	.venv/bin/shellcheck launch/*.sh benchmarks/*.sh benchmarks/*/*.sh .ci/run
