# Every target sets up what it needs; the second run is fast, because each step leaves a stamp behind.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The demo's chain, keys and model live inside the clone. Point COROLLA_HOME elsewhere to share them.
export COROLLA_HOME ?= $(CURDIR)/.corolla
# Two cores serve everything: one compute thread a process.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
MODEL := $(COROLLA_HOME)/models/smollm2-135m-instruct/corolla.manifest.json
NPM := contracts/node_modules/.lock-installed
CONTRACTS := $(wildcard contracts/interfaces/*.sol contracts/contracts/*.sol contracts/contracts/*/*.sol)
PYTEST_ARGS ?=
BENCH_ARGS ?=
export CHROMIUM ?= /usr/bin/chromium
BENCH_TEST := tests/e2e/test_benchmark_suite.py
COMPOSE_TEST := tests/e2e/test_compose.py
TUTORIALS := tests/e2e/test_tutorials.py

.PHONY: help setup setup-tests demo test test-contracts test-python test-bench test-compose test-tutorials bench bench-all lint lint-python docs format clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMPS)/python $(NPM) $(MODEL) ## Python environment, Ganache and the model

demo: setup ## three paid nodes answer a question from a real model on a real chain
	@echo "==> Three nodes, a chain and a question"
	@$(BIN)/python -m corolla.demo

setup-tests: ## what `make setup` sets up, and Brownie, Slither and Chromium
	@$(MAKE) --no-print-directory -j3 setup $(STAMPS)/contracts $(CHROMIUM)

test: setup-tests ## every test
	@$(MAKE) --no-print-directory test-contracts
	@$(MAKE) --no-print-directory test-python

# Integration tests come first: the longest are among them, and one worker would be left with them at the end.
# End-to-end tests keep time with real processes: they get the machine to themselves.
test-python: setup ## unit, property, integration and end-to-end tests (PYTEST_ARGS='-m "not e2e"')
ifeq ($(strip $(PYTEST_ARGS)),)
	$(BIN)/pytest --ignore=tests/e2e -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/pytest tests/e2e --ignore=$(BENCH_TEST) --ignore=$(COMPOSE_TEST) --ignore=$(TUTORIALS)
else
	$(BIN)/pytest $(PYTEST_ARGS)
endif

test-bench: setup ## the benchmarks' swarms with a tiny model: too long to be among the tests
	$(BIN)/pytest $(BENCH_TEST)

test-compose: setup ## deploy/compose.yaml's services as processes: run it when you change that file
	$(BIN)/pytest $(COMPOSE_TEST)

test-tutorials: setup ## the tutorials' commands, on a devnet: run it when you change them, or a command
	$(BIN)/pytest $(TUTORIALS)

test-contracts: $(STAMPS)/contracts $(STAMPS)/abi ## the contracts' tests, under Brownie on Anvil
	bash contracts/scripts/test.sh

bench: setup ## the benchmarks in a quarter of an hour: tables, benchmarks/results.json, docs/img/benchmarks.png
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-all: setup ## the benchmarks with more rounds, sessions and latencies (BENCH_ARGS='--only stream')
	$(BIN)/python -m benchmarks --all $(BENCH_ARGS)

lint: ## ruff, mypy, import-linter, and that the shipped ABI and reference are the contracts'
	@$(MAKE) --no-print-directory -j2 lint-python $(STAMPS)/abi

lint-python: $(STAMPS)/python
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMPS)/python ## the documentation as a site, in build/site (`mkdocs serve` while you write)
	$(BIN)/mkdocs build --strict

format: $(STAMPS)/python ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what setup made (not COROLLA_HOME: it holds keys)
	rm -rf $(VENV) contracts/.venv contracts/.venv-slither contracts/node_modules contracts/build

# The first suitable Python, unless PYTHON names one.
$(STAMPS)/python: pyproject.toml
	@python="$${PYTHON:-}"; \
	if [ -z "$$python" ]; then \
	  for candidate in python3 python3.13 python3.12 python3.11; do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$candidate"; break; fi; \
	  done; \
	fi; \
	if [ -z "$$python" ]; then echo "Corolla needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv)." >&2; exit 1; fi; \
	[ -x $(BIN)/python ] || "$$python" -m venv $(VENV)
	@echo "==> Python packages into .venv (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@mkdir -p $(STAMPS) && touch $@

$(NPM): contracts/package-lock.json
	@command -v npm >/dev/null && command -v node >/dev/null || { echo "Corolla's devnet needs Node.js 20 and npm." >&2; exit 1; }
	@echo "==> Ganache, Anvil, solc and OpenZeppelin into contracts/node_modules"
	@cd contracts && npm ci --no-audit --no-fund --loglevel=error && cp package-lock.json node_modules/.lock-installed

$(STAMPS)/contracts: $(NPM) contracts/requirements.txt contracts/requirements-slither.txt contracts/scripts/setup.sh
	@echo "==> Brownie into contracts/.venv (some minutes the first time)"
	@bash contracts/scripts/setup.sh
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/abi: $(NPM) $(CONTRACTS) $(wildcard core/corolla_core/chain/abi/*.json contracts/scripts/*.mjs) docs/reference/contracts.md
	@echo "==> Contracts compiled: are the shipped ABI and their reference theirs?"
	@node contracts/scripts/compile.mjs --check
	@node contracts/scripts/natspec.mjs --check
	@mkdir -p $(STAMPS) && touch $@

# The explorer is tested in a real browser.
$(CHROMIUM):
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "==> Chromium"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else echo "The tests need Chromium (Debian: apt-get install chromium), or CHROMIUM=where it is." >&2; exit 1; fi

$(MODEL): | $(STAMPS)/python
	@echo "==> SmolLM2-135M-Instruct into $(COROLLA_HOME)/models"
	@$(BIN)/python -m corolla_core.model.smollm
