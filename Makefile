# Every target installs what it needs into .venv first. PYTHON: the interpreter to build it with (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
MODEL ?= out/random
# Most of the suite's time is compiling, so its programs are compiled quickly rather than well; the other targets test
# and measure them as users have them.
QUICKLY := --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true

.PHONY: run test test-slow test-full-size lint parity bench train-smoke clean

run: .venv/run  ## a random checkpoint reads, looks, listens, watches and speaks; see out/
	$(BIN)/python -m tools.demo --out out

test: .venv/test  ## lint and the whole suite but what is marked slow
	$(BIN)/ruff check .
	XLA_FLAGS="$(QUICKLY)" $(BIN)/python -m pytest -n 2 --dist loadfile --timeout 600 -m "not slow"

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

STAGES := language adapters encoders all long tuning lora
train-smoke: .venv/run $(STAGES:%=out/smoke/%_model)  ## every stage in small, one after the other; see out/smoke/*/curves.png

# A stage starts from the model that the one before it left (see configs/stages.py); what has been made is kept.
out/smoke/%_model: | out/smoke/data out/smoke/model
	$(BIN)/python -m tools.train configs/$*_smoke.py --workdir out/smoke/$*
	$(BIN)/python -m tools.export out/smoke/$* $@

out/smoke/adapters_model: | out/smoke/language_model
out/smoke/encoders_model: | out/smoke/adapters_model
out/smoke/all_model: | out/smoke/encoders_model
out/smoke/long_model: | out/smoke/all_model
out/smoke/tuning_model out/smoke/lora_model: | out/smoke/long_model

out/smoke/data: | .venv/run
	mkdir -p out/smoke
	$(BIN)/python -m tools.smoke_data out/smoke/data --train 2000 --held-out 240

out/smoke/model: | .venv/run
	mkdir -p out/smoke
	$(BIN)/python -m tools.random_checkpoint configs/smoke.json out/smoke/model --gain 0.8 --dtype float32

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
