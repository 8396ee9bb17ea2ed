"""Jobs for the background: queued, taken up, refused, skipped, given back."""

import threading
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from kombu import Queue

from config.celery import app
from config.clickhouse.locks import try_lock, unlock
from ingestion import jobs, queueing, working
from ingestion.formats.batches import UnreadableFile
from ingestion.mapping_documents import MappingDocument
from ingestion.models import IngestionJob
from ingestion.queueing import NotResumable, QueueFull, enqueue, resume, sweep
from tests.ingestion.files import written
from tests.ingestion.stored import count, counts, found, loaded, mark

pytestmark = pytest.mark.usefixtures("stores")
LONG_AGO = timedelta(hours=1)


def people(folder: Path, city: str, rows: int = 3) -> Path:
    text = "id,name,city\n" + "".join(f"{number},Ann {number},{city}\n" for number in range(rows))
    return written(folder, f"{city}.csv", text)


def queued(path: Path, **options: Any) -> IngestionJob:
    return enqueue(path=path, now=timezone.now(), **options)


def carried_out(job: IngestionJob, **options: Any) -> IngestionJob:
    done = working.carry_out(job.pk, **options)
    assert done is not None
    return IngestionJob.objects.get(pk=job.pk)


def messages() -> list[str]:
    """The jobs that the broker's messages name; it keeps none afterwards."""
    named = []
    with app.connection_for_write() as broker:
        queue = Queue(queueing.QUEUE, channel=broker.default_channel)
        while (message := queue.get(no_ack=True)) is not None:
            named.append(message.payload[0][0])
    return named


def held_elsewhere(job: IngestionJob) -> tuple[threading.Thread, threading.Event]:
    """Another process' lock on the job; set the event to give it back, then join."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        try_lock(jobs.job_lock(job))
        held.set()
        release.wait(20)
        unlock(jobs.job_lock(job))
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    return thread, release


def test_enqueue_writes_the_job_and_tells_a_worker(tmp_path: Path) -> None:
    messages()
    path = people(tmp_path, mark())
    job = queued(path, source="crm", requested_by="ann@example.com")
    assert messages() == [str(job.pk)]
    job.refresh_from_db()
    assert (job.state, job.source_path, job.source, job.requested_by) == ("queued", str(path), "crm", "ann@example.com")
    assert [(event.kind, event.actor) for event in job.events.all()] == [("queued", "ann@example.com")]


def test_a_queued_job_is_loaded_like_any_other(tmp_path: Path) -> None:
    city = mark()
    job = carried_out(queued(people(tmp_path, city)))
    assert (job.state, counts(job), job.format, job.attempts) == ("done", (3, 3, 0, 0), "csv", 0)
    assert count("city = {city:String} AND job_id = {job:UUID}", city=city, job=str(job.pk)) == 3
    assert [event.kind for event in job.events.order_by("id")] == ["queued", "started", "done"]


def test_a_queued_job_keeps_the_mapping_it_was_given(tmp_path: Path) -> None:
    city = mark()
    path = written(tmp_path, "a.csv", f"id,town,who\n1,{city},Ann\n")
    carried_out(queued(path, mapping=("edited", MappingDocument({"id": "user_id", "town": "city", "who": None}))))
    (row,) = found("city", city)
    assert (row["user_id"], row["name"], row["metadata"]) == ("1", "", '{"who":"Ann"}')


def test_a_file_that_is_not_there_is_not_queued(tmp_path: Path) -> None:
    before = IngestionJob.objects.count()
    with pytest.raises(UnreadableFile, match="is no file"):
        queued(tmp_path / "none.csv")
    assert IngestionJob.objects.count() == before


def test_a_full_queue_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queueing, "QUEUED_MAX", 0)
    with pytest.raises(QueueFull):
        queued(people(tmp_path, mark()))


def test_a_queued_file_that_cannot_be_read_ends_refused(tmp_path: Path) -> None:
    job = carried_out(queued(written(tmp_path, "page.html", "<!doctype html><p>hi")))
    assert (job.state, job.error_code, counts(job)) == ("refused", "UNKNOWN_FORMAT", (0, 0, 0, 0))


def test_a_queued_file_that_is_known_ends_skipped(tmp_path: Path) -> None:
    path = people(tmp_path, mark())
    first = loaded(path)
    job = carried_out(queued(path))
    assert (job.state, job.error_code, counts(job)) == ("skipped", "KNOWN_FILE", (0, 0, 0, 0))
    assert str(first.pk) in job.error
    assert counts(carried_out(queued(path, again=True))) == (3, 0, 3, 0)


def test_a_skipped_job_does_not_make_its_file_known(tmp_path: Path) -> None:
    path = people(tmp_path, mark())
    first = loaded(path)
    carried_out(queued(path))
    IngestionJob.objects.filter(pk=first.pk).update(state="rolled_back")
    assert jobs.known(jobs.inspect(path)) is None


def test_rejected_rows_are_read_again_in_the_background(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", f"id,name\n1,{mark()}\n,\n")
    first = loaded(path)
    job = carried_out(queued(path, retry_of=first))
    assert (job.retry_of_id, counts(job)) == (first.pk, (1, 0, 0, 1))


def test_a_job_that_is_told_to_stop_is_queued_again_and_goes_on(tmp_path: Path, small_blocks: None) -> None:
    city = mark()
    job = queued(people(tmp_path, city, rows=100), chunk_rows=20)
    messages()
    turns = iter([False, False, True])
    stopped = carried_out(job, should_stop=lambda: next(turns))
    assert (stopped.state, stopped.error_code) == ("queued", "")
    assert 0 < stopped.rows_read < 100
    assert messages() == [str(job.pk)]
    assert carried_out(job).state == "done"
    assert counts(job) == (100, 100, 0, 0)
    assert count("city = {city:String}", city=city) == 100


def test_a_job_whose_file_has_changed_since_is_not_gone_on_with(tmp_path: Path, small_blocks: None) -> None:
    path = people(tmp_path, mark(), rows=100)
    job = queued(path, chunk_rows=20)
    turns = iter([False, False, True])
    carried_out(job, should_stop=lambda: next(turns))
    path.write_text(path.read_text() + "7,Bo,x\n")
    changed = carried_out(job)
    assert (changed.state, changed.error_code) == ("stopped", "FILE_CHANGED")


def test_a_job_that_another_process_works_on_is_left_alone(tmp_path: Path) -> None:
    job = queued(people(tmp_path, mark()))
    thread, release = held_elsewhere(job)
    assert working.carry_out(job.pk) is None
    release.set()
    thread.join()
    assert IngestionJob.objects.get(pk=job.pk).state == "queued"


def test_a_job_that_has_ended_is_not_carried_out_again(tmp_path: Path) -> None:
    job = carried_out(queued(people(tmp_path, mark())))
    assert working.carry_out(job.pk) is None
    assert working.carry_out(uuid.uuid4()) is None


def test_a_job_of_the_command_line_is_no_workers(tmp_path: Path) -> None:
    job = loaded(people(tmp_path, mark()))
    IngestionJob.objects.filter(pk=job.pk).update(state="running")
    assert working.carry_out(job.pk) is None


def test_a_job_that_ends_its_worker_again_and_again_fails(tmp_path: Path) -> None:
    job = queued(people(tmp_path, mark()))
    IngestionJob.objects.filter(pk=job.pk).update(state="running", attempts=3)
    with override_settings(INGEST_ATTEMPTS_MAX=3):
        failed = carried_out(job)
    assert (failed.state, failed.error_code) == ("failed", "ATTEMPTS_SPENT")


def _set(job: IngestionJob, state: str, sent_at: datetime) -> None:
    IngestionJob.objects.exclude(pk=job.pk).filter(state__in=["queued", "running", "rolling_back"]).update(
        state="failed"
    )
    IngestionJob.objects.filter(pk=job.pk).update(state=state, sent_at=sent_at)


@pytest.mark.parametrize("state", ["queued", "running", "rolling_back"])
def test_the_sweep_sends_again_what_nobody_came_to(tmp_path: Path, state: str) -> None:
    job, now = queued(people(tmp_path, mark())), timezone.now()
    _set(job, state, now - LONG_AGO)
    messages()
    assert sweep(now=now) == 1
    assert messages() == [str(job.pk)]
    assert sweep(now=now + timedelta(seconds=30)) == 0


def test_the_sweep_leaves_a_job_that_is_worked_on(tmp_path: Path) -> None:
    job, now = queued(people(tmp_path, mark())), timezone.now()
    _set(job, "running", now - LONG_AGO)
    messages()
    thread, release = held_elsewhere(job)
    sent = sweep(now=now)
    release.set()
    thread.join()
    assert (sent, messages()) == (0, [])


def test_a_failed_job_goes_on_when_somebody_says_so(tmp_path: Path) -> None:
    job = queued(people(tmp_path, mark()))
    IngestionJob.objects.filter(pk=job.pk).update(state="failed", error_code="ATTEMPTS_SPENT", attempts=5)
    resume(job.pk, now=timezone.now(), actor="ann@example.com")
    again = carried_out(job)
    assert (again.state, again.error_code, counts(job)) == ("done", "", (3, 3, 0, 0))


def test_a_job_that_has_ended_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(NotResumable, match="is done"):
        resume(loaded(people(tmp_path, mark())).pk, now=timezone.now())
