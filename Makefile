# salq: `make run` serves the app, `make test` tests it. Needs bash, make and Python 3.11 or newer; everything else goes into .venv.
#
#   make setup   create .venv and install the pinned dependencies     make check   linters, types, import rules
#   make run     setup if needed, then http://127.0.0.1:7860          make test    setup with test tools, then all tests
#   make assets  recompute what the first screen shows                make clean   remove .venv and every cache
#   make audit   look the pinned packages up among known vulnerabilities
#
# PYTHON=... picks the interpreter; pip's own settings (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL, ...) are respected;
# PYTEST="-k grid" adds arguments to pytest; JOBS=1 runs the tests in one process.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev run check test assets audit tree clean

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check -c constraints.txt
JOBS ?= 2
PYTEST ?=
# Shapes and dtypes in signatures are checked at test time, in the rooms of arithmetic only.
CHECKED := salq.quant,salq.packing,salq.kernels,beartype.beartype

help:
	@sed -n '/^#   make/s/^# *//p' Makefile

setup: $(VENV)/installed
	@echo "salq: $(VENV) is ready"

setup-dev: $(VENV)/installed-dev

run: $(VENV)/installed
	@exec $(PY) app.py

check: setup-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache

# One test process per core, so one thread in each. A file stays in one process: its fixtures are made once. Files are begun in their order, browser
# first; sorted by their number of tests, as xdist does it, the longest one would be left over for one process at the end.
test: setup-dev
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --timeout 600 --jaxtyping-packages=$(CHECKED) $(PYTEST)

assets: $(VENV)/installed
	$(PY) benchmarks/make_assets.py
	$(PY) benchmarks/make_lessons.py
	$(PY) benchmarks/make_tokens.py
	$(PY) benchmarks/results_table.py

audit: $(VENV)/installed
	@$(PY) -m pip install --disable-pip-version-check --quiet pip-audit || true
	@$(PY) benchmarks/audit.py

tree: setup-dev
	$(PY) -m tests.house.readme_tree

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache .gradio test-results build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last: an interrupted installation is taken up again, a finished one costs nothing.
$(PY):
	@for name in $(PYTHON) python3.11 python3 python3.12 python3.13; do \
	  if "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "salq: creating $(VENV) with $$("$$name" --version)"; exec "$$name" -m venv $(VENV); fi; done; \
	echo "salq needs Python 3.11 or newer with its venv module (Debian and Ubuntu: apt-get install python3 python3-venv)." >&2; exit 1

$(VENV)/installed: requirements.txt constraints.txt | $(PY)
	@echo "salq: installing the pinned dependencies (once; torch is large)"
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements.txt requirements-dev.txt constraints.txt | $(VENV)/installed
	$(PIP) -r requirements-dev.txt
	@touch $@
