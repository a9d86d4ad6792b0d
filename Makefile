# Two commands on a fresh machine: `make demo` and `make test`. Each sets everything up in .venv when it is first called.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
OUT    ?= runs/demo
WORKERS ?= -n 2
NATIVE := $(wildcard csrc/*.cpp csrc/*/*.cpp csrc/*/*.h csrc/*.h csrc/cuda/*.cu csrc/cuda/*.cuh)

.PHONY: demo demo-oracle test test-slow test-peers real real-oldest lint fix docs models processes changelog audit cuda-check bench proof rounds setup clean

$(READY): pyproject.toml setup.py constraints.txt $(NATIVE)
	@echo "setting up $(VENV) (once; a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,report]'
	@touch $@

setup: $(READY)

demo: $(READY)
	@$(BIN)/hookline run examples/keyword-phrases.yaml --out $(OUT)

# The same job with PPO on the gold reward itself: what a perfect reward model could reach. Takes as long as the demo.
demo-oracle: $(READY)
	@$(BIN)/hookline run examples/keyword-phrases.yaml --out $(OUT)-oracle 'phases.rl.reward={use: keyword-sentence, name: gold}'
	@$(BIN)/hookline compare reward-model=$(OUT) oracle=$(OUT)-oracle

# make test ROOM=data   the tests of one room and of the rooms that import it; WORKERS= runs them in one process
test: $(READY)
	@files=$$($(if $(ROOM),$(BIN)/python tests/rooms.py $(ROOM))) && \
	$(BIN)/python -m pytest $(WORKERS) -m 'not slow and not gpu' $$files $(ARGS)

# make test-slow SHARD=3/8   one part of eight
test-slow: $(READY)
	@$(BIN)/python -m pytest $(WORKERS) -m 'slow and not gpu' --hypothesis-profile thorough $(if $(SHARD),--shard $(SHARD)) $(ARGS)

lint: $(READY)
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

fix: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(READY)
	@$(BIN)/python docs/make_api.py

# tests/peers/trl*.json: TRL's losses on a folder and rows of ours, from an environment of its own; `make test` compares ours with them.
test-peers: $(READY)
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/pip install -q torch==2.13.0 transformers==5.23.0 trl==1.16.0
	@mkdir -p build/peers && HF_HUB_OFFLINE=1 .venv-peers/bin/python tests/peers/trl_losses.py build/peers tests/peers/trl.json
	@HF_HUB_OFFLINE=1 .venv-peers/bin/python tests/peers/trl_policy.py build/peers tests/peers/trl_policy.json
	@$(BIN)/python -m pytest tests/peers

# Six shapes of model folders × the ten experiments of examples/real, run in full, exported, read back and asked. About ten minutes.
real: $(READY)
	@PYTHONPATH=tests nice $(BIN)/python tests/real/full.py build/real $(ARGS)
	@PYTHONPATH=tests nice $(BIN)/python tests/real/full_files.py build/real

# docs/chat.md: exports read by the oldest transformers that we support, from an environment of its own, and by the newest.
OLDEST ?= 5.3.0
real-oldest: $(READY)
	@test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	@.venv-oldest/bin/pip install -q torch==2.13.0 transformers==$(OLDEST)
	@PYTHONPATH=tests nice $(BIN)/python tests/real/full.py build/real sft reward-model
	@HF_HUB_OFFLINE=1 $(BIN)/python tests/real/readback.py read build/real/exports build/real/newest
	@HF_HUB_OFFLINE=1 .venv-oldest/bin/python tests/real/readback.py read build/real/exports build/real/oldest
	@$(BIN)/python tests/real/readback.py compare build/real/newest build/real/oldest docs/chat.md

# docs/models.md: every causal model type of transformers, compared with its own forward pass. About ten minutes.
models: $(READY)
	@nice $(BIN)/python docs/make_models.py $(ARGS)

# docs/processes.md: the steps of components on two processes, compared with those on one. About a minute.
processes: $(READY)
	@nice $(BIN)/python docs/make_processes.py $(ARGS)

# make changelog VERSION=0.2.0; without VERSION it prints what would be written
changelog: $(READY)
	@$(BIN)/towncrier build $(if $(VERSION),--yes --version $(VERSION),--draft --version next)

# Known vulnerabilities of the pinned dependencies. Asks pypi.org, and fails where it cannot look one up.
audit:
	@test -x build/audit/bin/pip-audit || ($(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit)
	@build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

cuda-check:
	@$(PYTHON) tests/kernels/cuda_check.py

bench: $(READY)
	@$(BIN)/python -m pytest benchmarks -p no:cacheprovider -o python_files='bench_*.py' -o python_functions='bench_*' $(ARGS)

proof: $(READY)
	@$(BIN)/python benchmarks/proof/proof.py $(ARGS)

# docs/rounds.md: people in the loop over three rounds, with a page, annotators, a browser and kills. About half an hour on two idle cores.
rounds: $(READY)
	@nice $(BIN)/python benchmarks/rounds/rounds.py $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info
