# `sudo make demo` and `sudo make test` install what they lack. Written for Debian 12 and 13.

PYTHON ?= /usr/bin/python3
DEMO_ARGS ?=
TEST_ARGS ?=
MATRIX_ARGS ?=
GUEST_ARGS ?=
BENCH_ARGS ?=
VM_ARGS ?=

BIN := .venv/bin
# under sudo, what a recipe creates here belongs to the invoking user afterwards
OWNED := .ci/owned

export PYTHON
.DEFAULT_GOAL := help
.PHONY: help setup setup-test demo test vm-test vm-matrix lint bench test-matrix test-guest clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing (Debian packages, .venv); then .venv/bin/awaitscope works
	@$(OWNED) .ci/setup demo

setup-test:
	@$(OWNED) .ci/setup test

demo: setup ## trace a real asyncpg program and print the 13 steps of one await (needs sudo)
	@$(OWNED) $(BIN)/awaitscope demo $(DEMO_ARGS)

test: lint ## run the linters and all tests (with sudo: the BPF tests too)
	@$(OWNED) .ci/tests $(TEST_ARGS)

vm-test: setup-test ## boot guests with network cards of their own and test in them (needs sudo)
	@$(OWNED) $(BIN)/python -m pytest tests/vm -m 'vm or lab' --timeout=900 $(VM_ARGS)

vm-matrix: setup-test ## the same load on several kernels; writes what each hook is on them
	@$(OWNED) $(BIN)/python tests/vm/matrix.py

lint: setup-test ## run ruff, mypy and the import contract
	@$(OWNED) sh -euc '\
		$(BIN)/ruff check .; \
		$(BIN)/ruff format --check .; \
		$(BIN)/mypy; \
		$(BIN)/lint-imports --no-cache'

bench: setup-test ## measure what tracing costs, beside the bars (needs sudo)
	@$(OWNED) $(BIN)/python -m pytest tests/bench -m bench -s --timeout=1800 $(BENCH_ARGS)

test-matrix: setup-test ## run real frameworks on every CPython of this machine (needs sudo)
	@$(OWNED) $(BIN)/python tests/matrix.py $(MATRIX_ARGS)

test-guest: setup-test ## run others' test suites with and without awaitscope (needs sudo; 3 to 10 minutes each)
	@$(OWNED) $(BIN)/python tests/guest.py $(GUEST_ARGS)

clean: ## remove .venv and all caches
	rm -rf .venv .matrix .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
