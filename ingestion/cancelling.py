"""Ending a job before its file ends, whichever process works on it."""

import uuid
from datetime import datetime

from config.clickhouse.locks import try_lock, unlock
from config.errors import DomainError, NotFound
from ingestion import events, jobs
from ingestion.jobs import job_lock
from ingestion.models import IngestionJob

_State = IngestionJob.State
CANCELLABLE = (_State.QUEUED, _State.RUNNING, _State.STOPPED, _State.FAILED)


class NotCancellable(DomainError):
    """409: the job has ended."""

    status = 409
    code = "NOT_CANCELLABLE"


def cancel(job_id: uuid.UUID, *, now: datetime, actor: str = "", reason: str = "") -> IngestionJob:
    """Cancels a job: at once when nobody works on it, else after the chunk that is being loaded.

    Rows that it has loaded stay. Returns the job as it is then: cancelled, or running with `cancel_requested_at`. Raises
    `NotFound`, `NotCancellable`.
    """
    job = IngestionJob.objects.filter(pk=job_id).first()
    if job is None:
        raise NotFound(f"There is no job {job_id}. `manage.py jobs` lists them.")
    asked = IngestionJob.objects.filter(pk=job_id, state__in=CANCELLABLE, cancel_requested_at=None)
    first = asked.update(cancel_requested_at=now)
    job.refresh_from_db()
    if job.state not in CANCELLABLE:
        raise NotCancellable(f"Job {job_id} is {job.get_state_display()}: it cannot be cancelled any more.")
    if first:
        events.note(job, "cancel asked for", reason, actor=actor)
    # The flag stands: whoever has the lock sees it before its next chunk. Whoever takes the lock now must not find it running.
    if try_lock(job_lock(job)):
        try:
            job.refresh_from_db()
            if job.state in CANCELLABLE:
                jobs.finish(job, _State.CANCELLED)
        finally:
            unlock(job_lock(job))
    return job
