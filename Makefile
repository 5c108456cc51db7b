# The same few words on a laptop and in CI. `make` alone lists them.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup run dev test suites lint types format bench lock violations query-counts scan

PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --no-input
LOCKED := $(PIP) --require-hashes
TORCH := requirements/runtimes-torch.txt
CODE := apps mlplatform demo scripts tests benchmarks manage.py
JOBS ?= 2
COVERAGE_AT_LEAST ?= 85

# The first interpreter that is new enough and can make a virtual environment; asked only when needed.
FIND_PYTHON = for one in "$${PYTHON:-python3.11}" python3.12 python3.13 python3; do \
	"$$one" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& command -v "$$one" && break; done

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- the environment ---------------------------------------------------------------------------
# A stamp per lock file: a second run compares two dates and installs nothing.

$(PY):
	@found="$$($(FIND_PYTHON))"; \
	if [ -z "$$found" ]; then \
		echo "mlplatform needs Python 3.11 or newer with its venv module, and found none." >&2; \
		echo "On Debian or Ubuntu: apt-get install python3 python3-venv. Elsewhere: name one, PYTHON=/path/to/python3 make run." >&2; \
		exit 1; \
	fi; \
	echo "Making .venv with $$found"; "$$found" -m venv .venv

.venv/.run: requirements/worker.txt $(TORCH) | $(PY)
	@echo "Installing what the platform needs (once; some minutes)"
	@$(LOCKED) -r requirements/worker.txt
	@$(PIP) -r $(TORCH)
	@touch $@

.venv/.dev: requirements/dev.txt $(TORCH) | $(PY)
	@echo "Installing what tests and checks need (once; some minutes)"
	@$(LOCKED) -r requirements/dev.txt
	@$(PIP) -r $(TORCH)
	@touch .venv/.run $@

setup: .venv/.dev ## make .venv with everything, run nothing

# --- running -----------------------------------------------------------------------------------

run: .venv/.run ## start the whole platform on this machine; Ctrl-C ends it
	@exec $(PY) manage.py dev

dev: .venv/.run ## the same, starting anew whenever a source file changes
	@exec $(PY) manage.py dev --reload

# --- tests -------------------------------------------------------------------------------------

PYTEST = PYTHONWARNINGS= $(PY) -m pytest -n $(JOBS) --dist loadgroup --cov --cov-report= -q

test: .venv/.dev ## all tests on SQLite and on PostgreSQL; brings its own PostgreSQL and Redis
	@$(PY) scripts/services.py install
	@$(PY) scripts/services.py run -- $(MAKE) --no-print-directory suites

# What `make test` runs between the start and the end of its services.
suites: .venv/.dev
	@rm -f .coverage .coverage.*
	@echo "== on SQLite"
	@COVERAGE_FILE=.coverage.sqlite $(PYTEST) tests
	@echo "== on PostgreSQL and Redis (what has no database, or its own, is left out)"
	@COVERAGE_FILE=.coverage.postgresql \
		DATABASE_URL="$$MLP_TEST_POSTGRES_URL" REDIS_URL="$$MLP_TEST_REDIS_URL" \
		$(PYTEST) tests --ignore=tests/unit --ignore=tests/sandbox_probes --ignore=tests/browser
	@if find tests -name '*.test.js' | grep -q .; then \
		echo "== JavaScript"; node --test $$(find tests -name '*.test.js'); fi
	@$(PY) -m coverage combine -q
	@$(PY) -m coverage report --fail-under=$(COVERAGE_AT_LEAST)

# --- checks ------------------------------------------------------------------------------------
# Checks write nothing into the installation: they get an empty data folder of their own.

lint: .venv/.dev ## format, plain errors, types, import contract, migrations, deployment checks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy $(CODE)
	.venv/bin/lint-imports --no-cache
	@folder="$$(mktemp -d)"; trap 'rm -rf "$$folder"' EXIT; \
	export MLP_DATA_DIR="$$folder" MLP_ENV_FILE=0; set -ex; \
	$(PY) manage.py makemigrations --check --dry-run; \
	$(PY) manage.py check --fail-level WARNING
	$(PY) -m pytest -q tests/unit/tooling/test_deploy_checks.py

scan: .venv/.dev ## look for weaknesses: our code (bandit), the locked packages (pip-audit; asks api.osv.dev)
	$(PY) -m bandit --quiet --severity-level medium --recursive apps mlplatform scripts demo
	for one in worker runtimes-sklearn dev; do \
		$(PY) -m pip_audit --disable-pip --require-hashes --vulnerability-service osv \
			--progress-spinner off -r requirements/$$one.txt || exit 1; done

types: .venv/.dev ## the type checker alone
	$(PY) -m mypy $(CODE)

format: .venv/.dev ## format the code and put right what can be put right by itself
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

violations: .venv/.dev ## plant one violation of each import contract in a copy and see it caught
	$(PY) scripts/plant_violations.py

query-counts: .venv/.dev ## write anew how many queries each page of the admin makes
	MLP_WRITE_QUERY_COUNTS=1 PYTHONWARNINGS= $(PY) -m pytest -q tests/contracts/test_query_counts.py

bench: .venv/.dev ## measure on this machine; results with machine and date
	$(PY) -m benchmarks

# --- lock files --------------------------------------------------------------------------------

LOCK = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock: .venv/.dev ## write requirements/*.txt anew from requirements/*.in
	$(LOCK) requirements/base.in -o requirements/base.txt
	$(LOCK) -c requirements/base.txt requirements/worker.in -o requirements/worker.txt
	$(LOCK) -c requirements/worker.txt requirements/dev.in -o requirements/dev.txt
	$(LOCK) -c requirements/worker.txt requirements/runtimes-sklearn.in -o requirements/runtimes-sklearn.txt
