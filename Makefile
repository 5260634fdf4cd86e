# make demo: install, then search, register and evaluate a learner on real glyph images (about five minutes on 2 cores).
# make test: install what the tests need and run them, but for those that take minutes each; two files at a time,
#   except those that kill parts of a cluster and time what the rest does.
# make test-cluster: kill and starve what runs on a cluster of this machine, in all ways, and print what was lost;
#   two files at a time, since most of it is waiting.
# make audit: compare what is installed with known vulnerabilities.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-cluster lint audit

demo:
	@begin=$$(date +%s); $(MAKE) --no-print-directory $(VENV)/installed && installed=$$(date +%s) && \
	$(BIN)/mambacl sweep quickstart && \
	echo "installation $$((installed - begin)) s, all together $$(($$(date +%s) - begin)) s"

test: $(VENV)/installed-dev
	$(BIN)/pytest --ignore tests/cluster -m 'not long' --numprocesses 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/pytest tests/cluster -m 'not long'

test-cluster: $(VENV)/installed-dev
	$(BIN)/pytest tests/cluster -m 'fault and not brief' --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

audit: $(VENV)/installed
	$(BIN)/pip install --quiet pip-audit
	$(BIN)/pip freeze --exclude-editable > $(VENV)/audited.txt
	$(BIN)/pip-audit --requirement $(VENV)/audited.txt --no-deps --disable-pip --vulnerability-service osv

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev,bench]'
	touch $@ $(VENV)/installed
