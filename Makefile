# Each target sets up all it needs in .venv (see tools/setup-venv.sh).
.PHONY: help setup setup-slicer demo test lint format bench clean

python := .venv/bin/python
# A process with one thread for each core: half the time of one process that uses them all.
pytest := OMP_NUM_THREADS=1 $(python) -m pytest -n auto --maxprocesses 8 --dist worksteal

help:
	@echo "make demo                 pre-train, fine-tune, segment and evaluate on synthetic heads"
	@echo "make demo COHORT=folder   the same on your own MRI"
	@echo "make test                 lint and the whole test suite (fetches Slicer's core, about 1 GB)"
	@echo "make lint | format | bench | setup | setup-slicer | clean"

setup:
	@tools/setup-venv.sh

setup-slicer:
	@tools/setup-venv.sh slicer

demo: setup
	$(python) -m emim demo --out demo --overwrite $(if $(COHORT),--cohort "$(COHORT)")

# Two runs: Qt's classes are patched for the whole of the second, and a crash of it spares the first.
test: lint setup-slicer
	$(pytest) Testing/core
	$(pytest) Testing/mrml Testing/gui Testing/package

lint: setup
	$(python) -m ruff check .
	$(python) -m ruff format --check .

format: setup
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

# Small and synthetic, some 40 minutes on two cores; each file's --help tells how to measure your own.
bench: setup
	set -e; for file in Testing/benchmarks/*.py; do echo; echo "== $$file"; $(python) "$$file"; done

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache Testing/output
	find emim EMIM* Testing -name __pycache__ -type d -prune -exec rm -rf {} +
