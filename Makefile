# `make test` and `make demo` do all the set-up on a fresh machine: Python 3.11 or newer is all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check setup clean-demo

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

test: check
	$(BIN)/python -m pytest -n 2

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A model made here in about a minute, then Fast-Slow Training on two rules that only the verifier knows.
demo: $(READY) models/demo/config.json clean-demo
	$(BIN)/fastslow train configs/demo.yaml
	$(BIN)/fastslow evaluate runs/demo --split test --kl
	$(BIN)/fastslow evaluate runs/demo --split test --weights base --prompt seed
	$(BIN)/fastslow evaluate runs/demo --split test --weights base --prompt best
	$(BIN)/fastslow prompts runs/demo

models/demo/config.json: $(READY) examples/demo/make_model.py examples/demo/rules.py
	$(BIN)/python examples/demo/make_model.py models/demo

clean-demo:
	rm -rf runs/demo

# The peer of benchmarks/step_vs_trl.py, in an environment of its own.
.venv-trl/.ready: benchmarks/trl-requirements.txt
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip install --quiet --requirement benchmarks/trl-requirements.txt
	touch .venv-trl/.ready
