# What people run is what CI runs: these recipes and nothing else.
#   make demo    from nothing to a routed answer     make lint    format, lint, types, import rule
#   make test    everything, the built wheel too     make bench NAME=x   one bench

PYTHON    ?= python3
DEMO_ARGS ?=
BENCH_ARGS ?=
PIP       := -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt
VENV      := .venv
WHEEL_VENV := .venv-wheel
BIN       := $(VENV)/bin
# The numbers must hold on older processors too: once without AVX-512 and AMX.
MASKED     := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
# What the suite needs besides the wheel and its own dependencies.
TEST_TOOLS := anthropic hypothesis openai psutil pytest pytest-randomly pytest-xdist
# A file of tests stays in one process; there are as many as cores.
PYTEST     := -m pytest -q -n logical --dist loadfile
PINS      := pyproject.toml constraints.txt

# The public data that some tests read lie beside the project, where there are any.
ifneq ($(wildcard ../shared/data),)
export OWN_TEST_DATA ?= $(abspath ../shared/data)
endif

.PHONY: demo test lint bench wheel-test clean

demo: $(VENV)/.demo-ready
	@$(BIN)/own demo $(DEMO_ARGS)

lint: $(VENV)/.dev-ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

test: lint
	$(BIN)/python $(PYTEST)
	$(BIN)/python $(PYTEST) -m oracle
	$(MASKED) $(BIN)/python $(PYTEST) tests/model tests/weights tests/student tests/engine
	$(MAKE) --no-print-directory wheel-test

# The suite again, from the wheel in a clean environment: run where the tree cannot be imported.
wheel-test: $(VENV)/.dev-ready $(WHEEL_VENV)/bin/python
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m build --quiet --wheel --outdir build/wheel .
	$(WHEEL_VENV)/bin/python $(PIP) "$$(ls build/wheel/*.whl)[train,otel,postgres,objects,gguf]" $(TEST_TOOLS)
	$(WHEEL_VENV)/bin/python $(PIP) --no-deps --force-reinstall build/wheel/*.whl
	cp -R tests bench pyproject.toml build/wheel
	cd build/wheel && ../../$(WHEEL_VENV)/bin/python -c \
	  'import ownweights; assert "site-packages" in ownweights.__file__, ownweights.__file__'
	cd build/wheel && ../../$(WHEEL_VENV)/bin/python $(PYTEST) --ignore=tests/meta

bench: $(VENV)/.dev-ready
	@test -n "$(NAME)" || { echo "say which one: make bench NAME=start" >&2; exit 2; }
	@$(BIN)/python -m bench.run $(NAME) $(BENCH_ARGS)

clean:
	rm -rf build dist .pytest_cache .ruff_cache

# Environments; the stamps make repeated calls quick.

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-ready: $(PINS) | $(BIN)/python
	@echo "setting up $(VENV) (once)" >&2
	@$(BIN)/python $(PIP) -e '.[demo]' >&2
	@touch $@

$(VENV)/.dev-ready: $(PINS) | $(BIN)/python
	$(BIN)/python $(PIP) -e '.[train,postgres,objects,dev,oracle]'
	@touch $(VENV)/.demo-ready $@

$(WHEEL_VENV)/bin/python:
	$(PYTHON) -m venv $(WHEEL_VENV)
