# make demo:  train the networks on the embedded digits, attack them, print the tables.
# make test:  lint and the whole test suite.
# make lowest PYTHON=python3.10:  the test suite with the lowest versions that the
#             requirements allow; what those deprecate of their own is no error.
# make fuzz:  the readers of files against 10,000 mutated files per test; some minutes.
# make bench: training beside the published algorithm and backpropagation; some ten minutes.
# make study: every network over five seeds; writes the tables of README.md and docs/results.md.
# make robustness: attacks on each network itself, and the certificate, of the study's networks.
# make peers: other estimators, deep and wide networks, and what each choice buys.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lowest fuzz bench study robustness peers clean

demo: .venv/installed
	for script in LRS LRT LRSZ LRTZ BP; do \
		$(BIN)/python "Train&Test/$$script.py" || exit; \
	done
	$(BIN)/python "RobustnessTest/generate_adv.py"
	$(BIN)/python "RobustnessTest/noise_generate_adv.py"
	$(BIN)/python "RobustnessTest/testAdv.py"

bench: .venv/installed
	$(BIN)/python benchmarks/bench.py

study: .venv/installed-dev
	$(BIN)/python "Train&Test/study.py" --write-docs

robustness: .venv/installed-dev
	$(BIN)/python "RobustnessTest/whitebox.py" --write-docs
	$(BIN)/python "RobustnessTest/certify.py" --dataset mnist --write-docs

peers: .venv/installed-dev
	$(BIN)/python "Train&Test/peers.py" --write-docs
	$(BIN)/python "Train&Test/depth.py" --write-docs
	$(BIN)/python "Train&Test/compare.py" --write-docs

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lowest:
	$(PYTHON) -m venv .venv-lowest
	grep -h '>=' requirements.txt requirements-cluster.txt requirements-notebook.txt | \
		sed 's/>=/==/' > .venv-lowest/lowest.txt
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check \
		-c .venv-lowest/lowest.txt -r requirements-dev.txt
	PYTHONWARNINGS=ignore OPENBLAS_NUM_THREADS=1 \
		.venv-lowest/bin/python -m pytest -n 2 --dist loadfile -W default

fuzz: .venv/installed-dev
	GLR_FUZZ_CASES=10000 $(BIN)/python -m pytest -n 2 -k fuzzed

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt requirements-cluster.txt \
		requirements-jax.txt requirements-notebook.txt
	$(BIN)/pip install --quiet --disable-pip-version-check \
		-r requirements-dev.txt -r requirements-jax.txt
	touch $@

clean:
	rm -rf .venv .venv-lowest
