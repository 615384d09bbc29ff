# make demo and make test set up what they need: nothing but Python 3.11+ and a package index.
PYTHON ?= python3
VENV ?= .venv
BIN = "$(VENV)/bin"
SPACE := $() $()
INSTALLED = $(subst $(SPACE),\$(SPACE),$(VENV))/.installed

.PHONY: demo test test-all lint docs setup models clean

demo: setup  ## decode held-out problems with the bundled pair, side by side
	$(BIN)/jacobi demo

# A process per core with one thread each: small models run no faster on more.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 4 --dist worksteal

test: setup  ## the test suite, offline, on the CPU
	$(PYTEST) -m "not slow"

test-all: setup  ## slow tests too: compilers, soak, large recipes, a training, and Ray where it is installed
	$(BIN)/pytest -q

lint: setup  ## what must be clean before a commit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: setup  ## the documentation site, from the pages, the settings and the docstrings: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict

setup: $(INSTALLED)

# PyTorch first and alone, so that the constrained build is the one every later package finds.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv "$(VENV)"
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch "$@"

models: setup  ## make the bundled pair again from nothing (hours on two cores)
	$(BIN)/python recipes/tiny/train_base.py --bf16 --out runs/tiny-base
	$(BIN)/python recipes/tiny/install.py runs/tiny-base/final tiny-base
	$(BIN)/jacobi force recipes/tiny/force.toml
	JACOBI=$(BIN)/jacobi bash recipes/tiny/polish.sh runs/tiny-forced/average
	$(BIN)/python recipes/tiny/install.py runs/tiny-polish/mean tiny-forced

clean:
	rm -rf "$(VENV)" runs site .pytest_cache .ruff_cache
