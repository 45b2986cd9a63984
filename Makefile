# make demo:  train the networks on the embedded digits, test their robustness, print the tables.
# make test:  lint and the whole test suite.
# make fuzz:  the readers of files against 3,000 mutated files per test; some minutes.
# make bench: a training step side by side with the published one, backpropagation and a floor.
# make study: every network over five seeds; writes the tables of README.md and docs/results.md.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test fuzz bench study clean

demo: .venv/installed
	$(BIN)/python "Train&Test/demo.py"

bench: .venv/installed
	$(BIN)/python benchmarks/bench.py

study: .venv/installed
	$(BIN)/python "Train&Test/study.py"

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

fuzz: .venv/installed-dev
	GLR_FUZZ_CASES=3000 $(BIN)/python -m pytest -n 2 -k fuzzed

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv
