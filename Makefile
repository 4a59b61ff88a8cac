# Everything a developer runs. Needs make and a Python >= 3.11; everything else is installed into .venv.
# Choose the interpreter with PYTHON=…. make hands what stands on its command line (DATA=…, ACCRETE_PORT=…) to the
# programs in their environment, where the settings are read.

.POSIX:
SHELL = /bin/sh

VENV = .venv
BIN = $(VENV)/bin
PYTHON ?=
ARGS =
BENCH =
FAULTS_SECONDS = 1800
FAULTS_SEED = 1
FAULTS_PARTS = embedded
FUZZ_INPUTS = 100000
FUZZ_SEED = 1
UPGRADE =
UV = .venv-lock/bin/uv
PEERS = .venv-peers
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes $(UPGRADE) --group build
INSTALL = $(BIN)/python -m pip --disable-pip-version-check install

.PHONY: help demo serve test jitter faults fuzz screenshots check docs types networks bench lock clean

help:
	@echo 'make demo    grow a classifier of handwritten digits; DATA=folder [CLASSES_PER_STEP=2] takes your own images'
	@echo 'make serve   the service with its embedded parts, until Ctrl-C (ACCRETE_PORT, ACCRETE_HOME)'
	@echo 'make test    every test, in three processes; ARGS="-k blobs" picks some, ARGS="-n 0" runs them in one'
	@echo 'make jitter  every test while threads come late, which shows races; ARGS as above'
	@echo 'make faults  half an hour of mixed load while processes are killed; FAULTS_SECONDS=n FAULTS_PARTS=separate'
	@echo 'make fuzz    damaged archives and images, a hundred thousand of each; FUZZ_INPUTS=n, FUZZ_SEED=n'
	@echo 'make check   format, lint, types, import contracts, loading rules, Dockerfile, compose file'
	@echo 'make docs    the guides as a site, in the folder site; a link that leads nowhere is an error'
	@echo 'make screenshots  pictures of the pages of the dashboard, in build/screenshots; needs Chromium'
	@echo 'make types   the types of the client from the OpenAPI document, and the asynchronous client'
	@echo 'make networks  the table of image sizes, heads and maps of each network; minutes; ARGS=name measures one'
	@echo 'make bench   the measured comparisons; BENCH=name ARGS=... runs one'
	@echo 'make lock    renew requirements*.lock from pyproject.toml; UPGRADE=--upgrade takes the newest'
	@echo 'make clean   remove the environment and caches; the data folder stays'

demo: $(VENV)/runtime.stamp
	@exec $(BIN)/python -m api.demo

serve: $(VENV)/runtime.stamp
	@exec $(BIN)/accrete up

test: $(VENV)/dev.stamp
	@exec $(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder $(ARGS)

jitter: $(VENV)/dev.stamp
	@PYTHONPATH="$$PWD/tests/jitter" $(MAKE) --no-print-directory test

faults: $(VENV)/dev.stamp
	@FAULTS_SECONDS=$(FAULTS_SECONDS) FAULTS_SEED=$(FAULTS_SEED) FAULTS_PARTS=$(FAULTS_PARTS) exec $(BIN)/python -m pytest -q -o faulthandler_timeout=0 tests/faults/test_mixed_load.py

fuzz: $(VENV)/dev.stamp
	@FUZZ_INPUTS=$(FUZZ_INPUTS) FUZZ_SEED=$(FUZZ_SEED) exec $(BIN)/python -m pytest -q -o faulthandler_timeout=0 tests/attacks/test_fuzz.py

screenshots: $(VENV)/dev.stamp
	@exec $(BIN)/python -m tests.browser.screenshots build/screenshots

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ruff check --quiet --select TID251 --ignore-noqa .
	$(BIN)/python .ci/unsafe_loads.py
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	@if report=$$($(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements.lock 2>&1); then \
		echo 'pip-audit: no known vulnerability'; \
	else \
		case "$$report" in \
			*'known vulnerabilit'*) printf '%s\n' "$$report"; exit 1;; \
			*) echo "pip-audit: skipped ($$(printf '%s' "$$report" | tail -n 1 | cut -c 1-200))";; \
		esac; \
	fi
	@if why=$$(docker compose version 2>&1); then \
		echo 'docker compose config'; \
		for profile in default gpu; do \
			POSTGRES_PASSWORD=unused docker compose --profile "$$profile" config --quiet || exit 1; \
		done; \
	else \
		echo "docker compose config: skipped ($$(printf '%s' "$$why" | head -n 1))"; \
	fi

# MkDocs prints a notice about its successors with every build.
docs: $(VENV)/dev.stamp
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo 'The guides are in the folder site. To read them, with their search: python3 -m http.server -d site'

types: $(VENV)/dev.stamp
	$(BIN)/python .ci/client_types.py api/client/documents.py
	$(BIN)/python .ci/async_client.py

networks: $(VENV)/dev.stamp
	$(BIN)/python -m trainer.networks.tabulate $(ARGS)

bench: $(VENV)/dev.stamp $(if $(filter serving executions,$(BENCH)),$(PEERS)/stamp)
	@set -e; for file in benchmarks/$(if $(BENCH),$(BENCH),[a-z]*).py; do \
		if [ ! -f "$$file" ]; then echo "there is no $$file" >&2; exit 1; fi; \
		name=$$(basename "$$file" .py); \
		case "$(BENCH) $$name" in ' time_to_quality'|' long_life'|' shown_classes'|' trees'|' exports') echo "== $$name: long, by name only"; continue;; esac; \
		echo "== $$name"; $(BIN)/python -m "benchmarks.$$name" $(ARGS); \
	done

lock:
	@$(find_python); "$$python" -m venv .venv-lock
	.venv-lock/bin/python -m pip --disable-pip-version-check install --quiet --upgrade uv
	$(COMPILE) --all-extras --group dev pyproject.toml -o requirements-dev.lock
	$(COMPILE) -c requirements-dev.lock --extra worker --extra demo pyproject.toml -o requirements.lock
	$(COMPILE) -c requirements-dev.lock --extra worker pyproject.toml -o requirements-worker.lock
	$(COMPILE) -c requirements-dev.lock pyproject.toml -o requirements-api.lock
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes $(UPGRADE) --group pyproject.toml:peers -o requirements-peers.lock

clean:
	rm -rf $(VENV) $(PEERS) .venv-lock .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist site *.egg-info
	find . -path ./data -prune -o -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# The interpreters whose embedded Redis comes as a wheel go first; each is tried by running it, not by its name alone.
define find_python
	python=; for candidate in $(if $(PYTHON),"$(PYTHON)",python3.12 python3.11 python3.14 python3.13 python3 python); do \
		if "$$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			python=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'Accrete needs Python 3.11 or newer with its venv module$(if $(PYTHON), and $(PYTHON) is not that,):' >&2; \
		echo '  install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3' >&2; \
		exit 1; \
	fi
endef

# An environment that runs is kept; one that was left half made, or whose interpreter is gone, is made again.
define environment
	@if ! $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		$(find_python); echo "making $(VENV) with $$("$$python" --version)"; "$$python" -m venv --clear $(VENV); \
	fi
endef

# A stamp is written when the installation is complete, so an interrupted one is taken up again.
$(VENV)/runtime.stamp: requirements.lock pyproject.toml
	$(environment)
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# The development lock file holds every pin of the other one.
$(VENV)/dev.stamp: requirements-dev.lock requirements.lock pyproject.toml
	$(environment)
	$(INSTALL) --require-hashes -r requirements-dev.lock
	$(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@touch $(VENV)/runtime.stamp $@

# Other servers and OpenVINO, in an environment of their own that borrows torch from ours.
$(PEERS)/stamp: requirements-peers.lock $(VENV)/dev.stamp
	$(BIN)/python -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --require-hashes -r requirements-peers.lock
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(PEERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/accrete.pth"
	@touch $@
