"""An Airflow DAG that loads files into Meterhouse with the command that people use: `manage.py ingest`.

`ingest` runs the command and goes by its exit code: 0 and 1 are done, 2 is refused and fails at once, 3 and a crash are tried
again, and the command goes on where it stopped. `review` fails, and is not tried again, when the rejected rows of a file passed
REJECT_THRESHOLD: then its rows are loaded and somebody should look at its dead letters.

Airflow's workers need METERHOUSE_HOME (a checkout with its `.venv`) and the settings of every process of Meterhouse in their
environment. It asks for nothing of Airflow but its task SDK: Meterhouse runs in an environment of its own.
"""

import json
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

DONE, NEEDS_REVIEW, REFUSED = 0, 1, 2
DEADLINE = timedelta(hours=int(os.environ.get("METERHOUSE_INGEST_HOURS_MAX", "12")))
# A chunk is loaded to its end before the command stops.
STOP_S = 300
JOBS_NAMED = 50


def command(path: str, engine: str, source: str, mapping: str) -> list[str]:
    """The words of the command."""
    home = Path(os.environ.get("METERHOUSE_HOME") or Path(__file__).resolve().parents[2])
    python = os.environ.get("METERHOUSE_PYTHON") or str(home / ".venv" / "bin" / "python")
    named = [f"--{name}={value}" for name, value in (("source", source), ("mapping", mapping)) if value]
    return [python, str(home / "manage.py"), "ingest", "--json", f"--engine={engine}", *named, "--", path]


def run(words: list[str]) -> tuple[int, str]:
    """Exit code and output. When Airflow ends the task, at its deadline or by hand, the command stops after its chunk."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            out, _ = process.communicate(timeout=DEADLINE.total_seconds())
        except BaseException:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return process.returncode, out


def outcome(code: int, out: str) -> dict[str, Any]:
    """What the command has done, as sums over its files, and the jobs that need review. Raises what Airflow goes by."""
    try:
        answers = json.loads(out)
    except ValueError:
        answers = []
    said = "; ".join(str(answer["error"]["message"]) for answer in answers if answer.get("error"))[:1000]
    if code == REFUSED:
        raise AirflowFailException(f"Refused: {said or 'see the log for what the command said.'}")
    review = [answer["job"] for answer in answers if answer.get("state") == "needs_review"]
    # Python, too, ends with 1 when it breaks down: only the answers tell.
    if code not in (DONE, NEEDS_REVIEW) or (code == NEEDS_REVIEW and not review):
        raise AirflowException(
            f"Stopped with exit code {code}: {said or 'see the log.'} The next try goes on where it stopped."
        )
    sums = {
        name: sum(answer.get(name, 0) for answer in answers) for name in ("read", "loaded", "duplicates", "rejected")
    }
    return {"files": len(answers), **sums, "review": review[:JOBS_NAMED]}


@dag(
    dag_id="meterhouse_ingest",
    schedule=None,
    catchup=False,
    max_active_runs=4,
    dagrun_timeout=7 * DEADLINE,
    params={
        "path": Param(type="string", minLength=1, description="A file, a folder, a pattern or s3://bucket/prefix."),
        "engine": Param("spark", enum=["spark", "local"], description="What does the work."),
        "source": Param(
            "", type="string", maxLength=100, description="The name under which files of one origin belong together."
        ),
        "mapping": Param("", type="string", description="A saved mapping; empty: that of the source, else found out."),
    },
    tags=["meterhouse"],
    doc_md=__doc__,
)
def meterhouse_ingest() -> None:
    """Loads what `path` names."""

    @task(
        retries=5,
        retry_delay=timedelta(minutes=1),
        retry_exponential_backoff=True,
        max_retry_delay=timedelta(minutes=30),
        execution_timeout=DEADLINE,
    )
    def ingest(path: str, engine: str, source: str, mapping: str) -> dict[str, Any]:
        return outcome(*run(command(path, engine, source, mapping)))

    @task(retries=0, execution_timeout=timedelta(minutes=5))
    def review(report: dict[str, Any]) -> None:
        if report["review"]:
            raise AirflowFailException(
                "Loaded, and to be reviewed for too many rejected rows: the dead letters of "
                + ", ".join(report["review"])
            )

    given = {name: f"{{{{ params.{name} }}}}" for name in ("path", "engine", "source", "mapping")}
    review(ingest(**given))


meterhouse_ingest()
