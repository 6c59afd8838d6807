# make demo   the whole line on a small web site of its own, with an embedded PostgreSQL
# make test   lint, type check and every test
# Both make .venv with what they need, and say what they are doing.

PYTHON ?= python3
BIN := .venv/bin
DEMO_ARGS = $(if $(WAT),--wat '$(WAT)') $(if $(SERVE),--serve '$(SERVE)') $(if $(MODEL),--model '$(MODEL)') $(if $(PRETRAINED),--pretrained '$(PRETRAINED)')
TESTS ?=

.PHONY: help demo test check format clean

help:
	@grep '^# make' Makefile | cut -c3-

demo: .venv/.for-demo
	@$(BIN)/python -m pairmill.ops.demo $(DEMO_ARGS)

test: check
	@echo '== tests'
	@$(BIN)/pytest $(TESTS)

check: .venv/.for-test
	@echo '== lint, format, types'
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: .venv/.for-test
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pairmill needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@echo '== a virtual environment in .venv'
	@$(PYTHON) -m venv .venv

.venv/.for-demo: pyproject.toml | $(BIN)/python
	@echo '== installing pairmill and what it needs (torch and torchvision among it: minutes, the first time)'
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[extract,download,score,ops]'
	@touch $@

.venv/.for-test: .venv/.for-demo
	@echo '== installing what the tests need'
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[extract,download,score,ops,dev]'
	@touch $@

clean:
	rm -rf .venv build out .mypy_cache .ruff_cache .pytest_cache
