# `make demo` and `make test` are what a newcomer runs; both stand on `make setup`, which is quick the second time.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

.PHONY: setup demo test lint types oracles bench clean

setup: .venv/.installed

# requirements.txt pins what the tests ran with; setup.py says what is allowed
.venv/.installed: setup.py requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable ".[test]"
	touch $@

demo: setup
	$(BIN)/python -m experiments.demo --workdir=runs/demo

test: setup lint types
	$(BIN)/python -m pytest -m "not oracle and not slow" -n $(WORKERS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/basedpyright

# against PyTorch and matfree, which are large: installed only for this
.venv/.oracles: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable ".[test,oracles]"
	touch $@

oracles: .venv/.oracles
	$(BIN)/python -m pytest -m oracle -n $(WORKERS)

bench: .venv/.oracles
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist *.egg-info
