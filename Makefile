# make demo: install, then search, register and evaluate a learner on real glyph images (about 12 minutes on 2 cores).
# make test: install what the tests need and run them all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint

demo:
	@begin=$$(date +%s); $(MAKE) --no-print-directory $(VENV)/installed && installed=$$(date +%s) && \
	$(BIN)/mambacl sweep quickstart && \
	echo "installation $$((installed - begin)) s, all together $$(($$(date +%s) - begin)) s"

test: $(VENV)/installed-dev
	$(BIN)/pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev,bench]'
	touch $@ $(VENV)/installed
