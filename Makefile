# Each target sets up all it needs in .venv (see tools/setup-venv.sh).
.PHONY: help setup demo test lint format bench clean

python := .venv/bin/python

help:
	@echo "make demo                 pre-train, fine-tune, segment and evaluate on synthetic heads"
	@echo "make demo COHORT=folder   the same on your own MRI"
	@echo "make test                 lint and the whole test suite"
	@echo "make lint | format | bench | setup | clean"

setup:
	@tools/setup-venv.sh

demo: setup
	$(python) -m emim demo --out demo --overwrite $(if $(COHORT),--cohort "$(COHORT)")

test: lint
	$(python) -m pytest

lint: setup
	$(python) -m ruff check .
	$(python) -m ruff format --check .

format: setup
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

bench: setup
	@ls Testing/benchmarks/*.py >/dev/null 2>&1 || { echo "Testing/benchmarks has no benchmark yet." >&2; exit 1; }
	for file in Testing/benchmarks/*.py; do $(python) "$$file" || exit 1; done

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	find emim Testing -name __pycache__ -type d -prune -exec rm -rf {} +
