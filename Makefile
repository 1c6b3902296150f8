# Each target sets up what it needs: Python 3.11+, make and git are enough on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEMO_OUT ?= runs/demo

.PHONY: help demo test lint audit bench setup clean
help:
	@echo "make demo   from product pictures and photos of rooms to the items of a room, named (about 5 minutes on 2 cores)"
	@echo "make test   the default tests"
	@echo "make lint   ruff, mypy, import-linter, audit of the dependencies"
	@echo "make bench  every figure the documentation quotes, into bench/results/"

setup: $(READY)

# uv comes from PyPI into an environment of its own, unless the machine has it
$(READY): requirements/dev.txt pyproject.toml
	@set -e; uv=$$(command -v uv || true); \
	if [ -z "$$uv" ]; then \
	  test -x .tools/bin/uv || { $(PYTHON) -m venv .tools && .tools/bin/python -m pip install -q --disable-pip-version-check uv; }; \
	  uv=.tools/bin/uv; \
	fi; \
	test -x $(BIN)/python || $$uv venv -q --python "$$(command -v $(PYTHON))" .venv; \
	$$uv pip install -q --compile-bytecode --python $(BIN)/python -r requirements/dev.txt; \
	$$uv pip install -q --compile-bytecode --python $(BIN)/python --no-deps -e .
	@touch $@

demo: $(READY)
	$(BIN)/univert demo --out $(DEMO_OUT)

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/audit.py

audit: $(READY)
	$(BIN)/python tools/audit.py --needed

BENCHES := startup embed recall losses sample proxies verticals combine grow clean_triplets engine search serving
bench: $(READY)
	@failed=; for name in $(BENCHES); do echo "== $$name"; $(BIN)/python bench/$$name.py || failed="$$failed $$name"; done; \
	echo "emoji need npm, glyphs fonts, the page a model and an index: see tools/build_emoji.py, bench/glyphs.py, bench/page.py"; test -z "$$failed" || { echo "not as wanted:$$failed"; exit 1; }

clean:
	rm -rf .venv .tools .work
