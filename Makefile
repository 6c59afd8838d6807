# make try    the line up to the downloaded images, without torch, and its status
# make demo   the whole line on a small web site of its own, with an embedded PostgreSQL; SERVE_PAGES=1: and its pages, until Ctrl-C
# make quick   lint, types, unit tests and one line end to end, side by side: a minute
# make test   all of that, then every other test: JOBS=2 processes, each with a server of its own; TESTS=tests/unit …
# make coverage   lines and branches that the tests run, by folder, in subprocesses too
# make chaos   faults on a line at work, then its books: FAULTS=1000 of them, about 6 minutes; SEED=1 URLS=20000
# make web-test   the pages in a real browser (apt-get install chromium); make test runs it where there is one
# make tour   every command of docs/tour.md, and its answer; DATABASE=DSN: an empty database of yours
# make asks-env   the second HTTP backend in .venv-asks, since asks pins what others may not have
# make pooler-test   what workers do, through a real PgBouncer (apt-get install pgbouncer)
# make tls-test   TLS and client certificates, as docs/security.md wants them (apt-get install postgresql openssl)
# make spark-test   a release by Spark beside one by DuckDB, over the same facts (apt-get install openjdk-17-jre-headless)
# Each makes the environment that it needs, and says what it is doing.

# a process starts in two thirds of the time where byte code is kept, and the tests start hundreds
export PYTHONDONTWRITEBYTECODE =

PYTHON ?= python3
, := ,
BIN := .venv/bin
DEMO_ARGS = $(if $(WAT),--wat '$(WAT)') $(if $(SERVE),--serve '$(SERVE)') $(if $(MODEL),--model '$(MODEL)') $(if $(PRETRAINED),--pretrained '$(PRETRAINED)') $(if $(SERVE_PAGES),--serve-pages)
TESTS ?=
JOBS ?= 2
FAULTS ?= 1000
URLS ?= 20000
SEED ?= 1

.PHONY: help try demo quick test databases scoring apart web-test unit models line coverage chaos tour asks-env pooler-test tls-test spark-test check format clean .mypy_path

help:
	@grep '^# make' Makefile | cut -c3-

try: .venv/.for-try
	@$(BIN)/python -m pairmill.ops.demo --until download $(DEMO_ARGS)
	@$(BIN)/pairmill status

demo: .venv/.for-demo
	@$(BIN)/python -m pairmill.ops.demo $(DEMO_ARGS)

quick: .venv/.for-test .mypy_path
	@$(MAKE) --no-print-directory -j2 line unit models check

# Folders with whole processes come first, and files stay in order: what takes long begins early.
# Models have a process of their own beside the others, each of which would import torch.
ifdef TESTS
test: check
	@echo '== tests'
	@$(BIN)/pytest -n $(JOBS) --dist loadfile $(TESTS)
else
test: quick
	@echo '== the other tests'
	@$(MAKE) --no-print-directory -j2 apart databases
endif

# beside the databases' tests, one after the other
apart:
	@$(MAKE) --no-print-directory scoring
	@if command -v chromium > /dev/null; then $(MAKE) --no-print-directory web-test; \
		else echo '== no chromium here, so the pages were tried in no browser: apt-get install chromium, then make web-test'; fi

web-test: .venv/.for-test
	@echo '== the pages, in a browser'
	@$(BIN)/pytest -q tests/web

databases: .venv/.for-test
	@$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m 'not quick' --ignore tests/integration/models tests/acceptance tests/migration tests/integration

scoring: .venv/.for-test
	@$(BIN)/pytest -q tests/integration/models

unit: .venv/.for-test
	@echo '== unit tests'
	@$(BIN)/pytest -q --ignore tests/unit/models tests/unit

# apart, since torch takes four seconds to import
models: .venv/.for-test
	@echo '== unit tests of models'
	@$(BIN)/pytest -q tests/unit/models

line: .venv/.for-test
	@echo '== a line, end to end'
	@$(BIN)/pytest -q -m quick tests/acceptance

coverage: .venv/.for-test
	@rm -f .coverage .coverage.*
	@$(BIN)/coverage run --source $(subst $() $(),$(,),$(addprefix $(CURDIR)/,schema migrations workers ops)) -m pytest -q -n $(JOBS) --dist loadfile $(TESTS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage json --quiet -o - | $(BIN)/python tests/support/by_folder.py

chaos: .venv/.for-test
	@PYTHONPATH=tests $(BIN)/python -m support.chaos --faults $(FAULTS) --urls $(URLS) --seed $(SEED)

check: .venv/.for-test .mypy_path
	@echo '== lint, format, types'
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

# the packages where a type checker or an editor finds them: an editable install is an import hook, which neither sees
.mypy_path:
	@mkdir -p $@/pairmill
	@for each in schema migrations workers ops src/pairmill/__init__.py src/pairmill/py.typed; do ln -sfn ../../$$each $@/pairmill/; done

format: .venv/.for-test
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# Of an install that was cut off .venv-unfinished stays: pip takes half a package for a whole one, so .venv is made anew.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pairmill needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@if [ ! -e .venv/bin/pip ] || [ -e .venv-unfinished ]; then \
		echo '== a virtual environment in .venv'; touch .venv-unfinished; $(PYTHON) -m venv --clear .venv; fi
	@touch .venv-unfinished
	@echo '== installing $(1)'
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$(2)]'
	@rm .venv-unfinished
	@touch $@
endef

.venv/.for-try: pyproject.toml setup.py
	$(call install,pairmill without torch,extract$(,)download$(,)ops)

.venv/.for-demo: pyproject.toml setup.py
	$(call install,pairmill and what it needs (torch and torchvision among it: minutes the first time),extract$(,)download$(,)score$(,)ops$(,)index$(,)web)

# clip-retrieval's client is a test of the kNN service; what it requires clashes with what is here, and the client needs requests alone.
# And mypy reads the types of torch and the like once, a minute: what it finds is for `check` to say
.venv/.for-test: .venv/.for-demo | .mypy_path
	$(call install,what the tests need,extract$(,)download$(,)score$(,)ops$(,)index$(,)ivfpq$(,)web$(,)dev)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps clip-retrieval==2.45.0
	@$(BIN)/mypy > /dev/null || true

pooler-test: .venv/.for-test
	@$(BIN)/pytest tests/pooler

tls-test: .venv/.for-test
	@$(BIN)/pytest tests/tls

spark-test: .venv/.for-test
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[spark]'
	@$(BIN)/pytest tests/spark

tour: .venv/.for-test
	@PYTHONPATH=tests $(BIN)/python -m support.tour $(if $(DATABASE),--database '$(DATABASE)')

# asks 3.0.0 requires anyio 3, with which it fails on today's trio: so it comes without what it
# requires, and pip says once that anyio 4 is not what it asked for. tests/conftest.py is left out
# (--confcutdir): it needs the extra `ops`.
asks-env: .venv-asks/.ready
	@echo '== tests of the backend on asks'
	@.venv-asks/bin/pytest --confcutdir=tests/asks tests/asks

.venv-asks/.ready: pyproject.toml
	@echo '== a virtual environment in .venv-asks'
	@$(PYTHON) -m venv .venv-asks
	@echo '== installing pairmill, and asks without what it requires'
	@.venv-asks/bin/pip install --quiet --disable-pip-version-check -e '.[download]' 'pytest>=8.3,<10' 'trustme>=1.2,<2' 'anyio>=4,<5' 'h11>=0.16,<1'
	@.venv-asks/bin/pip install --quiet --disable-pip-version-check --no-deps asks==3.0.0 async_generator==1.10
	@touch $@

clean:
	rm -rf .coverage .coverage.* .venv .venv-* .mypy_path build out .mypy_cache .ruff_cache .pytest_cache
