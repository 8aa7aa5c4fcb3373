# The two commands of the README are `make demo` and `make test`; each installs what it needs into .venv and can be repeated.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
FLIGHTS := examples/flights
SEEDS ?= 2000
DEFAULT := not soak and not gpu and not hdfs
# Many tests wait for processes most of their time.
AT_ONCE ?= $(shell echo $$(($$(nproc) + 1)))

.PHONY: help demo test check lint format types contracts proto docs unit integration hdfs chaos coverage sim bench clean

help: ## Show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14

# A stamp file per set of packages, so that a second run installs nothing.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit(f"antinfer needs Python 3.11-3.13, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/bench.stamp: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[bench]'
	@touch $@

demo: $(VENV)/demo.stamp ## Run a model over 336,776 real rows, then prove that the output is complete
	@rm -rf $(FLIGHTS)/output
	$(BIN)/python $(FLIGHTS)/prepare.py
	$(BIN)/antinfer run $(FLIGHTS)/job.yaml
	$(BIN)/antinfer verify $(FLIGHTS)/output

test: check ## Lint, types, contracts, generated code, then every test
	@$(BIN)/python -m pytest -m '$(DEFAULT) and alone'
	@$(BIN)/python -m pytest -m '$(DEFAULT) and not alone' -n $(AT_ONCE) --dist loadfile --no-loadscope-reorder

check: lint types contracts proto docs

lint: $(VENV)/dev.stamp ## Style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/dev.stamp ## Mend what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/dev.stamp ## Static types
	$(BIN)/mypy

contracts: $(VENV)/dev.stamp ## Layers and purity
	$(BIN)/lint-imports --config .importlinter

proto: $(VENV)/dev.stamp ## The generated RPC code is what the .proto files say
	$(BIN)/python scripts/gen_protos.py --check

docs: $(VENV)/dev.stamp ## The generated reference pages, and the schema of the chart, are what the code says
	$(BIN)/python scripts/gen_job_reference.py --check
	$(BIN)/python scripts/gen_cli_reference.py --check
	$(BIN)/python scripts/gen_chart_schema.py --check

unit: $(VENV)/dev.stamp ## The quick tests
	$(BIN)/python -m pytest -m 'not slow and $(DEFAULT)' tests/unit tests/sim

integration: $(VENV)/dev.stamp ## Real processes, servers and faults
	$(BIN)/python -m pytest tests/integration

$(VENV)/hadoop: | $(VENV)/dev.stamp
	$(BIN)/python -m tests.integration.hdfs.hadoop $@

hdfs: $(VENV)/hadoop ## Jobs on a real HDFS; needs Java, fetches a Hadoop of 220 MB
	$(BIN)/python -m pytest -m hdfs tests/integration/test_hdfs.py

chaos: $(VENV)/demo.stamp ## A dark day for the flights: dozens of faults, no row lost
	$(BIN)/python $(FLIGHTS)/prepare.py
	$(BIN)/antinfer chaos $(FLIGHTS) --plan dark-day --seed 7 --output $(VENV)/chaos

coverage: $(VENV)/dev.stamp ## Which lines the tests reach
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage report

sim: $(VENV)/dev.stamp ## 2,000 drawn runs of the whole system with every fault; SEEDS=20000 for more
	@$(BIN)/python -m antinfer.testing.sim --seeds $(SEEDS) --corpus tests/sim/corpus.jsonl

bench: $(VENV)/bench.stamp ## The numbers, with peers beside us in the same run
	$(BIN)/python -m benchmarks

clean: ## Remove everything that make made
	rm -rf $(VENV) build dist *.egg-info
