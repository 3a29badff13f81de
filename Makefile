# Two commands on a fresh machine: `make run` and `make test`; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

TABLES := $(addprefix table,1 2 3 4 5 6 7 8 9 10) figure2 figure4
SIZES = $(if $(LIMIT),task.n_pairs=$(LIMIT) task.n_select=$(LIMIT) task.n_test=$(LIMIT))
# A table is one sweep, or several: table3.yaml, table3-sft.yaml, ...
SWEEPS = $(notdir $(basename $(wildcard configs/experiment/$@.yaml configs/experiment/$@-*.yaml)))
MODEL_KEY = model

.DEFAULT_GOAL := help
.PHONY: help run test install bench reliability tables figures check format smoke fetch clean $(TABLES)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: .venv/installed ## measure SADI on the embedded model and data; prints a table
	$(BIN)/sadi-bench

test: .venv/test-installed fetch ## run the whole test suite
	$(BIN)/python -m pytest --numprocesses auto

install: .venv/installed ## make .venv and install the package

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

bench: .venv/bench-installed ## time the grid against lm-eval and hooks (20 minutes); results/benchmarks/
	$(BIN)/python scripts/benchmark_grid.py $(ARGS)

reliability: .venv/installed ## kill, crowd, starve and damage runs, and count what survives (docs/RELIABILITY.md)
	$(BIN)/python scripts/reliability.py $(ARGS)

.venv/bench-installed: .venv/installed
	$(PIP) --editable '.[bench]'
	@touch $@

table5 table6: MODEL_KEY = hydra.sweeper.params.model
figure4: SIZES = $(if $(LIMIT),task.n_test=$(LIMIT)) # its pairs are what it is about
$(TABLES): .venv/installed # what is done is skipped; one sweep's failure does not stop the next
	@failed=0; for sweep in $(SWEEPS); do \
	  $(BIN)/sadi-bench experiment=$$sweep $(if $(MODEL),$(MODEL_KEY)=$(MODEL)) \
	    $(if $(PROTOCOL),protocol=$(PROTOCOL)) $(SIZES) || failed=1; \
	done; exit $$failed

WHERE = $(if $(MODEL),model=$(MODEL)) $(if $(RUNS),runs_dir=$(RUNS)) $(if $(TO),to=$(TO))

tables: .venv/installed ## write the paper's tables beside the runs [MODEL= RUNS= TO=]; make table1 [MODEL= LIMIT= PROTOCOL=] runs one, ... table10, figure2, figure4
	$(BIN)/sadi-bench tables $(WHERE) $(if $(LIMIT),'options=$(SIZES)')

figures: .venv/bench-installed ## draw Figures 2 to 7 beside the runs [MODEL= RUNS= TO=]
	$(BIN)/sadi-bench figures $(WHERE)

.venv/test-installed: .venv/installed
	$(PIP) --editable '.[test]'
	@touch $@

fetch: .venv/installed # what the tests marked `model` need; without it they are skipped
	-@$(BIN)/python scripts/fetch.py

check: .venv/test-installed ## lint, format, import contract, types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/mypy

format: .venv/test-installed ## rewrite the code in the house style
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

smoke: .venv/installed ## a run of seconds on a tiny random model
	$(BIN)/sadi-bench experiment=smoke force=true

clean: ## delete .venv and what tools leave behind; results and downloads stay
	rm -rf .venv dist .pytest_cache .ruff_cache .import_linter_cache
