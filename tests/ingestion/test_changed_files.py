"""A file that is replaced or written to while it is loaded: said so, and every row that was loaded is counted."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ingestion import jobs
from ingestion.models import IngestionJob
from tests.ingestion.files import written
from tests.ingestion.stored import count, counts, mark
from tests.ingestion.test_ingest_command import ingest

pytestmark = pytest.mark.usefixtures("stores", "small_blocks")


def people(name: str, rows: int = 200) -> str:
    return "id,name\n" + "".join(f"{row},{name}\n" for row in range(rows))


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("9999,late\n")


def replace_archive(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(os.urandom(5000))
    other.rename(path)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("name", "packed", "change"),
    [("a.csv", False, append), ("a.csv.gz", True, replace_archive), ("a.csv", False, remove)],
    ids=["appended to", "an archive replaced", "removed"],
)
def test_a_file_that_changes_ends_its_job_with_the_reason(
    tmp_path: Path, name: str, packed: bool, change: Callable[[Path], None]
) -> None:
    who = mark()
    content = people(who).encode()
    path = written(tmp_path, name, gzip.compress(content) if packed else content)
    changed = False

    def on_progress(job: IngestionJob) -> None:
        nonlocal changed
        if job.chunks_done == 2 and not changed:
            changed = True
            change(path)

    job = jobs.run(jobs.inspect(path), chunk_rows=1, on_progress=on_progress)
    assert (job.state, job.error_code) == ("failed", "FILE_CHANGED")
    assert str(path) in job.error
    read, loaded, duplicate, rejected = counts(job)
    assert 0 < read < 200
    assert (read, loaded) == (loaded + duplicate + rejected, count("name = {name:String}", name=who))


def test_the_same_command_loads_what_the_file_has_become(tmp_path: Path) -> None:
    who = mark()
    path = written(tmp_path, "a.csv", people(who))
    job = jobs.run(
        jobs.inspect(path), chunk_rows=1, on_progress=lambda job: append(path) if job.chunks_done == 1 else None
    )
    assert job.error_code == "FILE_CHANGED"
    code, _, _ = ingest(path)
    assert code == 0
    assert count("name = {name:String}", name=who) == 200


def test_one_that_changed_between_the_look_and_the_load_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", people(mark()))
    found = jobs.inspect(path)
    append(path)
    job = jobs.run(found, chunk_rows=1)
    assert (job.state, job.error_code, counts(job)) == ("failed", "FILE_CHANGED", (0, 0, 0, 0))
