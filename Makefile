# `make demo` and `make test` are all the set-up there is; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): constraints.txt pyproject.toml
	@echo "Installing the pinned set into .venv: about 3 minutes and 6 GB, once."
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

install: $(STAMP)  ## the virtual environment .venv

demo: $(STAMP)  ## a small batch-size study of all three tasks, and its report
	$(BIN)/python -m tasks sweep configs/sweeps/demo/*.yaml --runs runs/demo
	$(BIN)/python -m tasks report runs/demo --out report/demo

check: $(STAMP)  ## format check, lint and types, as every submission is checked
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check .
	$(MAKE) types

format: $(STAMP)  ## put the code into its format and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(STAMP)  ## the type checker, on the modules that pyproject.toml lists
	$(BIN)/mypy

lint: $(STAMP)  ## the linter alone
	$(BIN)/ruff check .

test: $(STAMP)  ## the tests (5 minutes on 2 cores)
	$(BIN)/python -m pytest -n auto

test-slow: $(STAMP)  ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow

.PHONY: help install demo check format types lint test test-slow
