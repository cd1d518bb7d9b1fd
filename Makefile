# One word for each duty; the same words in CI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test scale crash faults properties bench bench-peers check format clean

help:  ## show these words
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/installed  ## the guided first run, against a cloud on loopback
	@$(BIN)/orchestrator demo

test: $(VENV)/developed  ## the whole test-suite; most tests wait, so more run at once than cores
	$(BIN)/python -m pytest -n 4 --dist worksteal

scale: $(VENV)/developed  ## a night's work in full size, with its figures
	$(BIN)/python -m pytest -m scale -s tests/scale

crash: $(VENV)/developed  ## a thousand kills; counts what was lost or doubled
	$(BIN)/python -m tests.crash

faults: $(VENV)/developed  ## what may go wrong in the machine and out in the world
	$(BIN)/python -m pytest -m faults

properties: $(VENV)/developed  ## thousands of histories of workers, rescuers and persons
	$(BIN)/python -m tests.properties

bench: $(VENV)/developed  ## how close a run comes to what bounds it
	$(BIN)/python -m benchmarks

bench-peers: $(VENV)/compared  ## the same jobs through other queues, and through ours
	$(BIN)/python -m benchmarks.peers

check: $(VENV)/developed  ## style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/developed  ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what was installed and built
	rm -rf $(VENV) build dist

$(VENV)/installed: pyproject.toml
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one: make demo PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/developed: $(VENV)/installed
	@echo "Installing the tools of development ..."
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(VENV)/compared: $(VENV)/developed
	@echo "Installing what is compared with ..."
	@$(BIN)/python -m pip install --quiet --group peers
	@touch $@
