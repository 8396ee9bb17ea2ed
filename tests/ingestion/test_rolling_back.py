"""A job is rolled back: its rows go, those of other jobs stay, whatever interrupts it and whoever loads meanwhile."""

import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from django.core.management import CommandError
from django.db import connection
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from config.clickhouse import data_version
from config.clickhouse.client import writer
from config.errors import NotFound
from ingestion import jobs, removal
from ingestion.models import DeadLetter, IngestionJob
from ingestion.rolling_back import NotRollable, roll_back
from tests.faults.processes import environment_of
from tests.ingestion.files import written
from tests.ingestion.stored import count, counts, found, loaded, mark
from tests.ingestion.test_jobs_command import jobs as jobs_command
from tests.ingestion.test_queueing import queued

pytestmark = pytest.mark.usefixtures("stores")
ROOT = Path(__file__).resolve().parents[2]


class Killed(BaseException):
    """Stands for whatever ends a process."""


def people(folder: Path, city: str, numbers: "range | list[int]", *, extra: str = "") -> Path:
    lines = "".join(f"{number},Ann {number},{city}\n" for number in numbers)
    return written(folder, f"{uuid.uuid4().hex}.csv", "id,name,city\n" + lines + extra)


def rolled_back(job: IngestionJob) -> IngestionJob:
    return roll_back(job.pk, now=timezone.now(), actor="ann@example.com", reason="wrong file")


def stored(city: str) -> list[int]:
    return sorted(int(row["user_id"]) for row in found("city", city, "user_id"))


def test_the_rows_go_and_the_file_may_be_loaded_again(tmp_path: Path) -> None:
    city = mark()
    path = people(tmp_path, city, range(10), extra="broken\n")
    job = rolled_back(loaded(path))
    assert (job.state, job.rows_removed, job.rows_handed_over, stored(city)) == ("rolled_back", 10, 0, [])
    assert counts(job) == (11, 10, 0, 1)
    assert DeadLetter.objects.filter(job=job).count() == 1
    assert jobs.known(jobs.inspect(path)) is None
    assert counts(loaded(path)) == (11, 10, 0, 1)
    assert stored(city) == list(range(10))


def test_it_stands_in_the_events_with_who_and_why(tmp_path: Path) -> None:
    job = rolled_back(loaded(people(tmp_path, mark(), range(3))))
    assert [(event.kind, event.actor, event.message) for event in job.events.order_by("id")][-2:] == [
        ("roll back", "ann@example.com", "wrong file"),
        ("rolled back", "ann@example.com", "3 rows were removed."),
    ]


def test_a_row_that_another_job_delivered_too_stays_as_that_jobs(tmp_path: Path) -> None:
    city = mark()
    first, second = loaded(people(tmp_path, city, range(10))), loaded(people(tmp_path, city, range(6, 12)))
    job = rolled_back(first)
    assert (job.rows_removed, job.rows_handed_over, stored(city)) == (6, 4, list(range(6, 12)))
    owners = {(row["job_id"], row["source_file"]) for row in found("city", city, "job_id, source_file")}
    assert owners == {(second.pk, second.source_file)}
    assert (rolled_back(second).rows_removed, stored(city)) == (6, [])


def test_what_a_rolled_back_job_delivered_is_forgotten(tmp_path: Path) -> None:
    city = mark()
    first, second = loaded(people(tmp_path, city, range(5))), loaded(people(tmp_path, city, range(5), extra="x\n"))
    assert rolled_back(second).rows_removed == 0
    assert (rolled_back(first).rows_handed_over, stored(city)) == (0, [])


def test_ids_are_looked_at_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "PART_ROWS", 25)
    city = mark()
    first, _ = loaded(people(tmp_path, city, range(40))), loaded(people(tmp_path, city, range(25, 45)))
    job = rolled_back(first)
    assert (job.rows_removed, job.rows_handed_over, stored(city)) == (25, 15, list(range(25, 45)))


def test_every_way_to_find_a_row_agrees_and_nothing_is_left_behind(tmp_path: Path) -> None:
    city = mark()
    first, _ = loaded(people(tmp_path, city, range(8))), loaded(people(tmp_path, city, [3]))
    rolled_back(first)
    (row,) = found("city", city)
    assert count("id = {id:UUID}", id=str(row["id"])) == 1
    assert count("hasToken(words, {city:String})", city=city) == 1
    assert count("user_id = '3' AND city = {city:String}", city=city) == 1
    assert count("user_id = '4' AND city = {city:String}", city=city) == 0
    left = writer().query(
        "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name LIKE {name:String}",
        parameters={"name": f"roll_back_{first.pk.hex}%"},
    )
    assert left.result_rows == [(0,)]


def test_the_data_version_rises(tmp_path: Path) -> None:
    job = loaded(people(tmp_path, mark(), range(2)))
    before = data_version.raise_version()
    rolled_back(job)
    assert (data_version.current() or 0) > before


def test_only_what_has_ended_is_rolled_back(tmp_path: Path) -> None:
    waiting = queued(people(tmp_path, mark(), range(2)))
    with pytest.raises(NotRollable, match="Cancel it first"):
        rolled_back(waiting)
    done = rolled_back(loaded(people(tmp_path, mark(), range(2))))
    with pytest.raises(NotRollable, match="has no rows"):
        rolled_back(done)
    with pytest.raises(NotFound):
        roll_back(uuid.uuid4(), now=timezone.now())


def test_an_interrupted_roll_back_is_ended_by_the_next(tmp_path: Path) -> None:
    city = mark()
    first, _ = loaded(people(tmp_path, city, range(10))), loaded(people(tmp_path, city, [0, 1]))
    seen: list[int] = []

    def die(job: IngestionJob) -> None:
        seen.append(1)
        if len(seen) == 2:
            raise Killed

    with pytest.raises(Killed):
        roll_back(first.pk, now=timezone.now(), on_progress=die)
    assert IngestionJob.objects.get(pk=first.pk).state == "rolling_back"
    # Before it is ended somebody else delivers a row that is about to go.
    third = loaded(people(tmp_path, city, [9]))
    assert counts(third) == (1, 0, 1, 0)
    job = rolled_back(first)
    assert (job.rows_removed, job.rows_handed_over, stored(city)) == (7, 3, [0, 1, 9])


@pytest.mark.kills
def test_kill_minus_9_of_a_roll_back_and_again(tmp_path: Path) -> None:
    city = mark()
    first, _ = loaded(people(tmp_path, city, range(300))), loaded(people(tmp_path, city, range(250, 310)))
    command = [sys.executable, "manage.py", "jobs", str(first.pk), "--roll-back", "--yes"]
    running = subprocess.Popen(command, cwd=ROOT, env=environment_of({}), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and running.poll() is None:
        if IngestionJob.objects.filter(pk=first.pk, state="rolling_back").exists():
            break
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait(timeout=30)
    if IngestionJob.objects.get(pk=first.pk).state != "rolled_back":
        rolled_back(first)
    job = IngestionJob.objects.get(pk=first.pk)
    assert (job.state, job.rows_removed, job.rows_handed_over) == ("rolled_back", 250, 50)
    assert stored(city) == list(range(250, 310))


def test_a_job_that_loads_meanwhile_keeps_every_row(tmp_path: Path, small_blocks: None) -> None:
    city = mark()
    first = loaded(people(tmp_path, city, range(60)))
    path = people(tmp_path, city, range(90))
    results: list[IngestionJob] = []

    def load() -> None:
        results.append(loaded(path, chunk_rows=5))
        connection.close()

    thread = threading.Thread(target=load)
    thread.start()
    rolled_back(first)
    thread.join()
    assert (results[0].state, stored(city)) == ("done", list(range(90)))


_NUMBERS = st.lists(st.integers(0, 9), min_size=1, max_size=8)
_STEP = st.one_of(st.tuples(st.just("load"), _NUMBERS), st.tuples(st.just("roll back"), st.integers(0, 5)))


@pytest.mark.kills
@settings(max_examples=4)
@given(steps=st.lists(_STEP, min_size=3, max_size=6))
def test_the_table_is_the_union_of_the_kept_jobs(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, "list[int] | int"]]
) -> None:
    city, folder = mark(), tmp_path_factory.mktemp("jobs")
    kept: dict[uuid.UUID, set[int]] = {}
    for what, how in steps:
        if isinstance(how, list):
            kept[loaded(people(folder, city, how)).pk] = set(how)
        elif kept:
            chosen = list(kept)[how % len(kept)]
            roll_back(chosen, now=timezone.now())
            del kept[chosen]
        assert what in ("load", "roll back")
    assert stored(city) == sorted(set().union(*kept.values()))
    owners = {(row["job_id"], int(row["user_id"])) for row in found("city", city, "job_id, user_id")}
    assert all(number in kept[owner] for owner, number in owners)


def test_the_command_asks_for_a_yes(tmp_path: Path) -> None:
    city = mark()
    job = loaded(people(tmp_path, city, range(3)))
    with pytest.raises(CommandError, match="takes the 3 rows") as caught:
        jobs_command(job.pk, "--roll-back")
    assert (caught.value.returncode, len(stored(city))) == (2, 3)
    assert "rolled back" in jobs_command(job.pk, "--roll-back", "--yes", "--reason", "test")
    assert stored(city) == []
