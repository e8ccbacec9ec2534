# Everything is done by tools/, which needs python3, git and make alone.
PYTHON ?= python3
VENV := .venv/bin
TIERS ?= unit contract integration chaos notebooks browser

.PHONY: help up env test chaos lint lock bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /make \1: /p' $(MAKEFILE_LIST)

up: env ## build what is missing and start the platform in the foreground (PORT=, ATELIER_HOME=, IMAGES=, PYTHON=, LOCK_DIR=)
	@exec $(VENV)/atelier up $(if $(PORT),--port $(PORT))

env: ## build the environments only
	@$(PYTHON) -m tools.environments

# The tests' environments and state lie in the checkout, never in the home of whoever runs them.
test chaos lint: export ATELIER_HOME := $(CURDIR)/.test-home
test chaos lint: export LOCK_DIR :=
test chaos: export IMAGES := pytorch tensorflow
test: env ## every check and every test, from nothing (TIERS="unit contract" takes some)
	@$(VENV)/python -m tools.verify test $(TIERS)

chaos: env ## kill every process at every step, each for itself, and write the table of docs/reliability.md
	@$(VENV)/python -m tools.verify chaos

lint: ## format, rules, types and import rules
	@test -x $(VENV)/uv || $(MAKE) --no-print-directory env
	@$(VENV)/python -m tools.verify lint

lock: ## remake all hashed locks, and prove that they install
	@$(VENV)/python -m tools.locks

bench: env ## measure beside peers, which come from a lock of their own (ROWS="queue stored printing")
	@$(VENV)/python -m tools.peers
	@$(VENV)/python -m tests.benchmarks $(ROWS)

clean: ## remove what was built in the checkout; ATELIER_HOME stays
	@chmod -R u+w .test-home 2>/dev/null; rm -rf .venv .test-home lab/dist lab/lib lab/node_modules
