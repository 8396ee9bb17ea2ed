"""A real worker of the queue `ingestion`: it loads what was queued, and kill -9 of it costs nothing but time."""

import time
from pathlib import Path

import pytest
from django.utils import timezone

from ingestion import working
from ingestion.generator import write
from ingestion.models import IngestionJob
from ingestion.queueing import sweep
from tests.faults.processes import IngestionWorker
from tests.ingestion.stored import count, counts, mark
from tests.ingestion.test_queueing import LONG_AGO, messages, queued

pytestmark = [pytest.mark.kills, pytest.mark.usefixtures("stores")]
SOON_S = 60.0


def wait_until(job: IngestionJob, *, chunks: int = 0, states: tuple[str, ...] = ("running",)) -> IngestionJob:
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        now = IngestionJob.objects.get(pk=job.pk)
        if now.chunks_done >= chunks and now.state in states:
            return now
        time.sleep(0.02)
    raise TimeoutError(f"job {job.pk} is {now.state} after {now.chunks_done} chunks: {now.error}")


def test_a_worker_that_is_killed_or_asked_to_leave_is_followed_by_another(tmp_path: Path) -> None:
    path = tmp_path / "generated.csv"
    write(path, rows=150_000, seed=int(mark()[1:8], 16), dirt=0)
    IngestionJob.objects.filter(state__in=["queued", "running"]).update(state="failed")
    messages()
    job = queued(path, chunk_rows=1)
    worker = IngestionWorker()
    try:
        wait_until(job, chunks=1)
        worker.kill()
        left = wait_until(job)
        assert left.rows_read < 150_000
        worker = IngestionWorker()
        IngestionJob.objects.filter(pk=job.pk).update(sent_at=timezone.now() - LONG_AGO)
        assert sweep(now=timezone.now()) == 1
        wait_until(job, chunks=left.chunks_done + 1)
        assert worker.terminate() == 0
        assert wait_until(job, states=("queued",)).rows_read < 150_000
        working.carry_out(job.pk)
    finally:
        worker.close()
    read, loaded, duplicate, rejected = counts(job)
    assert (read, loaded + duplicate, rejected) == (150_000, 150_000, 0)
    assert loaded == count("job_id = {job:UUID}", job=str(job.pk))
    assert loaded == len(set(path.read_text().splitlines()[1:]))
