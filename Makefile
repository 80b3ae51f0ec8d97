# Recipes for people, CI and pre-commit. Needs Python 3.11+, Rust, Java 17+, Maven, Go 1.26+; `make install` brings the rest.
.DEFAULT_GOAL := help
.PHONY: help install build demo lint format test test-rust test-python test-wheel bench soak servers clean

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PATH := $(BIN):$(PATH)
export PYTHONPATH := tests
unexport PYTHONDONTWRITEBYTECODE # compiling everything again is half of what a short command costs

help: ## Show the recipes
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/uv || (python3 -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv)
	uv pip install --quiet --python $(BIN)/python --group dev
	touch $@

install: $(VENV)/.installed ## Make the virtual environment

build: install ## Build the extension in release mode
	maturin develop --release --uv --quiet
	uv pip install --quiet --python $(BIN)/python --editable operator

demo: build ## Move the demo store, killed once half-way, resumed and proven
	python examples/demo.py

lint: build ## Formatting, lints, types, stubs, layers, licences
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --locked --quiet -- -D warnings # as built: macros are there already
	ruff format --check --quiet .
	ruff check --quiet .
	mypy python/memferry operator/memferry_operator tests examples benchmarks
	python -m mypy.stubtest memferry._native --allowlist .stubtest-allowlist
	lint-imports
	$(MAKE) --no-print-directory deny

.PHONY: deny
deny: ## Licences, sources and bans of the Rust dependencies
	command -v cargo-deny >/dev/null || cargo install --quiet --locked --debug cargo-deny
	cargo deny --log-level error check bans licenses sources

format: install ## Format everything
	cargo fmt --all
	ruff format .
	ruff check --fix .

test: lint test-rust servers-install test-python test-node test-wheel ## Everything that CI runs

test-rust: install
	cargo test -p memferry-core --release --locked --quiet

# Tests of one kind of server share a process, which tests/conftest.py says; the others fill the cores while those wait.
IN_PARALLEL := -n 4 --dist loadgroup

.PHONY: servers-install
servers-install: install
	python -m testbed install

test-python: build
	pytest $(IN_PARALLEL)

.PHONY: test-engine
test-engine: build servers-install ## Tests of the package alone, without operator, binding, chart and GitOps
	pytest $(IN_PARALLEL) $(addprefix --ignore=tests/,operator binding chart gitops node)

.PHONY: test-node
test-node: build servers-install ## A whole life on a real Kubernetes node; as root
	pytest -m node_life

.PHONY: test-cluster
test-cluster: build servers-install ## Everything that needs a real Kubernetes node, as root, or minutes
	pytest -n 2 --dist worksteal -m slow_cluster
	pytest -m node_tier

test-wheel: install ## The built wheel in a clean environment
	rm -rf build/wheel && mkdir -p build/wheel
	maturin build --release --locked --quiet --out build/wheel
	uv venv --quiet --clear build/wheel/venv
	uv pip install --quiet --python build/wheel/venv/bin/python build/wheel/*.whl
	cd build/wheel && PYTHONPATH= venv/bin/memferry backends && PYTHONPATH= venv/bin/python $(CURDIR)/examples/demo.py > demo.log

IMAGE_PYTHON ?= 3.11

.PHONY: image-wheels
image-wheels: install ## The build context of the Dockerfile: wheels of everything, for IMAGE_PYTHON
	mkdir -p build/image/wheels && rm -f build/image/wheels/memferry*.whl
	maturin build --release --locked --quiet --out build/image/wheels
	uv build --quiet --wheel --out-dir build/image/wheels operator
	python -m pip download --quiet --disable-pip-version-check --dest build/image/wheels --only-binary :all: \
		--python-version $(IMAGE_PYTHON) "$$(ls $(CURDIR)/build/image/wheels/memferry-*.whl)[kubernetes,neo4j]" \
		"$$(ls $(CURDIR)/build/image/wheels/memferry_operator-*.whl)"
	cp Dockerfile examples/application_in_cluster.py build/image/

bench: build ## Benchmarks, ratios in one run
	python benchmarks/run.py

soak: build servers-install ## A thousand crashes over every pair; fuzzing for ten minutes
	MEMFERRY_CRASH_RUNS=$${MEMFERRY_CRASH_RUNS:-1000} MEMFERRY_FUZZ_SECS=$${MEMFERRY_FUZZ_SECS:-600} \
		pytest --timeout 7200 $(IN_PARALLEL) tests/crash tests/faults/test_rival.py tests/fuzz

servers: build servers-install ## Start real servers on loopback until Ctrl-C
	python -m testbed servers

clean: ## Remove what the recipes made
	rm -rf $(VENV) target build
