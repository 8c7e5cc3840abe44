# What people and .ci/run call. Each target first makes .venv as requirements.txt says.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2
# makes a client of the OpenAPI schema, for a test; it asks for older versions than ours
GENERATOR := openapi-python-client==0.29.1
# of the tests marked `rotated`, which of the fourteen parts: each day's is the one after yesterday's
PART ?= $(shell expr $$(date -u +%s) / 86400 % 14 + 1)

PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
USUAL := not long and not stores and not ray

export MLFLOW_DISABLE_TELEMETRY := true
# byte code is kept: uv writes none, and without it every process that imports MLflow takes ten seconds more
export PYTHONDONTWRITEBYTECODE :=

define DEMO_SAYS
This demo, in a minute or two where uv has downloaded the packages before:
  1. installs the platform into $(VENV); nothing outside of this folder is changed
  2. starts the API with its pages on port $(or $(GRPO_PORT),8000), and the MLflow UI on port $(or $(GRPO_MLFLOW_UI_PORT),5000)
  3. trains 5,000 steps of CartPole, evaluates the policy, and asks it for an action
endef
export DEMO_SAYS

.DEFAULT_GOAL := help
.PHONY: help install demo serve docs test test-all test-long test-stores test-ray check format chaos audit dist lock clean \
  bench-learning bench-speed bench-workers bench-jobs bench-sweep bench-tracking bench-lists bench-ray bench-serving \
  bench-pages bench-viewers bench-promotion bench-coverage bench-environments fuzz soak

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

install: $(VENV)/.installed ## virtual environment with everything that the platform needs

demo: ## train, evaluate, ask for an action; stays up (DEMO_EXIT=1: ends)
	@test -e $(VENV)/.installed || echo "$$DEMO_SAYS"
	@$(MAKE) -s $(VENV)/.installed
	@exec $(BIN)/python -m grpo_platform.demo

serve: $(VENV)/.installed ## API and MLflow UI
	@exec $(BIN)/python run_api.py

docs: $(VENV)/.installed-dev ## the documentation site into build/docs, warnings are errors
	$(BIN)/python scripts/build_docs.py

test: $(VENV)/.installed-dev ## what CI runs: all but the suites below, and of rotated tests the day's part (PART=1 to 14)
	$(PYTEST) -m "$(USUAL)" --part $(PART)

test-all: $(VENV)/.installed-dev ## the same with all rotated tests
	$(PYTEST) -m "$(USUAL)"

test-stores: $(VENV)/.installed-dev ## several servers on sqlite, PostgreSQL and a remote MLflow server
	$(PYTEST) tests/e2e/test_stores.py tests/e2e/test_sweeps_shared.py

test-long: $(VENV)/.installed-dev ## what waits for minutes
	$(PYTEST) -m long

test-ray: $(VENV)/.installed-dev ## jobs on a local Ray cluster, which loses nodes, head and driver (minutes)
	$(BIN)/python -m pytest -m ray tests/service

check: $(VENV)/.installed-dev ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev ## rewrite what `make check` would complain about
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

chaos: $(VENV)/.installed-dev ## 200 random faults over at least 30 jobs (about 20 minutes)
	$(BIN)/python -m benchmarks.chaos

bench-learning: $(VENV)/.installed-environments ## learning beside tuned PPO; goes on where it was interrupted (a day)
	$(BIN)/python -m benchmarks.learning --plot docs/images/learning.png
	$(BIN)/python -m benchmarks.learning_search
	$(BIN)/python -m benchmarks.learning_general --plot docs/images/learning_general.png

bench-speed: $(VENV)/.installed-dev ## training speed beside Stable-Baselines3's PPO
	$(BIN)/python -m benchmarks.training_speed

bench-workers: $(VENV)/.installed-dev ## members in processes beside one process and beside Gymnasium's
	$(BIN)/python -m benchmarks.env_workers

bench-jobs: $(VENV)/.installed-dev ## how soon a job trains, completes and stops
	$(BIN)/python -m benchmarks.job_latency

bench-sweep: $(VENV)/.installed-dev ## a sweep of 30 trials whose server is killed in the middle (minutes)
	$(BIN)/python -m benchmarks.sweep

bench-tracking: $(VENV)/.installed-dev ## what tracking costs a training
	$(BIN)/python -m benchmarks.tracking_overhead

bench-viewers: $(VENV)/.installed-dev ## what somebody who watches costs a training, and inference; needs wrk
	$(BIN)/python -m benchmarks.viewer_cost --keep

bench-lists: $(VENV)/.installed-dev ## lists of a large store beside a small one
	$(BIN)/python -m benchmarks.list_latency

bench-pages: $(VENV)/.installed-dev ## the pages in Chromium, on a store with 10,000 jobs (minutes)
	$(BIN)/python -m benchmarks.page_latency --keep

bench-ray: $(VENV)/.installed-dev ## 32 jobs on 1, 2 and 4 nodes of a local Ray cluster (minutes)
	$(BIN)/python -m benchmarks.ray_scaling

bench-promotion: $(VENV)/.installed-dev ## how often chance promotes, on many kinds of returns (minutes)
	$(BIN)/python -m benchmarks.promotion

bench-coverage: $(VENV)/.installed-dev ## how often the intervals hold the truth, for 3 to 30 seeds, beside other methods (minutes)
	$(BIN)/python -m benchmarks.coverage
	$(BIN)/python -m benchmarks.coverage_peers

bench-environments: $(VENV)/.installed-environments ## environments of many packages beside PPO; goes on as above (an hour)
	$(BIN)/python -m benchmarks.environments
	$(BIN)/python -m benchmarks.convolution_speed

bench-serving: $(VENV)/.installed-dev ## inference beside bare FastAPI and MLflow's scoring server; needs wrk
	@command -v wrk >/dev/null || { echo "wrk is needed: apt-get install wrk"; exit 1; }
	$(BIN)/python -m benchmarks.serving

fuzz: $(VENV)/.installed-dev ## 20,000 requests made from the OpenAPI schema (some minutes)
	$(BIN)/python -m benchmarks.fuzz

soak: $(VENV)/.installed-dev ## ten minutes at fifty clients while two jobs train
	$(BIN)/python -m benchmarks.soak

audit: $(VENV)/.installed-dev ## known vulnerabilities of the pinned packages
	grep -v '^-e' requirements.txt > $(VENV)/audit.txt
	$(BIN)/pip-audit --disable-pip --no-deps -r $(VENV)/audit.txt

dist: $(VENV)/.installed-dev ## wheel and source distribution, in dist/
	$(BIN)/python -m hatchling build

lock: ## resolve pyproject.toml anew into requirements*.txt and conda.yaml
	$(PYTHON) scripts/lock.py

clean: ## remove the virtual environment and caches; the store stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or say PYTHON=…"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is too old: 3.11 or newer is needed, say PYTHON=…"; exit 1; }
	@if command -v uv >/dev/null; then uv venv -q --seed --python $(PYTHON) $(VENV); else $(PYTHON) -m venv $(VENV); fi

$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	@$(BIN)/python scripts/install.py requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements.txt requirements-dev.txt pyproject.toml | $(BIN)/python
	@$(BIN)/python scripts/install.py requirements-dev.txt
	@$(BIN)/python -m venv --clear $(VENV)/generator
	@$(VENV)/generator/bin/python -m pip --disable-pip-version-check install -q $(GENERATOR)
	@touch $(VENV)/.installed $@

$(VENV)/.installed-environments: pyproject.toml $(VENV)/.installed-dev
	$(PIP) install -q -e '.[environments]'
	$(PIP) uninstall -q -y pygame # which some of them ask for: the same files as pygame-ce
	$(PIP) install -q --force-reinstall --no-deps $$(grep '^pygame-ce==' requirements.txt)
	@touch $@
