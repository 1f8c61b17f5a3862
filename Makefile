# `make demo` and `make test` are what a newcomer runs; `make snippets oracles smoke docs` is what CI runs besides, `make long` what must pass before a change lands. All stand on `make setup`, which is quick the second time.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2
FIGURES ?= 1a 1b 1c 2 3 4 5a 5b
EXTRA ?=
COMMA := ,
# where it is set, as in many containers, every process that tests start would compile the whole package's Python anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test long snippets lint types claims pictures docs browser oracles sampler mutations faults faults-full smoke bench clean

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
	$(BIN)/python -m pytest -m "not oracle and not slow and not long" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# what compiles large programs and runs whole jobs: as many minutes again; run by hand, and as much a part of what must pass
long: setup
	$(BIN)/python -m pytest -m "long and not oracle and not slow" -n $(WORKERS)

# the Python of README and docs, as a stranger pastes it, and their command lines, made short
snippets: setup
	$(BIN)/python -m pytest tests/test_readme.py -k python_of
	$(BIN)/python -m pytest tests/test_snippets.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/basedpyright

# what the notes and the readme say of the first paper, from the committed lane tables; `make test` checks that it is so
claims: setup
	$(BIN)/python -m experiments.gradual.claims

# its figures, drawn again from the same tables
pictures: setup
	$(BIN)/python -m experiments.gradual.claims --pictures

# the documentation as pages for a browser, in docs/_build
.venv/.docs: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable ".[docs]"
	touch $@

docs: .venv/.docs
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build
	@echo docs/_build/index.html

# the page of a run and these pages in a real browser: chromium on the path, or as `playwright install chromium` brings it
.venv/.browser: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable ".[test,browser]"
	touch $@

browser: docs .venv/.browser
	$(BIN)/python -m pytest -m slow tests/reporting/test_browser.py

# against PyTorch and matfree, which are large: installed only for this; `make bench EXTRA=cuda` for NVIDIA GPUs
.venv/.oracles$(EXTRA): .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable ".[test,oracles$(if $(EXTRA),$(COMMA)$(EXTRA))]"
	touch $@

oracles: .venv/.oracles$(EXTRA)
	$(BIN)/python -m pytest -m oracle -n $(WORKERS)

# 2,000 damaged copies of every file that is read; `make test` tries 50
mutations: setup
	$(BIN)/python -m pytest -m mutations -n $(WORKERS)

# processes killed, disks full, runs interleaved, in under 40 minutes on two cores; `make faults-full` has each as often as
# docs/engines.md counts, which takes some hours
FEWER := PLASTICITY_FAULTS_KILLS=40 PLASTICITY_FAULTS_EXAMPLES=10 PLASTICITY_FAULTS_FLIPS=200 PLASTICITY_FAULTS_CUTS=60 \
  PLASTICITY_FAULTS_WRITES=40 PLASTICITY_FAULTS_TASKS=1000

.venv/.faults: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint requirements.txt --editable ".[test,ray]"
	touch $@

faults: .venv/.faults
	$(FEWER) $(BIN)/python -m pytest -m faults -n $(WORKERS)

faults-full: .venv/.faults
	$(BIN)/python -m pytest -m faults -n $(WORKERS)

# command lines that nobody should give, thousands of them
sampler: setup
	$(BIN)/python -m pytest tests/test_arguments.py -m slow

# every figure file of the first paper from flag to picture, in minutes: the runs, what is drawn from them, then selection,
# controls, theory, three of the other papers' (of the rest tests/experiments runs some and looks at the settings of all),
# the notebook
smoke: setup
	for figure in $(FIGURES); do \
	  $(BIN)/python -m experiments.gradual.figure_$$figure --scale=smoke --noprogress --workdir=runs/smoke/figure_$$figure || exit 1; done
	$(BIN)/python -m experiments.gradual.figure_6 --scale=smoke --from=runs/smoke/figure_1a,runs/smoke/figure_4
	for figure in 7 8 9; do for part in a b; do \
	  $(BIN)/python -m experiments.gradual.figure_$$figure$$part --scale=smoke --from=runs/smoke/figure_5$$part || exit 1; done; done
	$(BIN)/python -m experiments.select --scale=smoke --methods=none,l2 --noprogress --workdir=runs/smoke/select
	$(BIN)/python -m experiments.gradual.figure_1a --scale=smoke --methods=none,l2 --controls --noprogress \
	  --selection=runs/smoke/select/selected.json --workdir=runs/smoke/controls
	$(BIN)/python -m experiments.gradual.figure_1a --scale=smoke --methods=none --as_published --noprogress --workdir=runs/smoke/published
	$(BIN)/python -m experiments.gradual.theory --scale=smoke --workdir=runs/smoke/theory
	$(BIN)/python -m experiments.barriers.figure_5_2 --scale=smoke --noprogress --workdir=runs/smoke/barriers_5_2
	$(BIN)/python -m experiments.barriers.figure_B_1 --scale=smoke --model=mlp --norm=none --mlp.dropout=0.0 --probes=dead_fraction --noprogress \
	  --workdir=runs/smoke/barriers_B_1
	$(BIN)/python -m experiments.disentangling.figure_1 --scale=smoke --only=b --noprogress --workdir=runs/smoke/disentangling_1b
	$(BIN)/python -m pytest tests/test_examples.py -m slow

bench: .venv/.oracles$(EXTRA)
	mkdir -p runs
	$(BIN)/python -m benchmarks --json=runs/bench.json --picture=runs/bench.png

clean:
	rm -rf .venv build dist *.egg-info
