# `make demo` and `make test` are all the set-up there is; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(STAMP): constraints.txt pyproject.toml
	@echo "Installing the pinned set into .venv: about 3 minutes and 6 GB, once."
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

install: $(STAMP)  ## the virtual environment .venv

demo: $(STAMP)  ## a small batch-size study of all three tasks, what it says, and its report
	$(BIN)/python -m tasks sweep configs/sweeps/demo/*.yaml --runs runs/demo
	$(BIN)/python -m tasks report runs/demo --out report/demo

# The studies of docs/programme.md, those first whose claims are decided for the fewest CPU-minutes.
FIRST := golmant_fig1_classification golmant_arm_base golmant_arm_noise40 golmant_arm_merged golmant_arm_wide golmant_arm_lenet \
  golmant_arm_quarter golmant_arm_half golmant_longer you_recipe_baseline you_recipe_whole you_recipe_untuned \
  you_recipe_critical golmant_lowest_loss you_layerwise golmant_arm_lars golmant_arm_lamb golmant_arm_adam \
  golmant_fig2_scaling_rules golmant_fig2_failure golmant_fig2_scaling_rules_m0_64 golmant_fig2_failure_m0_64 \
  you_optimizers you_equal_updates you_diffusion golmant_fig1_language golmant_fig1_segmentation golmant_arm_noise20
LONG := golmant_curve_language golmant_curve_segmentation golmant_curve_lenet golmant_curve_wide golmant_one_rate \
  you_diffusion_long shallue_tuned
# The whole of Fashion-MNIST, from Debian's package dataset-fashion-mnist: `make reproduce-whole DATA=/its/folder`.
WHOLE := you_whole_momentum you_whole_adam you_whole_lars you_whole_lamb

reproduce: $(STAMP)  ## the programme that decides the claims: 90 minutes of 2 cores, goes on where it was stopped
	$(BIN)/python -m tasks sweep $(FIRST:%=configs/sweeps/%/embedded.yaml) --runs runs/reproduction
	$(BIN)/python -m tasks report runs/reproduction --out report/reproduction

reproduce-long: reproduce  ## what the programme leaves out, into the same folder: hours
	$(BIN)/python -m tasks sweep $(LONG:%=configs/sweeps/%/embedded.yaml) --runs runs/reproduction
	$(BIN)/python -m tasks report runs/reproduction --out report/reproduction

reproduce-whole: $(STAMP)  ## all of Fashion-MNIST in one batch (DATA: the folder of its four IDX files): 1 hour
	$(BIN)/python -m tasks sweep $(WHOLE:%=configs/sweeps/%/whole.yaml) --runs runs/reproduction -- --data.root $(DATA)

publish: $(STAMP)  ## keep the ended studies of runs/reproduction; make results/ and the documents' tables from them
	$(BIN)/python -m tasks.publish --keep runs/reproduction

verify: $(STAMP)  ## every published verdict and number made anew from the kept runs; fails on a difference
	$(BIN)/python -m tasks.publish --check

check: $(STAMP)  ## format check, lint and types, as every submission is checked
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check .
	$(MAKE) types

format: $(STAMP)  ## format the code and fix what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(STAMP)  ## the type checker
	$(BIN)/mypy

lint: $(STAMP)  ## the linter alone
	$(BIN)/ruff check .

test: $(STAMP)  ## the tests (5 minutes on 2 cores)
	$(BIN)/python -m pytest -n auto

test-slow: $(STAMP)  ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow

bench: $(STAMP)  ## what a step, a whole fit and a start cost over their peers (9 minutes; JSON in bench.json)
	$(BIN)/python -m tasks.benchmark speed --json bench.json

.PHONY: help install demo reproduce reproduce-long reproduce-whole publish verify check format types lint test test-slow bench
