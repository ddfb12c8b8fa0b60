# Everything rests on `make setup`, which does nothing when .venv is up to date.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
UP_TO_DATE := .venv/up-to-date

.PHONY: setup quickstart check format test test-all bench drill

setup: $(UP_TO_DATE)

$(UP_TO_DATE): pyproject.toml constraints.txt
	@echo "installing into .venv (torch is large: several minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: setup
	$(BIN)/fmnist search run --preset quickstart

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layering.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: setup
	$(BIN)/python -m pytest -m ""

bench: setup
	$(BIN)/python -m benchmarks.no_work_trials
	$(BIN)/python -m benchmarks.images_per_second
	$(BIN)/python -m benchmarks.peer_trials
	$(BIN)/python -m benchmarks.frozen_prefix
	$(BIN)/python -m benchmarks.many_trials
	$(BIN)/python -m benchmarks.many_trials_on_ray
	$(BIN)/python -m benchmarks.list_trials
	$(BIN)/python -m benchmarks.performance

drill: setup
	$(BIN)/python -m benchmarks.drill
