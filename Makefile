# make demo: the main job on synthetic cars.   make test: what every change needs.   make test-all: the rest.
# All of them create .venv first if necessary.
PYTHON ?= python3
PIP = .venv/bin/python -m pip install --disable-pip-version-check --quiet
# Two processes with one thread each: small images need no more, and more would wait for each other.
PYTEST = OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses 2 --dist loadfile

.PHONY: demo test test-all test-people test-faults simulate fuzz readme walk notebook lint

demo: .venv/runtime
	.venv/bin/python run.py --model attention_unet --loss bce_dice --preset demo

test: .venv/development # contracts, numbers, a real run, the README's commands: four minutes on two cores
	$(PYTEST) --ignore=tests/people -m "not slow"

test-all: .venv/complete # every test that make test leaves out: slow ones, all injected faults, Ray, what users do
	$(PYTEST) -m slow

test-people: .venv/complete # what users do with a trained model, the notebook, the demo page (in Chromium, if installed)
	$(PYTEST) tests/people

test-faults: .venv/complete # every fault of docs/reliability.md, injected
	$(PYTEST) -m fault

simulate: .venv/development # the long forms of all simulations, kept in docs/simulations: about an hour
	$(PYTHON) -m analysis.statistics.simulate
	$(PYTHON) -m analysis.verdicts.ledger_simulation
	$(PYTHON) -m analysis.report.simulation_tables --write

fuzz: .venv/development # the property-based tests with twenty times the examples: about ten minutes
	FUZZ=20 $(PYTEST) -m hypothesis

readme: .venv/runtime # renders the generated parts of the README (choices, demo, studies) and of docs/performance.md
	.venv/bin/python -m analysis.report.pages
	.venv/bin/python -m analysis.report.bench_tables

walk: .venv/runtime # runs the README's walkthrough and records its output; after make demo in a fresh clone, on an idle machine
	.venv/bin/python reference/walk.py
	.venv/bin/python -m analysis.report.pages

notebook: .venv/development # runs reference/u-net-pytorch.ipynb and writes its outputs
	.venv/bin/python reference/execute.py

lint: .venv/development
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy .

.venv/runtime: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		(echo "Python 3.11 or later is needed: type make PYTHON=python3.12, say, with the one you have." >&2; exit 2)
	@test -d .venv || $(PYTHON) -m venv .venv
	@echo "Installing the packages of requirements.txt into .venv (some minutes, several GB with PyTorch) ..."
	$(PIP) -r requirements.txt
	@touch $@

.venv/development: requirements-dev.txt .venv/runtime
	$(PIP) -r requirements-dev.txt
	@touch $@

.venv/complete: requirements-page.txt requirements-ray.txt .venv/development
	$(PIP) -r requirements-dev.txt -r requirements-page.txt -r requirements-ray.txt
	@touch $@
