# Everything happens in .venv; nothing is installed by hand and nothing outside this folder is changed.
PYTHON ?= python3
BIN = .venv/bin
RUN = env -u PYTHONDONTWRITEBYTECODE PYTHONSAFEPATH=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# tests/ and benchmarks/ are not installed, so their programs are told where they are.
HERE = $(RUN) PYTHONPATH=$(CURDIR) $(BIN)/python -m

.PHONY: install demo down test check lint bench fault-matrix docs pictures clean

install: .venv/installed

# As constraints too: else pip takes what is asked for with extras, such as a[b]>=1, from the newest release first, which
# has no hash here.
.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("failover needs Python 3.11 or newer; this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(RUN) $(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock -c requirements.lock
	$(RUN) $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	$(RUN) $(BIN)/python -m compileall -q -j 0 tasks runbooks flows deployments .venv/lib >/dev/null || true
	touch $@

demo: install  ## a real failover in the lab; YES=1 answers the gate, KEEP=1 leaves lab and Prefect UI running
	@$(RUN) $(BIN)/failover demo $(if $(YES),--yes) $(if $(KEEP),--keep) $(if $(HOW),--how $(HOW))

down: install  ## stop what KEEP=1 left running
	@$(RUN) $(BIN)/failover lab down

test: install  ## the whole suite
	$(RUN) $(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## everything that CI asks

bench: install  ## writes benchmarks/RESULTS.md; about an hour; fails when a promise was broken
	$(HERE) benchmarks.run

MATRIX = build/rounds
MEASURE = $(HERE) tests.failover

fault-matrix: install  ## writes docs/fault-matrix.md: rounds of faults, kills of the runner, delays by others; half an hour
	rm -rf $(MATRIX) && mkdir -p $(MATRIX)
	$(MEASURE).rounds --lab 92 --rounds 26 --seed 1 --out $(MATRIX)/asynchronous.jsonl
	$(MEASURE).rounds --lab 92 --rounds 26 --seed 2 --sync --out $(MATRIX)/synchronous.jsonl
	$(MEASURE).rounds --lab 92 --rounds 26 --seed 3 --supervise --out $(MATRIX)/supervised.jsonl
	$(MEASURE).rounds --lab 92 --rounds 15 --seed 4 --of self-fence --out $(MATRIX)/self-fence.jsonl
	$(MEASURE).rounds --lab 92 --rounds 15 --seed 5 --of isolate-path --out $(MATRIX)/isolate-path.jsonl
	$(MEASURE).rounds --lab 92 --rounds 9 --seed 9 --of sync-quorum --out $(MATRIX)/sync-quorum.jsonl
	$(MEASURE).rounds --lab 92 --rounds 4 --seed 7 --of no-lease --out $(MATRIX)/no-lease.jsonl
	$(MEASURE).rounds --lab 92 --rounds 4 --seed 8 --of no-way --out $(MATRIX)/no-way.jsonl
	$(MEASURE).kills --lab 92 --rounds 20 --seed 6 --out $(MATRIX)/kills.jsonl
	$(MEASURE).delays --out $(MATRIX)/delays.jsonl
	$(MEASURE).matrix $(MATRIX)/*.jsonl > docs/fault-matrix.md

docs: install  ## make the generated pages again
	$(RUN) $(BIN)/python -m runbooks.schema
	$(RUN) $(BIN)/python -m flows.action_reference > docs/actions.md
	$(RUN) $(BIN)/python -m flows.report_schema

pictures: install  ## photographs the pages for docs/; needs Chromium
	$(RUN) FAILOVER_PICTURES=docs/pictures $(BIN)/python -m pytest -q tests/browser tests/prefect/test_page.py

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
