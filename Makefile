# make train         makes the environment, trains CLIP on the emoji pairs, evaluates it and draws what it finds
# make test          makes the environment, passes the checks and all tests
# make test-newest   passes the quick tests on a second Python, with the newest JAX
# make format        writes what ruff can mend: imports, layout
# make docs          builds the site into docs/_build/html: warnings are errors, links within it are checked
# make notebooks     writes the .ipynb beside each notebook's source
# make families-table  writes the README's table of families
# make parity-table  compares with torch transformers and writes the table of docs/parity.md
# make leak-table    writes the table of what does not leak in docs/attention.md
# make lock          renews requirements.lock from pyproject.toml
# make clean         removes the environments and the caches, but no run
#
# PYTHON=python3.12 chooses the Python, CONFIG=configs/vit_digits.py another experiment, and ARGS goes to the program:
# make train ARGS="--config.steps=50", make test ARGS="tests/config/test_loading.py", make test ARGS="-n 0 --pdb" in one process.

.PHONY: train test check format docs notebooks families-table test-newest parity-table leak-table second-python lock clean
PYTHON ?= python3
CONFIG ?= configs/clip_emoji.py
ARGS ?=

# A CPU trains on its cores as on so many devices: each takes a part of the batch. Accelerators are not affected.
CORES := $(shell for n in 8 4 2 1; do [ "$$(nproc 2> /dev/null || echo 1)" -ge $$n ] && echo $$n && break; done)
train: export XLA_FLAGS ?= --xla_force_host_platform_device_count=$(CORES)
train: .venv/made
	.venv/bin/python train.py --config=$(CONFIG) $(ARGS)

# A process a core, and one for the time in which tests wait for others that they have started. Each begins with a
# stretch of the tests, which keeps what a file prepares in one of them, and then takes over what another one has left.
# Pytest by itself runs in one process.
PARALLEL = -n $$(($(CORES) + 1)) --dist worksteal
# Some hundred processes of tests and pages import the zoo, and where Python may not write beside its sources
# (PYTHONDONTWRITEBYTECODE, as in many containers) each would compile it again.
COMPILED = -m compileall -q zoo
test: check .venv/parity
	.venv/bin/python $(COMPILED)
	.venv/bin/python -m pytest $(PARALLEL) $(ARGS)

check: .venv/made
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/ty check --error-on-warning
	.venv/bin/lint-imports

format: .venv/made
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

# What another JAX may change: compiled programs, placement, files. The rest passes above.
QUICK = tests/layers tests/models/test_families.py::test_chance_acts_in_training_only_and_comes_from_the_key \
  tests/data/test_builders.py tests/data/test_pipeline.py tests/checkpoints/test_manager.py tests/generate/test_generate.py tests/optim/test_build.py \
  tests/test_saving.py tests/sharding/test_rules.py \
  $(addprefix tests/train/test_train.py::,test_a_config_becomes_a_run_that_can_be_loaded test_eight_devices_learn_what_one_does \
    test_a_run_begins_with_the_parameters_of_another)
test-newest: .venv-newest/made
	.venv-newest/bin/python $(COMPILED)
	.venv-newest/bin/python -m pytest $(PARALLEL) -m "not slow" $(or $(ARGS),$(QUICK))

# Prints the first of these that runs here: under pyenv, names on the PATH may not.
VERSIONS = $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions
PYTHONS = python3.13 python3.12 $(wildcard $(VERSIONS)/3.13*/bin/python) $(wildcard $(VERSIONS)/3.12*/bin/python)
second-python:
	@for python in $(PYTHONS); do $$python -c "import venv" 2> /dev/null && echo $$python && break; done; true

.venv/made: requirements.lock pyproject.toml
	scripts/environment.sh $(PYTHON) .venv

# The references. They are large and differ from machine to machine, so the lock does not hold them; without them the
# tests that compare say that they were left out.
.venv/parity: .venv/made
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[parity]' \
	  && touch .venv/parity || echo "torch and transformers cannot be installed: nothing will be compared with them" >&2

# Not in the lock, as the references. The weights are those that one tutorial shows; without them it is built unexecuted.
.venv/docs: .venv/made
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[docs]'
	touch .venv/docs

docs: .venv/docs
	.venv/bin/python $(COMPILED)
	-.venv/bin/python scripts/fetch.py --only=minilm
	.venv/bin/python -m sphinx --builder html --jobs $$(($(CORES) + 1)) --fail-on-warning --keep-going --quiet docs docs/_build/html $(ARGS)
	.venv/bin/python -m scripts.check_site docs/_build/html

notebooks: .venv/made
	.venv/bin/python -m scripts.notebooks

families-table: .venv/made
	.venv/bin/python -m scripts.families_table

parity-table: .venv/parity
	.venv/bin/python -m pytest $(PARALLEL) tests/convert --parity-table=docs/parity.md

leak-table: .venv/made
	.venv/bin/python -m pytest -n 0 tests/test_leaks.py --leak-table=docs/attention.md

.venv-newest/made: requirements.lock pyproject.toml
	scripts/environment.sh $(or $(shell $(MAKE) -s second-python),$(error Neither Python 3.13 nor 3.12 runs here)) .venv-newest

# One file for every Python and system, by markers. It names no registry: each machine asks the one it is set up for.
lock: .venv/made
	.venv/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --quiet \
	  --generate-hashes --no-emit-index-url --custom-compile-command "make lock" --output-file requirements.lock

clean:
	rm -rf .venv .venv-newest .cache .pytest_cache .ruff_cache .import_linter_cache build dist docs/_build docs/api docs/tutorials
