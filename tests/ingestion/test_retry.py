"""Rejected rows that are read again: with another mapping, from the same file, counted in a job of their own."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from django.core.management import CommandError

from ingestion.chosen_rows import ChosenRows
from ingestion.models import DeadLetter, IngestionJob
from tests.ingestion.files import batches, written
from tests.ingestion.stored import count, counts, found, mark
from tests.ingestion.test_ingest_command import ingest

pytestmark = pytest.mark.usefixtures("stores")


def answer_of(*arguments: str | Path) -> dict[str, Any]:
    answers: list[dict[str, Any]] = json.loads(ingest(*arguments, "--json")[1])
    return answers[0]


def rejected(folder: Path, person: str) -> tuple[Path, dict[str, Any]]:
    """A file of four rows, two of which say who they are in a column of no known name, and one that is broken."""
    path = written(folder, "a.csv", f"name,who\nAnn {person},\n,Bo {person}\n,Cy {person}\nbroken\n")
    return path, answer_of(path)


def test_the_rejected_rows_alone_are_read_again_with_the_given_mapping(tmp_path: Path) -> None:
    person = mark()
    _, first = rejected(tmp_path, person)
    assert (first["read"], first["loaded"], first["rejected"]) == (4, 1, 3)
    mapping = written(tmp_path, "m.json", '{"columns": {"who": "name"}}')
    code, out, _ = ingest("--retry", first["job"], "--mapping", mapping, "--json")
    second = json.loads(out)[0]
    assert (code, second["retry_of"], second["state"]) == (1, first["job"], "needs_review")
    assert counts(IngestionJob.objects.get(pk=second["job"])) == (3, 2, 0, 1)
    assert list(DeadLetter.objects.filter(job=second["job"]).values_list("row", "reason", "raw")) == [
        (4, "RAGGED_ROW", "broken")
    ]
    assert [len(found("name", f"{name} {person}")) for name in ("Ann", "Bo", "Cy")] == [1, 1, 1]
    assert counts(IngestionJob.objects.get(pk=first["job"])) == (4, 1, 0, 3)


def test_a_retry_twice_loads_nothing_twice(tmp_path: Path) -> None:
    person = mark()
    _, first = rejected(tmp_path, person)
    mapping = written(tmp_path, "m.json", '{"columns": {"who": "name"}}')
    answers = [answer_of("--retry", first["job"], "--mapping", mapping) for _ in range(2)]
    assert [(answer["loaded"], answer["duplicates"], answer["rejected"]) for answer in answers] == [
        (2, 0, 1),
        (0, 2, 1),
    ]
    assert count("hasToken(words, {name:String})", name=person) == 3
    assert answer_of("--retry", answers[0]["job"])["read"] == 1


def test_a_file_that_has_moved_is_named(tmp_path: Path) -> None:
    path, first = rejected(tmp_path, mark())
    moved = path.rename(tmp_path / "moved.csv")
    assert answer_of("--retry", first["job"])["error"]["code"] == "UNREADABLE_FILE"
    assert answer_of("--retry", first["job"], moved)["read"] == 3


def test_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    path, first = rejected(tmp_path, mark())
    path.write_text("name,who\nx,y\n")
    code, out, err = ingest("--retry", first["job"], "--json")
    assert (code, json.loads(out)[0]["error"]["code"]) == (2, "FILE_CHANGED")
    assert "is not the file that job" in err


def test_there_must_be_something_to_retry(tmp_path: Path) -> None:
    clean = answer_of(written(tmp_path, "a.csv", f"id,name\n1,{mark()}\n"))["job"]
    for job in (clean, "00000000-0000-0000-0000-000000000000"):
        with pytest.raises(CommandError, match="NOTHING_TO_RETRY: There is no job") as caught:
            ingest("--retry", job)
        assert caught.value.returncode == 2


def test_a_retried_file_stays_known(tmp_path: Path) -> None:
    path, first = rejected(tmp_path, mark())
    answer_of("--retry", first["job"])
    again = answer_of(path)
    assert (again["state"], again["job"]) == ("skipped", first["job"])


def test_something_must_be_named() -> None:
    with pytest.raises(CommandError, match="Name a file, a folder, a pattern"):
        ingest("--dry-run")


def test_chosen_rows_keep_their_numbers_raw_text_and_rejects(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,name\n1,a\nx\n3,c\ny\n5,e\n")
    chosen = list(ChosenRows(batches(path), pa.array([3, 4, 99], pa.int64())))
    assert [batch.rows.to_pylist() for batch in chosen] == [[{"id": "3", "name": "c"}]]
    assert [batch.numbers.to_pylist() for batch in chosen] == [[3]]
    assert chosen[0].raw(0) == "3,c"
    assert [(reject.row, reject.raw) for reject in chosen[0].rejects] == [(4, "y")]
    assert sum(batch.bytes_read for batch in chosen) == path.stat().st_size
