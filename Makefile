# make demo: the main job on synthetic cars.   make test: the tests.   Both make .venv first if need be.
PYTHON ?= python3
PIP = .venv/bin/python -m pip install --disable-pip-version-check --quiet

.PHONY: demo test test-people test-faults readme walk notebook lint

demo: .venv/runtime
	.venv/bin/python run.py --model attention_unet --loss bce_dice --preset demo

test: .venv/development
	.venv/bin/python run.py report --check
	.venv/bin/python -m pytest --ignore=tests/people -m "not slow" --numprocesses 2 --dist loadfile

test-people: .venv/development # what people do with a trained model, the notebook, and the page in Chromium (where there is one)
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/people --numprocesses 2 --dist loadfile

test-faults: .venv/development # the faults of docs/reliability.md, really injected, the slow ones too
	.venv/bin/python -m pytest -m "fault or slow" --numprocesses 2 --dist loadfile

readme: .venv/runtime # the rendered parts of the README (choices, demo, studies) and of docs/performance.md
	.venv/bin/python -m analysis.report.readme
	.venv/bin/python -m analysis.report.bench_tables

walk: .venv/runtime # types the README's walk and keeps what it prints, in a fresh clone after make demo, where nothing else runs
	.venv/bin/python reference/walk.py
	.venv/bin/python -m analysis.report.readme

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

.venv/development: requirements-dev.txt requirements-page.txt .venv/runtime
	$(PIP) -r requirements-dev.txt
	@touch $@
