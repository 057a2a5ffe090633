# Every target starts from a bare Python 3.11 with venv; what is installed is remembered by stamp files in .venv.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamps
# processes that run the tests, each file in one of them, the longest files first
WORKERS ?= logical
TOGETHER := --numprocesses $(WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test coverage lint types bench docs clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(STAMP)/venv:
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	mkdir -p $(STAMP)
	touch $@

$(STAMP)/package: $(STAMP)/venv pyproject.toml constraints.txt
	$(PIP) --editable .
	touch $@

# The groups of pyproject.toml: .venv/.stamps/test, lint, docs
$(STAMP)/test $(STAMP)/lint $(STAMP)/docs: $(STAMP)/%: $(STAMP)/package
	$(PIP) --group $*
	touch $@

demo: $(STAMP)/package  ## simulate a titration, fit it, print a table, write figures and an h5ad
	$(BIN)/dream-sc demo --output demo_output

test: $(STAMP)/test  ## run the tests, on all cores
	$(BIN)/python -m pytest $(TOGETHER) $(PYTEST_ARGS)

coverage: $(STAMP)/test  ## run the tests, and list the lines that none of them reached
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(TOGETHER) $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(STAMP)/lint  ## check the style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)/lint  ## check the types
	$(BIN)/mypy

bench: $(STAMP)/test  ## run every benchmark by its defaults, each a script of its own; takes a day
	@for script in benchmarks/[a-z]*.py benchmarks/calibration; do echo "== $$script"; $(BIN)/python "$$script"; done

docs: $(STAMP)/docs  ## build the site into docs/_build/html, warnings are errors
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --builder html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:  ## remove the environment, caches and builds
	rm -rf $(VENV) build dist demo_output docs/_build docs/generated docs/computed docs/jupyter_execute docs/tutorials
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage coverage.xml
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
