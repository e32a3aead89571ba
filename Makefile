# make demo: the main job on synthetic cars.   make test: what every change needs.   make test-all: the rest.
# All of them create .venv first if necessary.
PYTHON ?= python3
PIP = .venv/bin/python -m pip install --disable-pip-version-check --quiet
# Two processes with one thread each: small images need no more, and more would wait for each other.
# Versions with hashes for every platform. PyTorch's are capped: torch and torchvision must come as a matching pair.
LOCK = --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate --custom-compile-command 'make lock'
PYTEST = OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses 2 --dist loadfile

.PHONY: demo test test-all test-people test-faults simulate fuzz readme walk notebook lint lock

demo: .venv/runtime
	.venv/bin/python run.py --model attention_unet --loss bce_dice --preset demo

test: .venv/development # contracts, numbers, a real run, the README's commands: four minutes on two cores
	$(PYTEST) --ignore=tests/people -m "not slow"

test-all: .venv/development .venv-page/complete # what make test leaves out: slow tests, faults, Ray, what users do
	$(PYTEST) -m slow
	OMP_NUM_THREADS=1 .venv-page/bin/python -m pytest tests/people/test_page.py

test-people: .venv/development .venv-page/complete # what users do with a trained model, the notebook, the demo page (in Chromium, if installed)
	$(PYTEST) tests/people
	OMP_NUM_THREADS=1 .venv-page/bin/python -m pytest tests/people/test_page.py

test-faults: .venv/development # every fault of docs/en/reliability.md, injected
	$(PYTEST) -m fault

simulate: .venv/development # the long forms of all simulations, kept in docs/simulations: about an hour
	.venv/bin/python -m analysis.statistics.simulate
	.venv/bin/python -m analysis.verdicts.ledger_simulation
	.venv/bin/python -m analysis.report.docs_tables --write

fuzz: .venv/development # the property-based tests with twenty times the examples: about ten minutes
	FUZZ=20 $(PYTEST) -m hypothesis

readme: .venv/runtime # renders the generated parts of the READMEs and of docs/
	.venv/bin/python -m analysis.report.pages
	.venv/bin/python -m analysis.report.docs_tables --write

walk: .venv/runtime # runs the walkthrough of docs/en and records its output; after make demo in a fresh clone, on an idle machine
	.venv/bin/python reference/walk.py
	.venv/bin/python -m analysis.report.pages

notebook: .venv/development # runs reference/lesson.py and writes the notebooks in both languages
	.venv/bin/python -m reference.build_notebooks

lint: .venv/development
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy .

.venv/runtime: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		(echo "Python 3.11 or later is needed: type make PYTHON=python3.12, say, with the one you have." >&2; exit 2)
	@test -d .venv || $(PYTHON) -m venv .venv
	@echo "Installing the packages of requirements.lock into .venv (some minutes, several GB with PyTorch) ..."
	$(PIP) --require-hashes -r requirements.lock
	@touch $@

.venv/development: requirements-dev.lock .venv/runtime
	$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

# The page's library needs an older Pillow, so it has an environment of its own, which sees the packages of .venv.
.venv-page/complete: requirements-page.txt .venv/development
	@test -d .venv-page || $(PYTHON) -m venv .venv-page
	@.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$(.venv-page/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth"
	@echo "Installing the packages of requirements-page.txt into .venv-page (some minutes) ..."
	.venv-page/bin/python -m pip install --disable-pip-version-check --quiet -r requirements-page.txt
	@touch $@

lock: # writes both lock files; needs uv (pip install uv)
	uv pip compile --quiet $(LOCK) requirements.txt --output-file requirements.lock
	uv pip compile --quiet $(LOCK) --constraint requirements.lock requirements-dev.txt requirements-ray.txt \
		--output-file requirements-dev.lock
