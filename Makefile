# `make test` and `make demo` do all the set-up on a fresh machine: Python 3.11 or newer is all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: check check-gpu demo docs golden lint mutants pytest setup test test-pythons test-tinker test-vllm types

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

# The types are checked beside the tests: the checker has one core, and the tests leave the other to it at their end.
test: lint
	$(MAKE) --no-print-directory --jobs 2 types pytest

check: lint types

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# A worker gets neighbours, which share what is made once for a file.
pytest: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The site of docs/, in build/site: no link of it leads nowhere, and it can be read without a network.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	$(BIN)/python tools/docs_site.py build/site

# The unit tests that need no torch, on the other Pythons that the package names; and that all code is code of the oldest.
test-pythons: $(READY)
	$(BIN)/vermin --quiet --no-tips --violations --target=3.11- --eval-annotations src
	tools/pythons.sh

# The remote engine against a real server: SkyRL on the CPU, in an environment of its own, on loopback only.
test-tinker: $(READY) .venv-skyrl/.ready
	FASTSLOW_SKYRL_PYTHON=$(CURDIR)/.venv-skyrl/bin/python $(BIN)/python -m pytest -n 0 -rs tests/tinker

.venv-skyrl/.ready: tests/tinker/skyrl/requirements.txt
	$(PYTHON) -m venv .venv-skyrl
	.venv-skyrl/bin/python -m pip install --quiet --no-compile --requirement tests/tinker/skyrl/requirements.txt
	touch .venv-skyrl/.ready

# vLLM as the local engine's sampler, on the CPU, in an environment of its own.
test-vllm: .venv-vllm/.ready
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -rs tests/vllm_sampler

# Three of the packages that vLLM brings do not fit its torch on a CPU, and break its import. Nothing here needs them.
.venv-vllm/.ready: tests/vllm_sampler/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --requirement tests/vllm_sampler/requirements.txt
	.venv-vllm/bin/python -m pip install --quiet --constraint tests/vllm_sampler/requirements.txt --editable .
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch .venv-vllm/.ready

# FST and RL alone side by side, on a task and with a model that come with the package.
demo: $(READY)
	rm -rf runs/demo
	$(BIN)/fastslow lab demo --output runs/demo

# What only a GPU can show, in less than nine minutes: contract, resume, speed. It takes the Python that is at hand.
check-gpu:
	$(PYTHON) benchmarks/check_gpu.py

# The peer of benchmarks/step_vs_trl.py, in an environment of its own.
.venv-trl/.ready: benchmarks/trl-requirements.txt
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip install --quiet --requirement benchmarks/trl-requirements.txt
	touch .venv-trl/.ready

# What the golden runs of tests/golden give now, after a change that is meant to change results.
golden: $(READY)
	$(BIN)/python tests/golden/record.py

# Which changes of a line the unit tests notice, module by module: benchmarks/results/mutants.md. Takes half an hour.
mutants: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,mutation]'
	$(BIN)/python tools/mutants.py --show
