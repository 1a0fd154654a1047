# `make demo` and `make test` do all their own set-up: a virtual environment in .venv, with the
# versions that constraints.txt pins. Stamp files in .venv make the second time quick.

VENV := .venv
BIN := $(VENV)/bin
PINNED := --build-constraint constraints.txt --constraint constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PINNED)
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help demo test lint bench reproduce docs clean
.DELETE_ON_ERROR:

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.core  ## Audit a real model on real data, fix it, train both; writes demo/report.html
	@$(BIN)/python -m depthscale.demo

test: lint  ## Lint, type checks and all tests
	@sh scripts/ensure_browser.sh
	$(ONE_THREAD) $(BIN)/python -m pytest --quiet --numprocesses 2

lint: $(VENV)/.dev  ## Lint, formatting and type checks
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy

bench: $(VENV)/.bench  ## Speed, as ratios within one run; results go to benchmarks/results
	@for script in benchmarks/[!_]*.py; do $(ONE_THREAD) $(BIN)/python $$script || exit 1; done

reproduce: $(VENV)/.core  ## The claims of the papers, recomputed; values and figures go to reproduced/
	@for paper in dropout gradients limits absorbing; do \
		$(ONE_THREAD) $(BIN)/python -m depthscale.papers $$paper --out reproduced/$$paper || exit 1; \
	done

docs: $(VENV)/.docs  ## The reference, from the docstrings, in site/
	$(BIN)/pdoc --docformat numpy --output-directory site depthscale

clean:  ## Remove the environment and every generated file
	rm -rf $(VENV) demo site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Dependency groups need pip 25.1 or later, and an editable install of a pinned build needs 25.3:
# more than ensurepip brings, so pip itself is upgraded first, to its pinned version.
$(VENV)/.pip: constraints.txt
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Making $(VENV) with $$python"; \
			$$python -m venv $(VENV) || exit 1; \
			found=yes; break; \
		fi; \
	done; \
	test -n "$$found" || { \
		echo "depthscale needs Python 3.11 or later: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--upgrade pip
	@touch $@

$(VENV)/.core: $(VENV)/.pip pyproject.toml
	@echo "Installing depthscale into $(VENV) (once; 1.4 GB or more, a minute or more)"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.pip pyproject.toml
	@echo "Installing depthscale and its test tools into $(VENV) (once; 1.8 GB or more, minutes)"
	@$(INSTALL) --group dev --editable .
	@touch $(VENV)/.core $@

$(VENV)/.bench $(VENV)/.docs: $(VENV)/.%: $(VENV)/.dev
	@$(INSTALL) --group $* --editable .
	@touch $@
