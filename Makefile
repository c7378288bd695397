# make demo   everything from nothing to a first report     make test   all tests
# make dev    an environment for development                make check  ruff, pyright, tests
# make bench  the benchmarks
.DELETE_ON_ERROR:
.PHONY: demo test dev check lint types bench clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PYTEST_ARGS ?= -n $(WORKERS) --dist loadfile

# Without it Python puts the checkout on sys.path, and our folder kernels/ shadows PyPI's package of that name.
export PYTHONSAFEPATH := 1
export OMP_WAIT_POLICY := passive

SOURCES := setup.py pyproject.toml CMakeLists.txt $(wildcard kernels/csrc/* kernels/csrc/cuda/*)

# With a compiler at hand no test may pass because the native module failed to build.
REQUIRED := $(if $(shell command -v $(CXX)),LESIONFORGE_REQUIRE_NATIVE=1)

demo: $(VENV)/installed
	$(BIN)/lesionforge demo

test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -c tests/pytest.ini $(PYTEST_ARGS) tests zoo/tests

dev: $(VENV)/installed-dev
	@echo "Ready: . $(BIN)/activate; export PYTHONSAFEPATH=1"

check: lint types test

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .

types: $(VENV)/installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/installed-dev
	$(BIN)/python -m lesionforge.benchmarks $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build *.egg-info zoo/*.egg-info _native*.so liblesionforge_cuda.so

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --editable .
	touch $@

$(VENV)/installed-dev: $(SOURCES) zoo/pyproject.toml | $(BIN)/python
	$(REQUIRED) $(BIN)/python -m pip install --editable '.[dev]' --editable ./zoo
	touch $@ $(VENV)/installed
