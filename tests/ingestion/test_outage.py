"""A store goes away or fills up in the middle of a job: the job waits, says so, and goes on by itself or when asked."""

import json
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import psutil
import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.test import override_settings

from config.clickhouse import client as clients
from config.clickhouse.locks import advisory_lock, unlock
from embedded import ports, processes
from embedded.clickhouse_server import ClickHouse
from ingestion import jobs, loader
from ingestion.cancelling import cancel
from ingestion.formats import limits
from ingestion.generator import write
from ingestion.models import IngestionJob
from ingestion.outages import LockLost, StoreFull, trouble_told
from tests.faults.processes import environment_of
from tests.ingestion.files import written
from tests.ingestion.stored import count, counts, loaded, mark

pytestmark = [pytest.mark.kills, pytest.mark.usefixtures("stores", "small_blocks")]


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[ClickHouse]:
    """A ClickHouse that a test may stop, migrated, and the one that the product uses while the test runs."""
    server = ClickHouse(
        tmp_path / "ch", pids=tmp_path / "pids", logs=tmp_path / "logs", port=ports.free_port(), database="outage"
    )
    server.start(dies_with_parent=True)
    clients.forget_clients()
    with override_settings(**server.urls):
        call_command("migrate_clickhouse", verbosity=0)
        yield server
    clients.forget_clients()
    server.stop()


def test_a_job_whose_store_goes_away_stops_and_goes_on_later(tmp_path: Path, own_store: ClickHouse) -> None:
    city = mark()
    text = "id,name,city\n" + "".join(f"{number},Ann {number},{city}\n" for number in range(100))
    path = written(tmp_path, "people.csv", text)

    def stop_after_the_first_chunk(job: IngestionJob) -> None:
        if job.chunks_done == 1:
            own_store.stop()

    with override_settings(INGEST_STORE_WAIT_S=0):
        job = loaded(path, chunk_rows=20, on_progress=stop_after_the_first_chunk)
    assert (job.state, job.error_code) == ("stopped", "TEMPORARILY_UNAVAILABLE")
    assert "data store" in job.error
    read, loaded_rows, duplicates, rejected = counts(job)
    assert (loaded_rows, duplicates, rejected) == (read, 0, 0)
    assert 0 < read < 100

    own_store.start(dies_with_parent=True)
    again = loaded(path)
    assert (again.pk, again.state) == (job.pk, "done")
    assert counts(again) == (100, 100, 0, 0)
    assert count("city = {city:String}", city=city) == 100


def test_a_job_whose_store_is_away_from_the_start_is_resumable(tmp_path: Path, own_store: ClickHouse) -> None:
    path = written(tmp_path, "people.csv", f"id,name\n1,{mark()}\n")
    own_store.stop()
    with override_settings(INGEST_STORE_WAIT_S=0):
        job = loaded(path)
    assert (job.state, counts(job)) == ("stopped", (0, 0, 0, 0))
    own_store.start(dies_with_parent=True)
    again = loaded(path)
    assert (again.pk, again.state, counts(again)) == (job.pk, "done", (1, 1, 0, 0))


def kill(server: ClickHouse) -> None:
    victim = processes.recorded(server.program)
    assert victim is not None
    victim.kill()
    psutil.wait_procs([victim], timeout=10)


def people(folder: Path, city: str) -> Path:
    return written(folder, f"{city}.csv", "id,name,city\n" + "".join(f"{n},Ann {n},{city}\n" for n in range(100)))


def test_a_job_waits_for_a_killed_store_and_goes_on_by_itself(tmp_path: Path, own_store: ClickHouse) -> None:
    city = mark()
    said: list[bool] = []

    def strike(job: IngestionJob) -> None:
        if job.waiting_since is not None:
            said.append(True)
            assert IngestionJob.objects.get(pk=job.pk).waiting_since == job.waiting_since
            if len(said) == 2:
                own_store.start(dies_with_parent=True)
        elif job.chunks_done == 1 and not said:
            kill(own_store)

    job = loaded(people(tmp_path, city), chunk_rows=20, on_progress=strike)
    assert len(said) >= 2
    assert (job.state, job.error_code, job.waiting_since) == ("done", "", None)
    assert counts(job) == (100, 100, 0, 0)
    assert count("city = {city:String}", city=city) == 100
    assert [event.kind for event in job.events.order_by("id")] == ["started", "waiting", "store is back", "done"]


def test_a_store_that_is_killed_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, own_store: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BLOCK_BYTES", 30_000)
    path = tmp_path / "generated.csv"
    write(path, rows=6_000, seed=int(mark()[1:8], 16), dirt=0)
    moments = iter([0.15, 0.4, 0.25])
    timers: list[threading.Timer] = []

    def strike(job: IngestionJob) -> None:
        if job.waiting_since is not None:
            timers[-1].join()
            own_store.start(dies_with_parent=True)
        elif not (timers and timers[-1].is_alive()) and (moment := next(moments, None)):
            timers.append(threading.Timer(moment, kill_again))
            timers[-1].start()

    def kill_again() -> None:
        # The one before may have struck behind the last chunk: then the store is down, and the job has yet to find out.
        if processes.recorded(own_store.program) is not None:
            kill(own_store)

    job = loaded(path, chunk_rows=200, on_progress=strike)
    for timer in timers:
        timer.join()
    if processes.recorded(own_store.program) is None:
        own_store.start(dies_with_parent=True)
    unique = len(set(path.read_text().splitlines()[1:]))
    assert (job.state, counts(job)) == ("done", (6_000, unique, 6_000 - unique, 0))
    assert count("job_id = {job:UUID}", job=str(job.pk)) == unique


def test_a_command_says_that_it_waits_and_that_the_store_is_back(tmp_path: Path, own_store: ClickHouse) -> None:
    path = people(tmp_path, mark())
    own_store.stop()
    err = _Starter(own_store)
    call_command("ingest", str(path), stdout=StringIO(), stderr=err)
    said = err.getvalue()
    assert f"{path.name}: waiting for the store since " in said
    assert f"{path.name}: the store is back; the job goes on." in said


class _Starter(StringIO):
    """An error output that starts the store when it is told that a job waits for it."""

    def __init__(self, server: ClickHouse) -> None:
        super().__init__()
        self._server = server

    def write(self, text: str) -> int:
        written = super().write(text)
        if "waiting" in text:
            self._server.start(dies_with_parent=True)
        return written


def test_a_job_that_waits_for_its_store_can_be_cancelled(tmp_path: Path, own_store: ClickHouse) -> None:
    path = people(tmp_path, mark())
    own_store.stop()
    job = loaded(path, on_progress=lambda job: cancel(job.pk, now=job.created_at) and None)
    assert (job.state, counts(job), job.waiting_since) == ("cancelled", (0, 0, 0, 0), None)


def test_a_full_store_stops_the_job_which_goes_on_when_there_is_room(tmp_path: Path, own_store: ClickHouse) -> None:
    path = people(tmp_path, mark())
    setting = "min_free_disk_bytes_to_perform_insert"
    clients.writer().command(f"ALTER TABLE records MODIFY SETTING {setting} = {2**60}")
    job = loaded(path)
    assert (job.state, job.error_code, counts(job)) == ("stopped", "STORE_FULL", (0, 0, 0, 0))
    assert "Make room" in job.error
    clients.writer().command(f"ALTER TABLE records RESET SETTING {setting}")
    again = loaded(path)
    assert (again.pk, again.state, counts(again)) == (job.pk, "done", (100, 100, 0, 0))


def test_a_store_without_the_room_that_it_keeps_free_is_full() -> None:
    with pytest.raises(StoreFull), trouble_told():
        clients.writer().command(
            f"INSERT INTO records (id) SETTINGS min_free_disk_bytes_to_perform_insert = {2**60} SELECT generateUUIDv4()"
        )


def test_no_room_for_temporary_files_exits_3_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    write(path, rows=2000, seed=1, file_format="parquet")
    packed = subprocess.run(["gzip", "-k", str(path)], check=True, timeout=60)
    assert packed.returncode == 0
    shown = subprocess.run(
        [sys.executable, "manage.py", "ingest", f"{path}.gz", "--json"],
        cwd=Path(__file__).resolve().parents[2],
        env=environment_of({}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
    )
    assert (shown.returncode, json.loads(shown.stdout)[0]["error"]["code"]) == (3, "DISK_FULL")
    assert "TMPDIR" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_job_waits_for_its_turn_to_write_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "LOCK_WAIT_S", 0.05)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with advisory_lock(loader.LOCK, wait_s=20):
            held.set()
            release.wait(20)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    seen: list[bool] = []

    def strike(job: IngestionJob) -> None:
        seen.append(job.waiting_since is not None)
        if seen[-1]:
            release.set()

    with override_settings(INGEST_STORE_WAIT_S=0):
        job = loaded(people(tmp_path, mark()), on_progress=strike)
    thread.join()
    assert (job.state, counts(job), any(seen)) == ("done", (100, 100, 0, 0), True)


def test_a_job_whose_lock_was_lost_writes_nothing_more(tmp_path: Path) -> None:
    seen: list[IngestionJob] = []

    def lose(job: IngestionJob) -> None:
        seen.append(job)
        if job.chunks_done == 1:
            unlock(jobs.job_lock(job))

    with pytest.raises(LockLost):
        loaded(people(tmp_path, mark()), chunk_rows=20, on_progress=lose)
    assert IngestionJob.objects.get(pk=seen[0].pk).chunks_done == 1


def test_a_lost_database_leaves_the_job_at_its_checkpoint_and_exits_3(tmp_path: Path) -> None:
    path = people(tmp_path, mark())

    def lose(job: IngestionJob) -> None:
        if job.chunks_done == 1:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(OperationalError):
        loaded(path, chunk_rows=20, on_progress=lose)
    connection.close()
    again = loaded(path)
    assert (again.state, counts(again)) == ("done", (100, 100, 0, 0))
