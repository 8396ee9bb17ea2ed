"""The DAG in a real Airflow, which lives in an environment of its own: it is parsed there, and runs the command."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ingestion.models import IngestionJob
from tests.faults.processes import database_url
from tests.ingestion.files import written
from tests.ingestion.stored import counts, mark

ROOT = Path(__file__).resolve().parents[2]
AIRFLOW = ROOT / ".local" / "airflow" / "bin"
DAGS = ROOT / "deploy" / "airflow"

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300), pytest.mark.usefixtures("stores")]

_PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
dag = bag.dags["meterhouse_ingest"]
tasks = {
    task.task_id: [task.retries, task.execution_timeout.total_seconds(), sorted(task.downstream_task_ids)]
    for task in dag.tasks
}
print(json.dumps({"errors": bag.import_errors, "tasks": tasks, "given": dag.get_task("ingest").op_kwargs,
    "params": {name: param.value for name, param in dag.params.items() if name != "path"}}))
"""
_OUTCOME = """
import sys
sys.path.insert(0, sys.argv[1])
from meterhouse_ingest import command, outcome, run
try:
    print(outcome(*run(command(sys.argv[2], "local", "", ""))))
except Exception as exc:
    print(type(exc).__name__, exc)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an Airflow with an empty database of its own, and of the command that it runs."""
    folder = tmp_path_factory.mktemp("airflow")
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DJANGO_SETTINGS_MODULE")},
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "false",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "false",
        "METERHOUSE_HOME": str(ROOT),
        "NO_COLOR": "1",
    }
    airflow(environment, str(AIRFLOW / "airflow"), "db", "migrate")
    return environment


def airflow(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        words, env={**environment, "DATABASE_URL": database_url()}, cwd=environment["AIRFLOW_HOME"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def outcome(environment: dict[str, str], path: Path) -> str:
    return airflow(environment, str(AIRFLOW / "python"), "-c", _OUTCOME, str(DAGS), str(path)).strip().splitlines()[-1]


def test_airflow_parses_the_dag_and_finds_its_tasks(home: dict[str, str]) -> None:
    said = airflow(home, str(AIRFLOW / "python"), "-c", _PARSE, str(DAGS))
    parsed: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    assert parsed["errors"] == {}
    assert parsed["tasks"] == {"ingest": [5, 43200.0, ["review"]], "review": [0, 300.0, []]}
    assert parsed["given"] == {name: f"{{{{ params.{name} }}}}" for name in ("path", "engine", "source", "mapping")}
    assert parsed["params"] == {"engine": "spark", "source": "", "mapping": ""}


def test_airflow_runs_the_dag_and_the_file_is_loaded(home: dict[str, str], tmp_path: Path) -> None:
    path = written(tmp_path, "people.csv", f"id,name\n1,{mark()}\n2,{mark()}\n")
    given = json.dumps({"path": str(path), "engine": "local", "source": "crm"})
    said = airflow(home, str(AIRFLOW / "airflow"), "dags", "test", "meterhouse_ingest", "--conf", given)
    assert "state=success" in said
    job = IngestionJob.objects.get(source_path=str(path))
    assert (job.source, job.engine, counts(job)) == ("crm", "local", (2, 2, 0, 0))


def test_a_refused_file_fails_without_another_try(home: dict[str, str], tmp_path: Path) -> None:
    said = outcome(home, written(tmp_path, "empty.csv", ""))
    assert said.startswith("AirflowFailException Refused:")
    assert "is empty" in said


def test_too_many_rejected_rows_are_told_to_the_review(home: dict[str, str], tmp_path: Path) -> None:
    path = written(tmp_path, "people.csv", f"id,name\n1,{mark()}\nbroken\n")
    said = outcome(home, path)
    job = IngestionJob.objects.get(source_path=str(path))
    assert said == str({"files": 1, "read": 2, "loaded": 1, "duplicates": 0, "rejected": 1, "review": [str(job.pk)]})


def test_a_store_that_is_away_is_tried_again(home: dict[str, str], tmp_path: Path) -> None:
    path = written(tmp_path, "people.csv", f"id,name\n1,{mark()}\n")
    away = {**home, "CLICKHOUSE_URL": "http://default:@127.0.0.1:9/away", "INGEST_STORE_WAIT_S": "0"}
    assert outcome(away, path).startswith("AirflowException Stopped with exit code 3")
