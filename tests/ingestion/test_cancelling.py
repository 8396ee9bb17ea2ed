"""A job is ended between two chunks, whoever works on it; what it has loaded stays."""

import uuid
from pathlib import Path

import pytest
from django.utils import timezone

from config.errors import NotFound
from ingestion import working
from ingestion.cancelling import NotCancellable, cancel
from ingestion.models import IngestionJob
from ingestion.progress import progress
from tests.ingestion.stored import count, counts, loaded, mark
from tests.ingestion.test_queueing import held_elsewhere, people, queued

pytestmark = pytest.mark.usefixtures("stores")


def test_a_running_job_ends_after_its_chunk_and_keeps_its_rows(tmp_path: Path, small_blocks: None) -> None:
    city = mark()

    def ask(job: IngestionJob) -> None:
        if job.chunks_done == 2:
            cancel(job.pk, now=timezone.now(), actor="ann@example.com")

    job = loaded(people(tmp_path, city, rows=100), chunk_rows=10, on_progress=ask)
    read = counts(job)[0]
    assert (job.state, job.chunks_done) == ("cancelled", 2)
    assert count("city = {city:String}", city=city) == read
    assert progress(job).text == f"cancelled; its {read} loaded rows stay until it is rolled back"
    assert [event.actor for event in job.events.filter(kind="cancel asked for")] == ["ann@example.com"]


def test_a_cancelled_job_is_not_taken_up_by_the_same_command(tmp_path: Path, small_blocks: None) -> None:
    path = people(tmp_path, mark(), rows=100)
    first = loaded(path, chunk_rows=10, on_progress=lambda job: cancel(job.pk, now=timezone.now()) and None)
    assert (first.state, counts(first)) == ("cancelled", (0, 0, 0, 0))
    second = loaded(path)
    assert (second.pk != first.pk, counts(second)) == (True, (100, 100, 0, 0))


def test_a_queued_job_is_cancelled_at_once(tmp_path: Path) -> None:
    job = cancel(queued(people(tmp_path, mark())).pk, now=timezone.now())
    assert job.state == "cancelled"
    assert working.carry_out(job.pk) is None


def test_a_job_that_a_worker_is_about_to_begin_is_cancelled_by_it(tmp_path: Path) -> None:
    job = queued(people(tmp_path, mark()))
    thread, release = held_elsewhere(job)
    assert cancel(job.pk, now=timezone.now()).state == "queued"
    release.set()
    thread.join()
    working.carry_out(job.pk)
    assert IngestionJob.objects.get(pk=job.pk).state == "cancelled"
    assert counts(job) == (0, 0, 0, 0)


def test_a_job_that_has_ended_is_not_cancelled(tmp_path: Path) -> None:
    job = loaded(people(tmp_path, mark()))
    with pytest.raises(NotCancellable, match="is done"):
        cancel(job.pk, now=timezone.now())
    with pytest.raises(NotFound):
        cancel(uuid.uuid4(), now=timezone.now())
