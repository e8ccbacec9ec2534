# Everything is done by tools/, with python3 alone; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv/bin
export ATELIER_HOME IMAGES LOCK_DIR PORT

.PHONY: help up env test lint lock bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1  /p' $(MAKEFILE_LIST)

up: env ## builds what is missing and starts the platform in the foreground (PORT=, ATELIER_HOME=, IMAGES=)
	@$(VENV)/atelier up

env: ## builds the environments only
	@$(PYTHON) -m tools.environments
