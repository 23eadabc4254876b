# The developer's commands. `make check` before every commit.
BIN ?= .venv/bin
FILESYSTEMS = local,memory,s3,gcs,azure

.PHONY: check fix test-all install clean

check: ## format, lint, types, layers, fast tests
	$(BIN)/pytest -n 2 -m "not slow"

fix: ## mend what the tools can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-all: ## everything, on all five filesystems
	$(BIN)/pytest -n 2 --filesystems=$(FILESYSTEMS)

install: ## what the other commands need
	python3 -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	npm install --silent --no-save --prefix . azurite@3.37

clean: ## away with everything that can be made again
	rm -rf .venv node_modules build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
