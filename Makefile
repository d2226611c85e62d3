# Everything is installed into $(VENV), with the versions of constraints.txt, and only when those or pyproject.toml changed.
#   PYTHON    the Python that makes the environment, 3.11 or newer         make demo PYTHON=python3.12
#   PIP_ARGS  further arguments of pip, e.g. an index with CPU-only torch  make demo PIP_ARGS="--extra-index-url ..."
#   ARGS      arguments of pytest                                          make test ARGS="-k ising"

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
ARGS ?=
BIN := $(VENV)/bin

# Images of Python often forbid it to keep what it compiled. Every process of a test would then compile torch again: seconds each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check docs clean

help:
	@echo "make demo    train, draw and judge a small Ising generator; prints the verdict and where the report lies"
	@echo "make test    run all tests"
	@echo "make check   ruff and mypy"
	@echo "make docs    build the documentation into site/"
	@echo "make clean   remove the environment, caches and site/; runs/ stays"

demo: $(VENV)/.has-ising
	@out=runs/demo; n=1; while [ -e "$$out" ]; do n=$$((n + 1)); out=runs/demo-$$n; done; \
	"$(BIN)/simulacra" run ising.gan --recipe quick --out "$$out"

test: $(VENV)/.has-dev
	"$(BIN)/python" -m pytest -n auto --dist loadgroup $(ARGS)

check: $(VENV)/.has-dev
	"$(BIN)/ruff" check .
	"$(BIN)/mypy"

docs: $(VENV)/.has-docs
	NO_MKDOCS_2_WARNING=1 "$(BIN)/mkdocs" build --strict

# A file per extra remembers that it is installed. pip compiles nothing: Python does so when a module is first used.
$(VENV)/.has-%: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "simulacra needs Python 3.11 or newer; say which: make PYTHON=python3.12")'
	@"$(BIN)/python" -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv "$(VENV)"
	@echo "installing simulacra[$*] into $(VENV); the first time this takes minutes"
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-compile $(PIP_ARGS) -c constraints.txt -e ".[$*]"
	@touch "$@"

clean:
	[ ! -f "$(VENV)/pyvenv.cfg" ] || rm -rf "$(VENV)"
	rm -rf site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
