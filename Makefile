.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
export UV_PROJECT_ENVIRONMENT := $(VENV)
export PYTHONPATH := tests

.PHONY: help install build demo lint test test-rust test-python wheel-test bench soak servers format clean

help: ## Shows the recipes
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml Makefile
	test -x $(BIN)/uv || (python3 -m venv $(VENV) && $(BIN)/pip install --quiet --disable-pip-version-check uv)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group dev "pydantic>=2.11,<3" "rich>=14" "stamina>=25.1" "typer>=0.20"
	touch $@

install: $(VENV)/.installed ## Makes the virtual environment

build: install ## Builds the extension in release mode into the environment
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --quiet --skip-install-deps 2>/dev/null || VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --quiet
