# Each target works as the first command typed: it installs what it still needs.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help setup demo test asan lint bench soak acceptance clean

VENV := .venv
PYTHON_IN_VENV := $(VENV)/bin/python
SOURCES := $(shell find src -name '*.py' -o -name '*.pxd') build_ext.py setup.py MANIFEST.in

help:
	@echo "make demo    copy live traffic between two servers on this machine, and compare them"
	@echo "make test    all tests: uncompiled, compiled, and (root) with real servers in namespaces"
	@echo "make asan    the compiled modules under address and undefined-behaviour sanitizers: tests, fuzzer"
	@echo "make lint    ruff, mypy, cython-lint"
	@echo "make bench   measure the hot paths"
	@echo "make soak    long tests"
	@echo "make acceptance  the promises at their full size, with real servers in namespaces (root)"
	@echo "make setup   only install: .venv, the compiled package, the programs that tests use"
	@echo "make clean   remove what the above made"

setup: $(VENV)/.package $(VENV)/.dev $(VENV)/.test-programs

demo: $(VENV)/.package $(VENV)/.demo-programs
	$(VENV)/bin/tcpcopy demo

test: setup
	scripts/test.sh

asan: $(VENV)/.build $(VENV)/.dev
	scripts/sanitized.sh build
	scripts/sanitized.sh tests
	scripts/sanitized.sh fuzz --seconds 60

lint: $(VENV)/.dev
	scripts/lint.sh

bench: setup
	env -u PYTHONPATH $(PYTHON_IN_VENV) -m benchmarks $(BENCH)

soak: setup
	scripts/soak.sh

acceptance: setup
	scripts/acceptance.sh

clean:
	rm -rf build dist $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name '__pycache__' -prune -exec rm -rf {} +
	find src -name '*.so' -delete -o -name '*.egg-info' -prune -exec rm -rf {} +

$(VENV)/.build: pyproject.toml scripts/setup.sh
	scripts/setup.sh venv
	@touch $@

$(VENV)/.dev: $(VENV)/.build
	scripts/setup.sh dev
	@touch $@

$(VENV)/.package: $(VENV)/.build $(SOURCES)
	scripts/setup.sh package
	@touch $@

$(VENV)/.demo-programs: $(VENV)/.build
	scripts/setup.sh demo-programs
	@touch $@

$(VENV)/.test-programs: $(VENV)/.build
	scripts/setup.sh test-programs
	@touch $@
