"""What a background worker does with a job: take it up under its lock, look at the file, load it, say how it ended."""

import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from django.utils import timezone

from config.clickhouse.locks import try_lock
from config.errors import DomainError
from ingestion import engines, jobs, queueing, reports
from ingestion.discovery import local_file, origin_of, place_of, speaking_of
from ingestion.formats.disk import DiskFull
from ingestion.jobs import Inspection, job_lock
from ingestion.models import IngestionJob
from ingestion.s3_errors import SourceAway, Stopped

_State = IngestionJob.State


def carry_out(job_id: uuid.UUID, *, should_stop: Callable[[], bool] = lambda: False) -> IngestionJob | None:
    """Works on a queued job, or on one whose worker is gone, to its end or until `should_stop`; then it is queued again.

    Returns the job, None when there is nothing to do: another process has it, or it has ended.
    """
    job = IngestionJob.objects.filter(pk=job_id).first()
    if job is None or not try_lock(job_lock(job)):
        return None
    try:
        job.refresh_from_db()
        if job.request is None or job.state not in (_State.QUEUED, _State.RUNNING):
            return None
        _carry_out(job, should_stop=should_stop)
    finally:
        jobs.give_back(job)
    if job.state == _State.QUEUED:
        queueing.send(job)
    return job


def _carry_out(job: IngestionJob, *, should_stop: Callable[[], bool]) -> None:
    if job.cancel_requested_at is not None:
        jobs.finish(job, _State.CANCELLED)
        return
    most = queueing.attempts_max()
    if job.attempts >= most:
        reason = f"Its worker ended {most} times without getting a chunk further. See the worker's log and its memory."
        jobs.finish(job, _State.FAILED, error_code="ATTEMPTS_SPENT", error=reason)
        return
    job.attempts += 1
    job.save(update_fields=["attempts"])
    jobs.take_up(job)
    with ExitStack() as copies:
        try:
            engines.make_ready(job.engine)
            request = queueing.Request.from_json(job.request or {})
            place, given_name = place_of(request.path), request.name
            path = copies.enter_context(local_file(place, should_stop=should_stop))
            with speaking_of(given_name or place, path):
                found = replace(_inspected(job, path), origin=origin_of(place), given_name=given_name)
        except Stopped:
            queueing.queue_again(job, now=timezone.now())
            return
        except DomainError as exc:
            state = _State.STOPPED if job.sha256 or isinstance(exc, SourceAway | DiskFull) else _State.REFUSED
            jobs.finish(job, state, error_code=exc.code, error=exc.message)
            return
        _load(job, found, should_stop=should_stop)


def _load(job: IngestionJob, found: Inspection, *, should_stop: Callable[[], bool]) -> None:
    request = queueing.Request.from_json(job.request or {})
    if not job.sha256:
        known = None if request.again or found.retry_of is not None else jobs.known(found)
        jobs.describe(job, found, now=timezone.now())
        if known is not None:
            job.save()
            jobs.finish(job, _State.SKIPPED, error_code="KNOWN_FILE", error=reports.known_line(found, known))
            return
        job.save()
    jobs.work_on(job, found, should_stop=should_stop)
    if job.state == _State.STOPPED and job.error_code == "STOPPED":
        queueing.queue_again(job, now=timezone.now())


def _inspected(job: IngestionJob, path: Path) -> Inspection:
    """The file as the request says, or as the job began it: then it must be the same file still."""
    request = queueing.Request.from_json(job.request or {})
    if job.sha256:
        found = jobs.inspect_begun(job, path=path)
    elif job.retry_of is not None:
        found = jobs.inspect_retry(job.retry_of, path=path, mapping=request.mapping)
    else:
        found = jobs.inspect(
            path, wanted=request.wanted, table=request.table, sheet=request.sheet, mapping=request.mapping
        )
    return found
