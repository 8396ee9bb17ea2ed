"""`manage.py jobs` and `ingest --background` as an operator runs them."""

import json
import uuid
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from ingestion import working
from ingestion.models import IngestionJob
from tests.ingestion.files import written
from tests.ingestion.stored import loaded, mark
from tests.ingestion.test_ingest_command import ingest
from tests.ingestion.test_queueing import people, queued

pytestmark = pytest.mark.usefixtures("stores")


def jobs(*arguments: Any) -> str:
    out = StringIO()
    call_command("jobs", *map(str, arguments), stdout=out)
    return out.getvalue()


def test_a_file_for_the_background_is_queued_and_named(tmp_path: Path) -> None:
    path = people(tmp_path, mark())
    code, out, err = ingest(path, "--background", "--source", "crm")
    job = IngestionJob.objects.get(source_path=str(path))
    assert (code, out, err) == (0, f"{path.name}: queued as job {job.pk}\n", "")
    assert (job.state, job.source, job.requested_by) == ("queued", "crm", "command line")


def test_a_path_of_nothing_is_refused_before_it_is_queued(tmp_path: Path) -> None:
    code, out, err = ingest(tmp_path / "none.csv", "--background", "--json")
    assert (code, json.loads(out)[0]["error"]["code"]) == (2, "UNREADABLE_FILE")
    assert "Check the path" in err


def test_the_list_shows_state_file_and_counts(tmp_path: Path) -> None:
    job = loaded(people(tmp_path, mark()))
    (listed,) = [one for one in json.loads(jobs("--json", "--limit", "5")) if one["job"] == str(job.pk)]
    assert (listed["state"], listed["read"], listed["progress"]["fraction"]) == ("done", 3, 1.0)
    assert str(job.pk)[:8] in jobs("--limit", "5")


def test_a_list_of_nothing_says_what_to_do() -> None:
    IngestionJob.objects.filter(state="rolling_back").update(state="failed")
    assert jobs("--state", "rolling_back") == "No job is rolling back. `manage.py jobs` lists them all.\n"


def test_one_job_shows_stages_reasons_and_what_happened(tmp_path: Path) -> None:
    job = loaded(written(tmp_path, "a.csv", f"id,name\n1,{mark()}\n2\n"))
    shown = json.loads(jobs(job.pk, "--json"))
    assert shown["reasons"] == {"RAGGED_ROW": 1}
    assert [event["kind"] for event in shown["events"]] == ["needs review", "started"]
    text = jobs(job.pk)
    for words in ("a.csv: needs review", "Seconds: ", "RAGGED_ROW", "started"):
        assert words in text


def test_a_job_is_cancelled_and_goes_on_by_command(tmp_path: Path) -> None:
    job = queued(people(tmp_path, mark()))
    assert jobs(job.pk, "--cancel") == f"{job.source_file}: cancelled; job {job.pk}\n"
    assert json.loads(jobs(job.pk, "--resume", "--json"))["state"] == "queued"
    done = working.carry_out(job.pk)
    assert done is not None
    assert done.state == "done"


@pytest.mark.parametrize("change", ["--cancel", "--resume"])
def test_what_cannot_be_changed_exits_2(tmp_path: Path, change: str) -> None:
    for arguments in ([loaded(people(tmp_path, mark())).pk, change], [uuid.uuid4(), change], [change]):
        with pytest.raises(CommandError) as caught:
            jobs(*arguments)
        assert caught.value.returncode == 2
