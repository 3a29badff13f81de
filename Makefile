# Two commands on a fresh machine: `make run` and `make test`; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run test install bench check format smoke fetch clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: .venv/installed ## measure SADI on the embedded model and data; prints a table
	$(BIN)/sadi-bench

test: .venv/test-installed fetch ## run the whole test suite
	$(BIN)/python -m pytest

install: .venv/installed ## make .venv and install the package

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

bench: .venv/bench-installed ## time the grid against lm-eval and hooks (20 minutes); results/benchmarks/
	$(BIN)/python scripts/benchmark_grid.py $(ARGS)

.venv/bench-installed: .venv/installed
	$(PIP) --editable '.[bench]'
	@touch $@

.venv/test-installed: .venv/installed
	$(PIP) --editable '.[test]'
	@touch $@

fetch: .venv/installed # what the tests marked `model` need; without it they are skipped
	-@$(BIN)/python scripts/fetch.py

check: .venv/test-installed ## lint, format, import contract
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

format: .venv/test-installed ## rewrite the code in the house style
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

smoke: .venv/installed ## a run of seconds on a tiny random model
	$(BIN)/sadi-bench experiment=smoke force=true

clean: ## delete .venv and what tools leave behind; results and downloads stay
	rm -rf .venv dist .pytest_cache .ruff_cache .import_linter_cache
