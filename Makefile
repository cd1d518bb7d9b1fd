# The commands of a developer; CI runs the same ones.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test quick pinned scale variations crash faults field properties bench bench-peers check format clean

help:  ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/installed  ## guided first run in a simulated cloud; needs no account
	@$(BIN)/orchestrator demo

# Most tests wait for something, so more processes than cores pay off.
test: $(VENV)/developed  ## run the test suite
	$(BIN)/python -m pytest -n 6 --dist worksteal

pinned: $(VENV)/developed  ## compare exit codes, data and requests with a recording
	$(BIN)/python -m tests.pinned compare

scale: $(VENV)/developed  ## run batches in full size and print their figures
	$(BIN)/python -m pytest -m scale -s tests/scale

variations: $(VENV)/developed  ## run a batch against a vendor that differs; print a table
	$(BIN)/python -m tests.scale

crash: $(VENV)/developed  ## kill processes a thousand times; count lost and doubled exports
	$(BIN)/python -m tests.crash

faults: $(VENV)/developed  ## test full disks, locked databases, broken networks
	$(BIN)/python -m pytest -m faults

field: $(VENV)/developed  ## play situations of users: containers, other users, locales, mounts
	$(BIN)/python -m pytest -m "field or not field" tests/field

# Other Pythons need an environment of their own: make quick PYTHON=python3.13 VENV=.venv-3.13
quick: $(VENV)/developed  ## run the fast tests of settings, manifests and commands
	$(BIN)/python -m pytest -n 6 --dist worksteal tests/cli tests/manifest tests/test_settings.py

properties: $(VENV)/developed  ## check invariants over random sequences of operations
	$(BIN)/python -m tests.properties

bench: $(VENV)/developed  ## run the benchmarks
	$(BIN)/python -m benchmarks

bench-peers: $(VENV)/compared  ## compare with other queues
	$(BIN)/python -m benchmarks.peers

check: $(VENV)/developed  ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/developed  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the virtual environment and build output
	rm -rf $(VENV) build dist

$(VENV)/installed: pyproject.toml
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is required, for example: make demo PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/developed: $(VENV)/installed
	@echo "Installing the development tools ..."
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(VENV)/compared: $(VENV)/developed
	@echo "Installing the queues to compare with ..."
	@$(BIN)/python -m pip install --quiet --group peers
	@touch $@
