# muster: make up | test | check. The virtual environment is made on first use and reused afterwards.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: up install dev check format lint types test update-golden dashboards docs bench clean help

up: install ## install the suite and watch this machine, with a demonstration job
	@$(BIN)/muster up --demo

install: $(VENV)/.suite ## the suite with its pinned dependencies, trainer included
dev: $(VENV)/.dev ## the same plus linters, types and tests

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(f"muster needs Python 3.11 or newer, $(PYTHON) is {sys.version.split()[0]}: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade "pip>=25.1"

$(VENV)/.suite: pyproject.toml constraints.txt deploy/launcher | $(VENV)/bin/python
	@echo "installing muster into $(VENV) (half a minute to some minutes, most of it torch)"
	@$(PIP) install -c constraints.txt -e '.[trainer,postgres]'
	@touch $@

$(VENV)/.dev: $(VENV)/.suite
	@$(PIP) install -c constraints.txt --group dev
	@touch $@

check: lint types test ## what CI runs: format, lint, types, tests

format: dev ## rewrite the sources in the house's format
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lint: dev
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: dev
	@$(BIN)/mypy

# WHEEL=1: against the built wheel instead of the clone, as CI does; the next plain make installs the clone again.
test: dev ## the whole test suite; PYTEST="-k name" narrows it
ifeq ($(WHEEL),1)
	@rm -rf dist && $(BIN)/python -m build --wheel --no-isolation . >/dev/null
	@rm -f $(VENV)/.suite && $(PIP) install --no-deps --force-reinstall dist/*.whl
	@MUSTER_WHEEL=1 $(BIN)/pytest -n 2 --dist loadgroup $(PYTEST)
else
	@$(BIN)/pytest -n 2 --dist loadgroup $(PYTEST)
endif

update-golden: dev ## rewrite tests/golden from what the code answers now; read the diff
	@UPDATE_GOLDEN=1 $(BIN)/pytest -q -k golden

dashboards: dev ## rewrite dashboards/ from dashboards/source; read the diff
	@$(BIN)/python dashboards/source/build.py

bench: dev ## the measurements of docs/benchmarks.md
	@$(BIN)/pytest tests/benchmarks -q -s --benchmarks

docs: dev ## rewrite the pages that are generated from the code
	@$(BIN)/python -m daemons.documentation docs && $(BIN)/python -m checks.documentation > docs/checks.md

clean:
	@rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile
