# Every target installs what it needs into .venv first. PYTHON: the interpreter to build it with (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
MODEL ?= out/random
# Most of the suite's time is compiling, so its programs are compiled quickly rather than well; the other targets test
# and measure them as users have them.
QUICKLY := --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true

.PHONY: run test test-slow test-full-size lint parity bench clean

run: .venv/run  ## a random checkpoint reads, looks, listens, watches and speaks; see out/
	$(BIN)/python -m tools.demo --out out

test: .venv/test  ## lint and the whole suite but what is marked slow
	$(BIN)/ruff check .
	XLA_FLAGS="$(QUICKLY)" $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: .venv/test  ## what takes minutes and much disk
	$(BIN)/python -m pytest -m "slow and not full_size"

test-full-size: .venv/test  ## the released sizes, random weights: 46 GB of disk (OMNI_FULL_SIZE_DIR), 16 GB of memory
	$(BIN)/python -m pytest -s -m full_size tests/full_size

lint: .venv/test
	$(BIN)/ruff check .

parity: .venv/test $(MODEL)  ## MODEL=directory against the PyTorch reference
	$(BIN)/python -m tools.parity $(MODEL)

bench: .venv/test  ## beside the PyTorch reference, in one run
	$(BIN)/python -m tools.benchmark

# Only made: a newer .venv/run is no reason to make it again, and nothing is written over.
out/random: | .venv/run
	mkdir -p out
	$(BIN)/python -m tools.random_checkpoint configs/tiny.json out/random

.venv/run: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

# torch first and by itself: its release for CPUs, not one that another package's range would pull in.
.venv/test: .venv/run requirements-test.txt
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' requirements-test.txt)"
	$(BIN)/python -m pip install --quiet --requirement requirements-test.txt
	touch $@

clean:
	rm -rf .venv out
