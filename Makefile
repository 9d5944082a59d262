# Everything runs in .venv, which the first target that needs it sets up.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-windows lint bench dist clean

demo: .venv/ready
	$(BIN)/python examples/demo.py

test: .venv/ready
	$(BIN)/python tests/old_torch.py
	$(BIN)/python -m pytest

# On the real CPython of Windows, under Wine; TORCH=1 for what works on models as well.
test-windows: .venv/ready
	$(BIN)/python tests/wine/run.py

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: .venv/ready
	$(BIN)/python tests/bench.py

# The same files from the same sources: no time of building is noted in them.
dist: export SOURCE_DATE_EPOCH = 315532800
dist: .venv/ready
	rm -rf dist build
	$(BIN)/uv build --quiet --out-dir dist
	$(BIN)/python installer/onefile/build.py dist/*.whl .cache/wheels dist/aether-install.pyz

.venv/ready: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .cache build dist *.egg-info
