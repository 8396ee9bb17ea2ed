# Every target works alone on a fresh machine that has Python 3.11 or 3.12 and make: it builds .venv with the locked
# dependencies it needs, once, and starts the engines it needs. README.md tells the story; CONTRIBUTING.md the rules.
.DEFAULT_GOAL := help
.PHONY: help demo up down status test test-all test-long check bench clean
.DELETE_ON_ERROR:

export ONCE PORT PYTHON
VENV := .venv
# Airflow pins much of what the product needs in other versions: an environment of its own.
AIRFLOW := .local/airflow
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install -qq --require-hashes --disable-pip-version-check
# Checks read no settings of this machine and need no engines.
CHECKED := DEBUG=1 IGNORE_ENV_FILES=1 $(RUN) -W error -W ignore::RuntimeWarning
# The recipes that serve are single commands without shell syntax, so that make runs them without a shell and a signal to
# make reaches them.
PYTEST := $(RUN) -m pytest -n auto

help:
	@echo "make demo             set everything up, run one metered query, serve until Ctrl-C"
	@echo "make demo ONCE=1      the same, and exit after the query;  PORT=9000 moves it"
	@echo "make up / make down   the same in the background;  RATE_LIMIT_RPM=5 make up, WEB_PROCESSES=2 make up"
	@echo "make test             tests on engines of their own, in parallel;  ARGS='-k credits' chooses"
	@echo "make test-all         and the browser's, Redis Cluster's, Spark's, the compose file's commands, and the credit protocol's full random runs"
	@echo "make test-long        long random runs, 58 cycles of faults under load, planted faults;  SEED=7 changes their order"
	@echo "make check            ruff, mypy, import-linter, migrations, templates, workflow and compose files"
	@echo "make bench            the benchmarks;  ONLY=P1,P4 chooses"

demo: $(VENV)/run.stamp
	@$(RUN) -m embedded.demo demo

up: $(VENV)/run.stamp
	@$(RUN) -m embedded.demo up

down: $(VENV)/run.stamp
	@$(RUN) -m embedded.demo down

status: $(VENV)/run.stamp
	@$(RUN) -m embedded.demo status

test: $(VENV)/dev.stamp
	$(PYTEST) -m "not browser and not kills and not machine and not cluster and not services and not spark and not airflow and not long" $(ARGS)

test-all: $(VENV)/e2e.stamp $(VENV)/spark.stamp $(AIRFLOW)/airflow.stamp
	$(PYTEST) -m "not long" $(ARGS)

test-long: $(VENV)/e2e.stamp $(VENV)/spark.stamp
	$(PYTEST) -m "long" --timeout 3600 $(ARGS)
	$(RUN) -m tests.faults.cycles --cycles 58 $(if $(SEED),--seed $(SEED))
	$(RUN) -m tests.faults.planted

check: $(VENV)/dev.stamp
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	DEBUG=1 IGNORE_ENV_FILES=1 $(RUN) -m mypy .
	$(RUN) $(VENV)/bin/lint-imports
	$(CHECKED) manage.py makemigrations --check --dry-run
	$(CHECKED) manage.py check --fail-level WARNING
	$(CHECKED) manage.py check_templates
	$(RUN) -m djlint --quiet --lint templates
	$(RUN) -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(RUN) -m check_jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

bench: $(VENV)/dev.stamp
	$(RUN) -m benchmarks $(if $(ONLY),--only $(ONLY))

clean: down
	rm -rf .local $(VENV)

$(VENV)/python.stamp: embedded/find_python.sh
	@python=$$(sh embedded/find_python.sh) && \
	if ! $(RUN) -c "import pip" 2>/dev/null; then \
		echo "Making $(VENV) with $$python …"; rm -rf $(VENV); "$$python" -m venv $(VENV); \
	fi
	@# A line relative to site-packages: plain pytest finds the packages, wherever the folder is moved.
	@$(RUN) -c "import pathlib, sysconfig; pathlib.Path(sysconfig.get_path('purelib'), 'meterhouse.pth').write_text('../../../..\n')"
	@touch $@

$(VENV)/run.stamp: $(VENV)/python.stamp requirements/runtime.txt requirements/embedded.txt
	@echo "Installing what the demo needs …"
	@$(PIP) -r requirements/runtime.txt -r requirements/embedded.txt
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements/dev.txt
	@echo "Installing what tests and checks need …"
	@$(PIP) -r requirements/dev.txt
	@touch $@

$(VENV)/e2e.stamp: $(VENV)/dev.stamp requirements/e2e.txt
	@echo "Installing what the browser's tests need …"
	@$(PIP) -r requirements/e2e.txt
	@touch $@

$(VENV)/spark.stamp: $(VENV)/run.stamp requirements/spark.txt
	@echo "Installing PySpark …"
	@$(PIP) -r requirements/spark.txt
	@touch $@

$(AIRFLOW)/airflow.stamp: $(VENV)/python.stamp requirements/airflow.txt
	@echo "Installing Airflow …"
	@$(RUN) -m venv $(AIRFLOW)
	@$(AIRFLOW)/bin/python -m pip install -qq --require-hashes --disable-pip-version-check -r requirements/airflow.txt
	@touch $@
