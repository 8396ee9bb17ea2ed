"""Ingestion jobs: look at a file, load it chunk by chunk with a checkpoint after each, stop and go on."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from config.clickhouse.client import StoreUnavailable
from config.clickhouse.locks import LockBusy, try_lock, unlock
from ingestion import engines, events
from ingestion.checkpoints import announce, checkpoint, peak_memory_bytes
from ingestion.engines import EngineFailed, Work
from ingestion.formats.batches import EmptyFile, FileChanged, RefusedFile, holds_json
from ingestion.formats.detect import DetectedFormat, detect
from ingestion.formats.disk import DiskFull
from ingestion.formats.encoding import Fingerprint, fingerprint
from ingestion.formats.sql_dump import sql_tables
from ingestion.formats.sqlite_rows import sqlite_tables
from ingestion.mapping import KNOWN_HEADER, Mapping, infer
from ingestion.mapping_documents import MappingDocument
from ingestion.models import DeadLetter, IngestionJob
from ingestion.outages import LockLost, Patience, StopAsked, StoreFull, trouble_told
from ingestion.table_choice import ScoredTable, UnknownTable, chosen, scored

CHUNK_ROWS = 250_000
SAMPLE_ROWS = 2_000
JOBS_LOOKED_AT = 20
_ENDED = (IngestionJob.State.DONE, IngestionJob.State.NEEDS_REVIEW)
_UNFINISHED = (IngestionJob.State.RUNNING, IngestionJob.State.STOPPED, IngestionJob.State.FAILED)

Progress = Callable[[IngestionJob], None]


@dataclass(frozen=True)
class Inspection:
    """What is known of a file before anything is loaded."""

    path: Path
    fingerprint: Fingerprint
    detected: DetectedFormat
    mapping: Mapping
    mapping_name: str = ""
    retry_of: IngestionJob | None = None
    origin: str = ""  # where `path` is a copy of, when it is one
    given_name: str = ""  # how its owner calls it, when it was stored under another name
    tables: tuple[ScoredTable, ...] = ()  # of a dump or database, the best first; `detected` says which is read

    @property
    def shown(self) -> str:
        """The file as its operator knows it."""
        return self.origin or str(self.path)

    @property
    def name(self) -> str:
        """The file's name without what leads to it."""
        return self.given_name or self.origin.rpartition("/")[2] or self.path.name


class NothingToRetry(RefusedFile):
    """There is no such job, or it rejected nothing, or it has not ended."""

    code = "NOTHING_TO_RETRY"


def inspect(
    path: Path,
    *,
    wanted: str = "auto",
    table: str = "",
    sheet: str = "",
    mapping: tuple[str, MappingDocument] | None = None,
) -> Inspection:
    """Fingerprint, format and mapping of a file: the given one by its name, else found out. Loads nothing.

    Of an SQL dump one table is read: the one named `table`, else the best; of a workbook one sheet in the same way.

    Raises `RefusedFile` subclasses, `NothingMappable`, `MappingDoesNotFit`.
    """
    known, detected, tables = identify(path, wanted=wanted, table=table, sheet=sheet)
    name, found = _mapped(path, detected, mapping)
    return Inspection(path, known, detected, found, name, tables=tables)


def identify(
    path: Path, *, wanted: str = "auto", table: str = "", sheet: str = ""
) -> tuple[Fingerprint, DetectedFormat, tuple[ScoredTable, ...]]:
    """What a file is, and of its tables which is read, before its columns are looked at. Raises as `inspect` does."""
    known = _fingerprint(path)
    detected = detect(path, wanted=wanted, not_utf8_at=known.not_utf8_at, known_header=KNOWN_HEADER, sheet=sheet)
    tables: list[ScoredTable] = []
    if detected.sql is not None:
        tables = scored(sql_tables(path, encoding=detected.encoding, dialect=detected.sql))
        sql = replace(detected.sql, table=chosen(tables, wanted=table, path=str(path)).name)
        detected = replace(detected, sql=sql)
    elif detected.format == "sqlite":
        tables = scored(sqlite_tables(path))
        detected = replace(detected, choice=chosen(tables, wanted=table, path=str(path)).name)
    elif table:
        raise UnknownTable(f"{path} is {detected.format}, which has no tables. Leave --table out.")
    return known, detected, tuple(tables)


def retriable(job_id: uuid.UUID) -> IngestionJob:
    """A job whose dead letters can be read again. Raises `NothingToRetry`."""
    job = IngestionJob.objects.filter(pk=job_id).first()
    if job is None or job.state not in _ENDED or not job.rows_rejected:
        raise NothingToRetry(f"There is no job {job_id} that has ended and rejected rows. The admin lists the jobs.")
    return job


def inspect_retry(job: IngestionJob, *, path: Path, mapping: tuple[str, MappingDocument] | None = None) -> Inspection:
    """What it takes to read a job's dead letters again from its file, wherever that lies now. Loads nothing.

    Raises `FileChanged` and what `inspect` raises.
    """
    known = unchanged(job, path)
    detected = DetectedFormat.from_json(job.detected)
    name, found = _mapped(path, detected, mapping)
    return Inspection(path, known, detected, found, name, retry_of=job)


def unchanged(job: IngestionJob, path: Path) -> Fingerprint:
    """The fingerprint of a file that must be the one the job read. Raises `FileChanged`."""
    known = _fingerprint(path)
    if (known.size_bytes, known.sha256) != (job.size_bytes, job.sha256):
        raise FileChanged(
            f"{path} is not the file that job {job.pk} read. Give the path of that file, or load this one anew."
        )
    return known


def inspect_begun(job: IngestionJob, *, path: Path) -> Inspection:
    """What it takes to go on with a job that was begun: as it was found then, if the file is still the same. Loads nothing.

    Raises `FileChanged` and the refusals of a file that cannot be read.
    """
    known = unchanged(job, path)
    return Inspection(
        path, known, DetectedFormat.from_json(job.detected), Mapping.from_json(job.mapping), retry_of=job.retry_of
    )


def known(inspection: Inspection) -> IngestionJob | None:
    """The last job that has loaded the same part of a file of this size and SHA-256 to its end, if there is one."""
    ended = IngestionJob.objects.filter(
        sha256=inspection.fingerprint.sha256,
        size_bytes=inspection.fingerprint.size_bytes,
        state__in=_ENDED,
        retry_of=None,
    )
    part = _part(inspection.detected.as_json())
    return next((job for job in ended[:JOBS_LOOKED_AT] if _part(job.detected) == part), None)


def _part(detected: dict[str, Any]) -> list[Any]:
    """What of a file is read: two tables of one dump are two things to load."""
    return [detected.get(key) or None for key in ("format", "choice", "records", "sql")]


def _fingerprint(path: Path) -> Fingerprint:
    return fingerprint(
        path, unpacked_max=settings.INGEST_UNPACKED_BYTES_MAX, ratio_max=settings.INGEST_UNPACKED_RATIO_MAX
    )


def _mapped(path: Path, detected: DetectedFormat, mapping: tuple[str, MappingDocument] | None) -> tuple[str, Mapping]:
    samples, lists = samples_of(path, detected)
    if mapping is None:
        return "", infer(samples, lists=lists)
    name, document = mapping
    return name, document.applied(samples, lists=lists)


def samples_of(path: Path, detected: DetectedFormat) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The first values of each text column and of each list, from the file's first batch that has rows. Raises `EmptyFile`."""
    columns = detected.dialect.columns if detected.dialect else ()
    seen = False
    for batch in detected.reader(path):
        seen = True
        rows = batch.rows.slice(0, SAMPLE_ROWS)
        if rows.num_rows:
            samples: dict[str, list[str]] = {}
            lists: dict[str, list[str]] = {}
            for place, column in enumerate(rows.schema):
                values = [value or "" for value in rows.column(place).to_pylist()]
                (lists if holds_json(column) else samples).setdefault(column.name, values)
            return samples, lists
    if not seen:
        raise EmptyFile(f"{path} holds no record: there is nothing to load.")
    return {name: [] for name in columns}, {}


def run(
    inspection: Inspection,
    *,
    source: str = "",
    engine: str = "local",
    chunk_rows: int = CHUNK_ROWS,
    on_progress: Progress = lambda job: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> IngestionJob:
    """Loads a file to its end, or until `should_stop` says so between two chunks. Returns the job with its final counts.

    A job of the same file that was interrupted, and that no living process is working on, is taken up where it was. When the
    store goes away, or the engine breaks down, the job is left stopped, with the reason in `error`.

    Raises `EngineUnavailable` before there is a job.
    """
    engines.make_ready(engine)
    job = _resume(inspection, source=source, engine=engine)
    if job is None:
        job = _begin(inspection, source=source, engine=engine, chunk_rows=chunk_rows)
    try:
        work_on(job, inspection, on_progress=on_progress, should_stop=should_stop)
    finally:
        give_back(job)
    return job


def work_on(
    job: IngestionJob,
    inspection: Inspection,
    *,
    on_progress: Progress = lambda job: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Loads what is left of a job's file, as `run` does, for whoever holds the job's lock."""
    try:
        on_progress(job)
        _load(job, inspection, on_progress=on_progress, should_stop=should_stop)
    except (StoreUnavailable, StoreFull, DiskFull, StopAsked, LockBusy, EngineFailed) as exc:
        finish(job, IngestionJob.State.STOPPED, error_code=exc.code, error=exc.message)
    except (OperationalError, InterfaceError, LockLost):
        # Postgres went away, and the job's lock with it: the job stays as its last checkpoint left it.
        raise
    except RefusedFile as exc:
        # It was whole when it was looked at, and is not what it was.
        finish(job, IngestionJob.State.FAILED, error_code=exc.code, error=exc.message)
    except BaseException as exc:
        reason = f"{type(exc).__name__}: {exc}"[:1000].replace("\x00", "")
        finish(job, IngestionJob.State.FAILED, error_code="INTERNAL_ERROR", error=reason)
        raise


def _begin(inspection: Inspection, *, source: str, engine: str, chunk_rows: int) -> IngestionJob:
    now = timezone.now()
    job = IngestionJob(source=source, engine=engine, chunk_rows=chunk_rows, created_at=now)
    describe(job, inspection, now=now)
    # Before the row can be seen: whoever finds a running job whose lock is free may take it up.
    try_lock(job_lock(job))
    job.save(force_insert=True)
    events.note(job, "started")
    return job


def describe(job: IngestionJob, inspection: Inspection, *, now: datetime) -> None:
    """Makes the job that of the inspected file, running from `now` on. Saves nothing."""
    job.source_path = inspection.origin or as_text(inspection.path.resolve())
    job.source_file = as_text(inspection.name)[-255:]
    job.retry_of = inspection.retry_of
    job.size_bytes = inspection.fingerprint.size_bytes
    job.content_bytes = inspection.fingerprint.content_bytes
    job.sha256 = inspection.fingerprint.sha256
    job.format = inspection.detected.format
    job.detected = inspection.detected.as_json()
    job.mapping = inspection.mapping.as_json()
    job.goes_on_at = engines.beginning(job.engine)
    job.state = IngestionJob.State.RUNNING
    job.started_at = now


def as_text(path: Path | str) -> str:
    """A path as text that can be stored, also when its bytes are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _resume(inspection: Inspection, *, source: str, engine: str) -> IngestionJob | None:
    unfinished = IngestionJob.objects.filter(
        sha256=inspection.fingerprint.sha256,
        size_bytes=inspection.fingerprint.size_bytes,
        source=source,
        engine=engine,
        retry_of=inspection.retry_of,
        state__in=_UNFINISHED,
        cancel_requested_at=None,
    ).order_by("created_at")[:20]
    part = _part(inspection.detected.as_json())
    for job in unfinished:
        if _part(job.detected) != part or not try_lock(job_lock(job)):
            continue
        job.refresh_from_db()
        if job.state in _UNFINISHED and job.cancel_requested_at is None:
            take_up(job)
            return job
        unlock(job_lock(job))
    return None


def take_up(job: IngestionJob) -> None:
    """Makes an unfinished job a running one again, for whoever holds its lock."""
    job.state, job.error_code, job.error, job.finished_at = IngestionJob.State.RUNNING, "", "", None
    job.save(update_fields=["state", "error_code", "error", "finished_at"])
    if job.rows_read:
        events.note(job, "taken up", f"{job.rows_read:,} rows had been read.")
    else:
        events.note(job, "started")


def _load(job: IngestionJob, inspection: Inspection, *, on_progress: Progress, should_stop: Callable[[], bool]) -> None:
    path = inspection.path

    def is_to_stop() -> bool:
        return should_stop() or is_cancelled(job)

    begun = time.monotonic()
    patience = Patience(job, lock=job_lock(job), on_progress=on_progress, is_to_stop=is_to_stop)
    work = _work(job, path)
    run = patience.until_done(lambda: engines.begin(job.engine, work))
    stream = run.chunks()
    try:
        while not is_to_stop():
            with trouble_told(), _held_still(inspection):
                chunk = next(stream, None)
            if chunk is None:
                finish(job, _verdict(job))
                return
            at = announce(job)
            waited_s, loading = patience.waited_s, time.monotonic()
            loaded = patience.until_done(partial(run.load, chunk, at=at))
            waited_s = patience.waited_s - waited_s
            chunk.seconds["load"] = time.monotonic() - loading - waited_s
            job.busy_seconds += time.monotonic() - begun - waited_s
            begun = time.monotonic()
            checkpoint(job, chunk, loaded, lock=job_lock(job))
            on_progress(job)
            del chunk  # else it stays in memory while the next but one is made
        finish(job, IngestionJob.State.STOPPED, error_code="STOPPED", error="Stopped on request.")
    finally:
        stream.close()


@contextmanager
def _held_still(inspection: Inspection) -> Iterator[None]:
    """Raises `FileChanged` when the file is another one after what is done inside, whatever that came to."""
    stamp = inspection.fingerprint.stamp
    try:
        yield
    except Exception:
        if stamp is not None:
            stamp.check(inspection.path)
        raise
    if stamp is not None:
        stamp.check(inspection.path)


def _work(job: IngestionJob, path: Path) -> Work:
    only = None
    if job.retry_of_id is not None:
        rows = DeadLetter.objects.filter(job_id=job.retry_of_id).order_by().values_list("row", flat=True)
        only = pa.array(rows.iterator(chunk_size=50_000), pa.int64())
    return Work(
        job_id=job.id,
        source_file=job.source_file,
        path=path,
        is_copy="://" in job.source_path,
        size_bytes=job.size_bytes,
        detected=DetectedFormat.from_json(job.detected),
        mapping=Mapping.from_json(job.mapping),
        chunk_rows=job.chunk_rows,
        chunks_done=job.chunks_done,
        rows_read=job.rows_read,
        goes_on_at=job.goes_on_at,
        only=only,
    )


def is_cancelled(job: IngestionJob) -> bool:
    """Whether somebody, here or elsewhere, wants the job to end."""
    return IngestionJob.objects.filter(pk=job.pk, cancel_requested_at__isnull=False).exists()


def _verdict(job: IngestionJob) -> str:
    over = job.reject_share > settings.REJECT_THRESHOLD
    return IngestionJob.State.NEEDS_REVIEW if over else IngestionJob.State.DONE


def give_back(job: IngestionJob) -> None:
    """Lets go of the job's lock, also where the connection that held it is broken."""
    try:
        unlock(job_lock(job))
    except (OperationalError, InterfaceError):
        connection.close()  # it is lost, and the lock with it


def finish(job: IngestionJob, state: str, *, error_code: str = "", error: str = "") -> None:
    """Ends a job, or this run of it, for whoever holds its lock. What stops and was to be cancelled is cancelled."""
    if state in (IngestionJob.State.STOPPED, IngestionJob.State.FAILED) and is_cancelled(job):
        state = IngestionJob.State.CANCELLED
    job.state, job.error_code, job.error = state, error_code, error
    job.finished_at = timezone.now()
    job.peak_memory_bytes = max(job.peak_memory_bytes, peak_memory_bytes())
    job.save(update_fields=["state", "error_code", "error", "finished_at", "peak_memory_bytes"])
    events.note(job, job.get_state_display(), error)


def job_lock(job: IngestionJob) -> str:
    """The lock that whoever works on the job holds."""
    return f"ingestion-job-{job.id}"
