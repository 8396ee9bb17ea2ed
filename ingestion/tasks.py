"""What workers do for ingestion: jobs on the queue `ingestion`, and the sweep of CELERY_BEAT_SCHEDULE."""

import mmap
import multiprocessing
import multiprocessing.process
import os
import time
import uuid
from typing import Any

import structlog
from celery.signals import worker_shutting_down
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from config.celery import app
from config.errors import DomainError
from ingestion import queueing, retention, rolling_back, uploads, watching, working
from ingestion.outages import LockLost

log = structlog.get_logger(__name__)

# A job of many hours gives its turn to the next after this, between two chunks; one whose chunk takes longer than the rest of
# the limit fails, and may be resumed. All of it is below the broker's visibility timeout.
TURN_S = 6 * 3600
SOFT_LIMIT_S = 7 * 3600 - 60
LIMIT_S = 7 * 3600

# Shared with the processes that are forked from the worker: the signal to leave reaches the first process alone.
_leaving = mmap.mmap(-1, 1)


@worker_shutting_down.connect
def leave_after_the_chunk(**_arguments: Any) -> None:
    """A worker that is asked to end gives its job back after the chunk that is being loaded."""
    _leaving[0] = 1


@app.task(name=queueing.TASK, queue=queueing.QUEUE, soft_time_limit=SOFT_LIMIT_S, time_limit=LIMIT_S)
def carry_out(job_id: str) -> None:
    """Works on one job; what stops in the middle is taken up where it was."""
    _may_have_children()
    ends_at = time.monotonic() + TURN_S
    try:
        job = working.carry_out(uuid.UUID(job_id), should_stop=lambda: bool(_leaving[0]) or time.monotonic() > ends_at)
    except (OperationalError, InterfaceError, LockLost) as error:
        log.warning("ingestion_job_left", job=job_id, error=type(error).__name__, reason=str(error)[:300])
        return
    if job is not None:
        log.info("ingestion_job", job=job_id, state=job.state, rows_read=job.rows_read, error=job.error_code)


@app.task(name=queueing.ROLL_BACK_TASK, queue=queueing.QUEUE, soft_time_limit=SOFT_LIMIT_S, time_limit=LIMIT_S)
def roll_back(job_id: str) -> None:
    """Rolls one job back; what is interrupted the sweep has done again."""
    try:
        job = rolling_back.roll_back(uuid.UUID(job_id), now=timezone.now())
    except (OperationalError, InterfaceError, DomainError) as error:
        log.warning("ingestion_roll_back_left", job=job_id, error=type(error).__name__, reason=str(error)[:300])
        return
    log.info("ingestion_roll_back", job=job_id, removed=job.rows_removed, handed_over=job.rows_handed_over)


@app.task(name="ingestion.sweep")
def sweep() -> None:
    """Takes up jobs whose message was lost or whose worker is gone."""
    try:
        sent = queueing.sweep(now=timezone.now())
    except OperationalError as error:
        log.warning("ingestion_sweep_left_out", error=type(error).__name__)
        return
    if sent:
        log.info("ingestion_sweep", sent=sent)


@app.task(name=uploads.TASK)
def look_at_upload(upload_id: str) -> None:
    """Looks at one file that an operator brought, then has the next one looked at."""
    try:
        upload = uploads.look_at(uuid.UUID(upload_id))
        if upload is not None:
            log.info("upload_looked_at", upload=upload_id, state=upload.state, error=upload.error_code)
            uploads.send_next()
    except (OperationalError, InterfaceError) as error:
        log.warning("upload_left", upload=upload_id, error=type(error).__name__)


@app.task(name="ingestion.sweep_uploads")
def sweep_uploads() -> None:
    """Takes up uploads whose message was lost, and removes the files that nobody needs any more."""
    try:
        sent = uploads.sweep(now=timezone.now())
        removed = retention.remove_old(now=timezone.now())
    except OperationalError as error:
        log.warning("uploads_sweep_left_out", error=type(error).__name__)
        return
    if sent or removed:
        log.info("uploads_sweep", sent=sent, removed=removed)


@app.task(name="ingestion.look")
def look() -> None:
    """Gives to the workers what came to lie in watched folders and buckets."""
    try:
        looked = watching.look_at_all(now=timezone.now())
    except OperationalError as error:
        log.warning("ingestion_look_left_out", error=type(error).__name__)
        return
    if looked.taken:
        log.info("ingestion_look", files=looked.files, taken=looked.taken, waiting=looked.waiting)


def _may_have_children() -> None:
    """The worker's processes are daemons, which `multiprocessing` denies processes of their own: an engine may need some."""
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way
    config["daemon"] = False
    config["authkey"] = multiprocessing.process.AuthenticationString(os.urandom(32))  # type: ignore[attr-defined]
