# One command per task. Everything is installed into .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check bench fuzz format clean lock

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Roost needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Roost and its development tools into $(VENV) (a minute or two)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(INSTALLED)  ## upload, predict, sleep, wake, bill: the whole path on this machine
	$(BIN)/python examples/demo.py

test: $(INSTALLED)  ## the whole suite
	$(BIN)/python -m pytest

check: $(INSTALLED)  ## what must hold of the source: style, types, imports, sizes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/file_sizes.py

bench: $(INSTALLED)  ## figures beside plain FastAPI and in-process runs; needs wrk (apt-get install wrk)
	$(BIN)/python benchmarks/run.py

fuzz: $(INSTALLED)  ## 10,000 damaged models through the real checker, others each time; prints the seed
	$(BIN)/python tests/fuzz_models.py --count 10000

lock: $(INSTALLED)  ## requirements.lock: everything that is installed, by version and hash
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet pyproject.toml --extra local --extra postgres --universal --generate-hashes \
		--upgrade --custom-compile-command "make lock" --output-file requirements.lock

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .work
