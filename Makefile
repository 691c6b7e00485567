# Two commands for a newcomer: `make demo` and `make test`. Both make their own virtual environment
# from the lock files; python3, python3-venv and make are all that they need.
# Other interpreter: make PYTHON=/path/to/python3.12 ...   More arguments: make demo ARGS='--agents 100'
VENV := .venv
BIN := $(VENV)/bin
# Words that pass through to pytest or to the demo.
ARGS ?=
# One process of tests for each core, which take work from each other; ARGS='-n 0' for a debugger.
WORKERS := -n auto --dist worksteal
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo demo-postgres test test-quick tools generate release-contract clients wheel lock upgrade lint format faults bench bench-postgres bench-quick bench-advisories clean runtime-env dev-env

help: ## this list
	@echo "Fleetwright. What make can do:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: runtime-env ## the main job, end to end, on this machine (ARGS=... for its options)
	$(BIN)/python -m demo $(ARGS)

demo-postgres: dev-env ## the same on a real PostgreSQL from a wheel, started for it
	$(BIN)/python -m demo --postgres $(ARGS)

test: dev-env ## every test (ARGS=... for pytest's options)
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-long: dev-env ## the same with every case of what is tried in many, as long as it takes
	FLEETWRIGHT_TEST_LONG=1 $(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-quick: dev-env ## the tests that take no more than a few seconds each
	$(BIN)/python -m pytest $(WORKERS) -m "not slow" $(ARGS)

generate: dev-env ## the Python stubs of the contracts, again
	PYTHON=$(BIN)/python scripts/generate

release-contract: dev-env ## the contract of this version, as what later ones must keep (proto/released)
	$(BIN)/python scripts/contract.py release

clients: dev-env ## the clients in TypeScript and Go, where npm or go is installed (ARGS=typescript)
	scripts/clients $(ARGS)

wheel: runtime-env ## the wheels of the client library and of the control plane, in dist/
	PYTHON=$(BIN)/python scripts/wheels

tools: ## grpcurl into .cache/tools/bin, built with Go
	@scripts/tools

lock: dev-env ## requirements/*.txt from requirements/*.in; pins that stand are kept
	scripts/lock

upgrade: dev-env ## requirements/*.txt with the newest releases that requirements/*.in allow
	scripts/lock --upgrade

lint: dev-env ## formatting, lint, types, import contracts and the contracts' lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config .importlinter --cache-dir .cache/import-linter
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/python scripts/contract.py check

format: dev-env ## formats Python and the contracts, and mends what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format --write proto

faults: dev-env ## breaks the real product and counts what that lost and doubled (ARGS='--only NAME', --quick, --list)
	$(BIN)/python -m faults $(ARGS)

bench: dev-env ## the server beside a yardstick, in some eleven minutes; renders the results into the documents
	$(BIN)/python -m bench --write $(ARGS)

bench-postgres: dev-env ## the same on a real PostgreSQL, started for it; ARGS='--gateways 2' for several processes
	$(BIN)/python -m bench --postgres --write $(ARGS)

bench-quick: dev-env ## the same in small sizes, for its shape: claims nothing (ARGS='--only NAME' for one budget)
	$(BIN)/python -m bench --quick $(ARGS)

bench-advisories: dev-env ## an import of advisories, and a scan beside a bare lookup (ARGS=FOLDER of OSV exports; else made up)
	$(BIN)/python -m bench.advisories $(ARGS)

clean: ## takes away the environment, caches and build products
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info \
		clients/*/gen clients/*/dist clients/*/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

runtime-env:
	@scripts/environment runtime $(VENV)

dev-env:
	@scripts/environment dev $(VENV)
