# Each target sets up what it needs: a virtual environment, the pinned packages, the MCP servers.
PYTHON ?= python3
BIN := .venv/bin
# The real model where an accelerator is found: NVIDIA's, or Apple's.
BASE ?= $(if $(shell nvidia-smi -L 2>/dev/null)$(filter Darwin-arm64,$(shell uname -sm | tr ' ' -)),smollm2,tiny)
# One worker more than cores: many tests wait for servers and other processes.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')
RUN ?= runs/$(if $(filter smollm2,$(BASE)),smollm2,demo)
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help demo demo-tiny demo-smollm2 model test check bench oracles setup servers clean
help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

demo: demo-$(BASE) ## real MCP servers to trained models and an ablation table; BASE=smollm2 for a real model
demo-tiny: setup servers
	$(BIN)/rise synth recipes/tiny/mcp.json -o $(RUN) --kinds paper --no-execute
	$(BIN)/rise ablate recipes/tiny/ablation.yaml --dataset $(RUN)/dataset --output $(RUN)
demo-smollm2: setup servers model
	$(BIN)/rise synth recipes/ablation/mcp.json -o $(RUN) --positives 1500 --no-execute
	$(BIN)/rise ablate recipes/smollm2-135m/ablation.yaml --dataset $(RUN)/dataset --output $(RUN)

model: runs/models/smollm2/config.json ## get SmolLM2-135M-Instruct, a small real model
runs/models/smollm2/config.json: | .venv/ready
	HF_HUB_OFFLINE=0 $(BIN)/rise model smollm2 -o runs/models/smollm2

test: setup servers ## all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

oracles: .oracles/ready ## scorers that others wrote, for `make test` to compare ours with
.oracles/ready: tests/eval/benchmarks/oracles.txt | .venv/ready
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .oracles
	$(BIN)/uv pip install --quiet --no-deps --python .oracles/bin/python -r $<
	touch $@

check: setup ## ruff and mypy strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup ## benchmarks: side by side, ratios printed
	set -e; for script in $(wildcard tests/bench/*.py); do $(BIN)/python $$script; done

setup: .venv/ready
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("rise-train needs Python 3.11 or newer, set PYTHON=...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt uv torch
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt --editable '.[dev,llm,embeddings]'
	touch $@

servers: .servers/mcp2/ready .servers/mcp1/ready
.servers/%/ready: recipes/tiny/servers-%.txt | .venv/ready
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .servers/$*
	$(BIN)/uv pip install --quiet --compile-bytecode --python .servers/$*/bin/python -r $<
	touch $@

clean: ## remove the environments and all runs
	rm -rf .venv .servers .oracles runs
