"""Rolling a job back: its rows go, those that another kept job delivered as well stay and become that job's."""

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime

from config.clickhouse import data_version
from config.clickhouse.client import store_errors
from config.clickhouse.locks import advisory_lock, holds, try_lock
from config.errors import DomainError, NotFound
from ingestion import events, jobs, loader, queueing, removal
from ingestion.jobs import job_lock
from ingestion.models import IngestionJob
from ingestion.outages import lock_lost, trouble_told

_State = IngestionJob.State
ROLLABLE = (_State.DONE, _State.NEEDS_REVIEW, _State.STOPPED, _State.FAILED, _State.CANCELLED, _State.ROLLING_BACK)
WRITER_WAIT_S = 900.0


class NotRollable(DomainError):
    """409: the job is at work, or has nothing that could be rolled back."""

    status = 409
    code = "NOT_ROLLABLE"


def roll_back(
    job_id: uuid.UUID,
    *,
    now: datetime,
    actor: str = "",
    reason: str = "",
    on_progress: Callable[[IngestionJob], None] = lambda job: None,
) -> IngestionJob:
    """Takes a job's rows out of the store again. Its dead letters and counts stay; its file is not known any more.

    Interrupted at any moment it leaves the job *rolling back*: doing it again ends it. Other jobs wait with their next chunk.
    Raises `NotFound`, `NotRollable`, `LockBusy`, `LockLost`, `StoreUnavailable`, `StoreFull`.
    """
    job = IngestionJob.objects.filter(pk=job_id).first()
    if job is None:
        raise NotFound(f"There is no job {job_id}. `manage.py jobs` lists them.")
    if not try_lock(job_lock(job)):
        raise NotRollable(f"Job {job_id} is being worked on. Cancel it first.")
    try:
        job.refresh_from_db()
        _insist(job)
        with trouble_told(), advisory_lock(loader.LOCK, wait_s=WRITER_WAIT_S), store_errors():
            loader.wait_for_writes_in_flight()
            _begin(job, actor=actor, reason=reason)
            on_progress(job)
            _hand_over(job, on_progress=on_progress)
            _insist_on_locks(job)
            removal.remove(job.pk)
        data_version.raise_version()
        _end(job, now=now, actor=actor)
        return job
    finally:
        jobs.give_back(job)


def request_roll_back(job_id: uuid.UUID, *, now: datetime, actor: str = "", reason: str = "") -> IngestionJob:
    """Has a worker roll the job back, with `roll_back`; until then it is *rolling back* and nobody can go on with it.

    Raises `NotFound`, `NotRollable`.
    """
    job = IngestionJob.objects.filter(pk=job_id).first()
    if job is None:
        raise NotFound(f"There is no job {job_id}. `manage.py jobs` lists them.")
    if not try_lock(job_lock(job)):
        raise NotRollable(f"Job {job_id} is being worked on. Cancel it first.")
    try:
        job.refresh_from_db()
        _insist(job)
        job.state, job.sent_at = _State.ROLLING_BACK, now
        job.save(update_fields=["state", "sent_at"])
        events.note(job, "roll back asked for", reason, actor=actor)
    finally:
        jobs.give_back(job)
    queueing.send(job)
    return job


def _insist(job: IngestionJob) -> None:
    if job.state in ROLLABLE:
        return
    if job.state in (_State.QUEUED, _State.RUNNING):
        raise NotRollable(f"Job {job.pk} is {job.get_state_display()}. Cancel it first, then roll it back.")
    raise NotRollable(f"Job {job.pk} is {job.get_state_display()}: it has no rows to roll back.")


def _begin(job: IngestionJob, *, actor: str, reason: str) -> None:
    if job.state != _State.ROLLING_BACK or job.roll_back is None:
        rows = removal.count_rows(job.pk)
        job.roll_back = {"rows": rows, "parts": rows // removal.PART_ROWS + 1, "handed_over": {}}
        job.state = _State.ROLLING_BACK
        job.save(update_fields=["roll_back", "state"])
        events.note(job, "roll back", reason, actor=actor)
    else:
        events.note(job, "roll back", "Taken up again.", actor=actor)


def _hand_over(job: IngestionJob, *, on_progress: Callable[[IngestionJob], None]) -> None:
    plan = job.roll_back or {}
    counted: dict[str, int] = plan["handed_over"]
    # All parts, also those that an interrupted attempt had done: other jobs may have delivered some of the rows since.
    for part in range(plan["parts"]):
        _insist_on_locks(job)
        if str(part) in counted:
            removal.forget(job.pk, part=part)
        rows = removal.hand_over(job.pk, part=part, of=plan["parts"], names=_file_names)
        counted[str(part)] = counted.get(str(part), 0) + rows
        job.save(update_fields=["roll_back"])
        # Only now: by what it had noted an interrupted attempt counts.
        removal.forget(job.pk, part=part)
        on_progress(job)


def _insist_on_locks(job: IngestionJob) -> None:
    if not (holds(job_lock(job)) and holds(loader.LOCK)):
        raise lock_lost(job)


def _file_names(job_ids: list[uuid.UUID]) -> Mapping[uuid.UUID, str]:
    return dict(IngestionJob.objects.filter(pk__in=job_ids).values_list("pk", "source_file"))


def _end(job: IngestionJob, *, now: datetime, actor: str) -> None:
    plan = job.roll_back or {"rows": 0, "handed_over": {}}
    handed_over = sum(plan["handed_over"].values())
    job.rows_handed_over, job.rows_removed = handed_over, plan["rows"] - handed_over
    job.roll_back, job.state, job.finished_at = None, _State.ROLLED_BACK, now
    job.error_code = job.error = ""
    job.save(
        update_fields=["rows_handed_over", "rows_removed", "roll_back", "state", "finished_at", "error_code", "error"]
    )
    kept = f"; {handed_over:,} stay, for other jobs delivered them too" if handed_over else ""
    events.note(job, job.get_state_display(), f"{job.rows_removed:,} rows were removed{kept}.", actor=actor)
