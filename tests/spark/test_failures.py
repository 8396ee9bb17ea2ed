"""Spark when something dies: the driver, an executor's process, Java. Nothing is loaded twice and nothing is lost."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC
from pathlib import Path

import psutil
import pytest
from django.conf import LazySettings
from django.db import connection

from config.clickhouse.locks import advisory_lock
from ingestion import jobs
from ingestion.engines import EngineUnavailable, spark_session
from ingestion.loader import LOCK
from ingestion.models import DeadLetter, IngestionJob
from tests.ingestion.files import written
from tests.ingestion.stored import count, counts, found, mark
from tests.ingestion.test_ingest_command import ingest, process, wait_for_rows
from tests.spark.conftest import PART_BYTES

pytestmark = [pytest.mark.spark, pytest.mark.timeout(300), pytest.mark.usefixtures("stores", "spark")]


def people(city: str, rows: int) -> str:
    """As many rows as asked for, every tenth a repetition, and one that is broken at the end."""
    numbers = [number - 5 if number % 10 == 9 else number for number in range(rows)]
    return "id,name,city\n" + "".join(f"{number},Ann {number},{city}\n" for number in numbers) + "broken\n"


def test_the_command_says_which_engine_worked(tmp_path: Path) -> None:
    city = mark()
    code, out, _ = ingest(written(tmp_path, "a.csv", f"id,name,city\n1,Ann,{city}\n"), "--engine", "spark", "--json")
    (answer,) = json.loads(out)
    assert (code, answer["engine"], answer["state"], answer["loaded"]) == (0, "spark", "done", 1)
    assert set(answer["stage_seconds"]) == {"read", "normalise", "load"}


def test_a_killed_driver_leaves_a_job_that_goes_on_and_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    city = mark()
    path = written(tmp_path, "a.csv", people(city, 8_000))
    monkeypatch.setenv("SPARK_PART_BYTES", str(PART_BYTES))
    running = process(path, "--engine", "spark", "--chunk-rows", "500")
    wait_for_rows(path, 0, running)
    started = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGKILL)
    running.wait(timeout=30)
    assert 0 < IngestionJob.objects.get(source_path=str(path)).rows_read < 8_001
    (answer,) = json.loads(ingest(path, "--engine", "spark", "--json")[1])
    assert (answer["read"], answer["loaded"], answer["duplicates"], answer["rejected"]) == (8_001, 7_200, 800, 1)
    assert IngestionJob.objects.filter(source_path=str(path)).count() == 1
    assert count("city = {city:String}", city=city) == 7_200
    assert len(started) > 1
    assert psutil.wait_procs(started, timeout=30)[1] == []


def test_an_attempt_that_died_before_its_checkpoint_is_repeated_exactly(tmp_path: Path) -> None:
    city = mark()
    path = written(tmp_path, "a.csv", people(city, 3_000))
    seen: list[int] = []
    job = jobs.run(
        jobs.inspect(path),
        engine="spark",
        chunk_rows=500,
        on_progress=lambda job: seen.append(job.rows_read),
        should_stop=lambda: len(seen) > 1,
    )
    first_chunk = counts(job)
    # What kill -9 leaves between the insert and the checkpoint: rows in the store, nothing of them in the job.
    at = found("city", city, "ingested_at")[0]["ingested_at"].replace(tzinfo=UTC)
    begun = {name: value for name, value in job.goes_on_at.items() if name != "place"}
    IngestionJob.objects.filter(pk=job.pk).update(
        state="running", rows_read=0, rows_loaded=0, rows_duplicate=0, chunks_done=0, chunk_at=at, goes_on_at=begun
    )
    assert count("city = {city:String}", city=city) == first_chunk[1]
    again = jobs.run(jobs.inspect(path), engine="spark")
    assert (again.pk, counts(again)) == (job.pk, (3_001, 2_700, 300, 1))
    assert list(DeadLetter.objects.filter(job=job).values_list("row", "raw")) == [(3_001, "broken")]
    assert count("city = {city:String}", city=city) == 2_700


@contextmanager
def writer_held() -> Iterator[None]:
    """Nobody can load anything meanwhile: whatever executors do, they are in the middle of it."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with advisory_lock(LOCK, wait_s=60):
            held.set()
            release.wait(60)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    try:
        yield
    finally:
        release.set()
        thread.join()


def executors() -> list[psutil.Process]:
    """The Python processes of this test's Spark, those that run tasks."""
    python = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            if "pyspark.daemon" in child.cmdline():
                python.append(child)
    return [child for child in python if child.ppid() in {process.pid for process in python}]


def test_tasks_whose_process_is_killed_are_tried_again_and_load_nothing_twice(tmp_path: Path) -> None:
    city = mark()
    path = written(tmp_path, "a.csv", people(city, 3_000))
    ended: list[IngestionJob] = []

    def work() -> None:
        ended.append(jobs.run(jobs.inspect(path), engine="spark", chunk_rows=500))
        connection.close()

    thread = threading.Thread(target=work)
    with writer_held():
        thread.start()
        deadline = time.monotonic() + 60
        while not IngestionJob.objects.filter(source_path=str(path), chunk_at__isnull=False).exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1)
        killed = executors()
        for executor in killed:
            os.kill(executor.pid, signal.SIGKILL)
    thread.join(120)
    assert killed
    assert counts(ended[0]) == (3_001, 2_700, 300, 1)
    assert count("city = {city:String}", city=city) == 2_700


def test_a_stop_between_two_chunks_is_taken_up(tmp_path: Path) -> None:
    city = mark()
    path = written(tmp_path, "a.csv", people(city, 3_000))
    seen: list[int] = []
    job = jobs.run(
        jobs.inspect(path),
        engine="spark",
        chunk_rows=500,
        on_progress=lambda job: seen.append(job.rows_read),
        should_stop=lambda: len(seen) > 2,
    )
    assert (job.state, job.error_code) == ("stopped", "STOPPED")
    assert 0 < job.rows_read < 3_001
    again = jobs.run(jobs.inspect(path), engine="spark")
    assert (again.pk, counts(again)) == (job.pk, (3_001, 2_700, 300, 1))


def test_a_file_that_became_another_while_it_was_loaded_is_not_read_on(tmp_path: Path) -> None:
    city = mark()
    path = written(tmp_path, "a.csv", people(city, 3_000))
    inspection = jobs.inspect(path)
    path.write_text("id,name,city\n")
    job = jobs.run(inspection, engine="spark")
    assert (job.state, job.error_code, counts(job)) == ("failed", "FILE_CHANGED", (0, 0, 0, 0))
    assert count("city = {city:String}", city=city) == 0


def test_without_java_it_says_what_to_install_and_exits_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    spark_session.end()
    path = written(tmp_path, "a.csv", f"id,name\n1,{mark()}\n")
    code, _, err = ingest(path, "--engine", "spark")
    assert code == 2
    assert err.startswith("ENGINE_UNAVAILABLE:")
    assert "openjdk-17-jre-headless" in err
    assert not IngestionJob.objects.filter(source_path=str(path)).exists()


def test_a_master_that_is_none_is_refused(settings: LazySettings) -> None:
    spark_session.end()
    settings.SPARK_MASTER = "nowhere"
    with pytest.raises(EngineUnavailable, match="SPARK_MASTER"):
        spark_session.session()


def test_executors_that_cannot_work_are_found_out_before_there_is_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spark_session.end()
    monkeypatch.setenv("PYSPARK_PYTHON", str(Path(sys.base_prefix) / "bin" / "python3"))  # has none of the libraries
    path = written(tmp_path, "a.csv", f"id,name\n1,{mark()}\n")
    code, _, err = ingest(path, "--engine", "spark")
    assert code == 2
    assert "Spark's executors cannot work for Meterhouse" in err
    assert "ModuleNotFoundError" in err
    assert not IngestionJob.objects.filter(source_path=str(path)).exists()
