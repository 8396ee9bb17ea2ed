"""Jobs for the background: asked for here, kept in Postgres, carried out by a worker of the queue `ingestion`.

The row is the truth, the broker's message only wakes a worker up: one that is lost is sent again by the sweep, one too many
finds the job's lock held or the job ended.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from kombu.exceptions import OperationalError as BrokerError

from config.celery import app
from config.clickhouse.locks import is_held, try_lock, unlock
from config.errors import DomainError, NotFound
from ingestion import events
from ingestion.formats.batches import UnreadableFile
from ingestion.jobs import CHUNK_ROWS, as_text, job_lock
from ingestion.mapping_documents import MappingDocument
from ingestion.models import IngestionJob

log = structlog.get_logger(__name__)

QUEUE = "ingestion"
TASK = "ingestion.carry_out"
ROLL_BACK_TASK = "ingestion.roll_back"
QUEUED_MAX = 100_000
SWEEP_JOBS = 100
_State = IngestionJob.State
RESUMABLE = (_State.STOPPED, _State.FAILED, _State.CANCELLED, _State.REFUSED)
# While no worker is at work a message that brought nothing about was lost; a busy one may come to it later.
RESEND_IDLE = timedelta(seconds=55)
RESEND_BUSY = timedelta(minutes=15)


class QueueFull(DomainError):
    """429: as many jobs wait as may."""

    status = 429
    code = "QUEUE_FULL"


class NotResumable(DomainError):
    """409: the job has ended, waits already, or is being worked on."""

    status = 409
    code = "NOT_RESUMABLE"


@dataclass(frozen=True)
class Request:
    """What was asked for: a job's `request` as it is kept."""

    path: str
    wanted: str = "auto"
    table: str = ""
    sheet: str = ""
    mapping: tuple[str, MappingDocument] | None = None
    again: bool = False
    name: str = ""  # how the file is called, when it was stored under another name

    def as_json(self) -> dict[str, Any]:
        mapping = None if self.mapping is None else {"name": self.mapping[0], "document": self.mapping[1].as_json()}
        return {**{name: getattr(self, name) for name in _PLAIN}, "mapping": mapping}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Request":
        kept = value.get("mapping")
        mapping = None if kept is None else (kept["name"], MappingDocument.from_json(kept["document"]))
        return cls(**{name: value[name] for name in _PLAIN if name in value}, mapping=mapping)


_PLAIN = ("path", "wanted", "table", "sheet", "again", "name")


def enqueue(
    *,
    path: str | Path,
    now: datetime,
    source: str = "",
    wanted: str = "auto",
    table: str = "",
    sheet: str = "",
    mapping: tuple[str, MappingDocument] | None = None,
    again: bool = False,
    retry_of: IngestionJob | None = None,
    engine: str = "local",
    chunk_rows: int = CHUNK_ROWS,
    requested_by: str = "",
    name: str = "",
) -> IngestionJob:
    """Writes a queued job for the file and, once that is committed, tells a worker. Nothing of the file is read here.

    `mapping` is kept as it is now (`find_mapping` gives it). The path must mean the same file to the worker; `name` is how
    the file is called, when that is not what its path says. Raises
    `UnreadableFile` when there is no such file or its name is not UTF-8, `QueueFull`.
    """
    text = as_text(str(path))
    if "://" not in text:
        file = Path(path)
        if text != str(path):
            raise UnreadableFile(f"{text} has a name that is not UTF-8. Rename it, or load it without --background.")
        if not file.is_file():
            raise UnreadableFile(f"{text} is no file that can be read. Check the path.")
        text = str(file.resolve())
    if IngestionJob.objects.filter(state=_State.QUEUED).count() >= QUEUED_MAX:
        raise QueueFull(f"{QUEUED_MAX:,} jobs are waiting already. Cancel some, or wait until they are done.")
    request = Request(text, wanted, table, sheet, mapping, again, name)
    with transaction.atomic():
        job = IngestionJob.objects.create(
            source_path=text,
            source_file=(name or text.rpartition("/")[2])[-255:],
            source=source,
            engine=engine,
            size_bytes=0,
            chunk_rows=chunk_rows,
            retry_of=retry_of,
            state=_State.QUEUED,
            request=request.as_json(),
            requested_by=requested_by,
            created_at=now,
            started_at=now,
            queued_at=now,
            sent_at=now,
        )
        events.note(job, "queued", actor=requested_by)
        transaction.on_commit(lambda: send(job))
    return job


def resume(job_id: uuid.UUID, *, now: datetime, actor: str = "", reason: str = "") -> IngestionJob:
    """Gives a job that was stopped, cancelled, refused or that failed to a worker, to go on where it is.

    Raises `NotFound`, `NotResumable`.
    """
    job = IngestionJob.objects.filter(pk=job_id).first()
    if job is None:
        raise NotFound(f"There is no job {job_id}. `manage.py jobs` lists them.")
    if not try_lock(job_lock(job)):
        raise NotResumable(f"Job {job_id} is being worked on.")
    try:
        job.refresh_from_db()
        if job.state not in RESUMABLE:
            raise NotResumable(f"Job {job_id} is {job.get_state_display()}: there is nothing to go on with.")
        job.cancel_requested_at = None
        job.save(update_fields=["cancel_requested_at"])
        queue_again(job, now=now, actor=actor, reason=reason)
    finally:
        unlock(job_lock(job))
    send(job)
    return job


def queue_again(job: IngestionJob, *, now: datetime, actor: str = "", reason: str = "") -> None:
    """Makes an unfinished job a queued one, for whoever holds its lock; once that is given back, `send` it."""
    if job.request is None:
        job.request = Request(job.source_path, again=True).as_json()
    job.state, job.error_code, job.error, job.finished_at = _State.QUEUED, "", "", None
    job.queued_at = job.sent_at = now
    job.attempts = 0
    fields = ["request", "state", "error_code", "error", "finished_at", "queued_at", "sent_at", "attempts"]
    job.save(update_fields=fields)
    events.note(job, "queued", f"To go on after {job.rows_read:,} rows. {reason}".strip(), actor=actor)


def send(job: IngestionJob) -> bool:
    """Tells a worker of the job; False when the broker is away: then the sweep does it."""
    task = ROLL_BACK_TASK if job.state == _State.ROLLING_BACK else TASK
    try:
        app.send_task(task, args=[str(job.id)], queue=QUEUE, expires=2 * RESEND_BUSY.total_seconds())
    except BrokerError as error:
        log.warning("ingestion_message_not_sent", job=str(job.id), error=type(error).__name__)
        return False
    return True


def sweep(*, now: datetime) -> int:
    """Sends again what was lost: queued jobs nobody came to, those at work whose worker is gone. Returns how many.

    At most SWEEP_JOBS at once, the oldest first.
    """
    waiting = IngestionJob.objects.filter(request__isnull=False).order_by("queued_at")
    at_work = Q(state=_State.RUNNING, request__isnull=False) | Q(state=_State.ROLLING_BACK)
    running = IngestionJob.objects.filter(at_work).order_by("created_at")[:SWEEP_JOBS]
    orphans = [job for job in running if not is_held(job_lock(job))]
    busy = len(running) > len(orphans)
    lost = [job for job in orphans if job.sent_at is None or job.sent_at <= now - RESEND_IDLE]
    before = now - (RESEND_BUSY if busy else RESEND_IDLE)
    lost += waiting.filter(state=_State.QUEUED, sent_at__lte=before)[: SWEEP_JOBS - len(lost)]
    sent = 0
    for job in lost:
        if not send(job):
            break
        IngestionJob.objects.filter(pk=job.pk).update(sent_at=now)
        sent += 1
    return sent


def attempts_max() -> int:
    """How often a job is taken up without getting a chunk further."""
    return int(settings.INGEST_ATTEMPTS_MAX)
