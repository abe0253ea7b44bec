# make quickstart   train, evaluate and predict on the bundled digits (minutes, CPU)
# make test         the tests
# make lint         ruff
# make install      .venv/ alone; every other target makes it first
PYTHON ?= python3
WORKDIR ?= runs/quickstart
SEED ?= 0
PY := .venv/bin/python

.PHONY: quickstart test lint install

install: .venv/installed

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name one with make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet -r requirements.txt
	touch .venv/installed

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

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
