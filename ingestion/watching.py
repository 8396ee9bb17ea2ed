"""Watched folders and buckets: what comes to lie there is given to the workers, each file once, when it stands still.

A local file is taken when size and time of change are the same at two looks; an object appears as a whole. What was taken
is remembered by its path and its stamp, whatever became of its job: a refused file is not tried for ever. A file that changes
is taken again, and what was loaded before, whatever its name, is known by its content to the job.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from django.db import transaction
from django.db.models import F

from config.clickhouse.locks import try_lock, unlock
from config.errors import DomainError
from ingestion import s3
from ingestion.discovery import Place, discover
from ingestion.formats.batches import UnreadableFile
from ingestion.jobs import as_text
from ingestion.models import IngestionJob, WatchedFile, WatchedSource
from ingestion.queueing import QueueFull, enqueue, resume
from ingestion.s3_errors import NoSuchKey
from ingestion.saved_mappings import find_mapping

log = structlog.get_logger(__name__)

SOURCES_MAX = 100
# A look gives at most so many files to the workers; the next look goes on.
TAKEN_A_LOOK_MAX = 500
RESUMED_A_LOOK_MAX = 20
STANDS_STILL = timedelta(seconds=20)
WRITE_BATCH = 2_000
# What Postgres takes into an index, and more than a path has.
PATH_BYTES_MAX = 2_000
REQUESTED_BY = "watched source"


@dataclass(frozen=True)
class Looked:
    """What a look found: files that lie there, those it gave to the workers, those that do not stand still yet."""

    files: int = 0
    taken: int = 0
    waiting: int = 0


def look_at_all(*, now: datetime) -> Looked:
    """Looks at every enabled source, the one that was looked at longest ago first. What goes wrong stands at the source."""
    oldest_first = F("looked_at").asc(nulls_first=True)
    sources = WatchedSource.objects.filter(enabled=True).order_by(oldest_first, "pk")[:SOURCES_MAX]
    found = [look_at(source, now=now) for source in sources]
    return Looked(sum(one.files for one in found), sum(one.taken for one in found), sum(one.waiting for one in found))


def look_at(source: WatchedSource, *, now: datetime) -> Looked:
    """Looks at one source and gives what stands still there to the workers. Another look at the same time makes this one idle.

    Raises nothing of the source's own: what goes wrong there is kept in `error_code` and `error`.
    """
    lock = f"watched-source-{source.pk}"
    if not try_lock(lock):
        return Looked()
    try:
        looked = Looked()
        code = error = ""
        try:
            looked = _look(source, now=now)
        except DomainError as exc:
            code, error = exc.code, exc.message
        except OSError as exc:
            code, error = UnreadableFile.code, f"{source.path} cannot be read: {exc.strerror or exc}."
        if code:
            log.warning("watched_source_failed", source=source.pk, code=code, error=error)
        WatchedSource.objects.filter(pk=source.pk).update(looked_at=now, error_code=code, error=error)
        return looked
    finally:
        unlock(lock)


def _look(source: WatchedSource, *, now: datetime) -> Looked:
    stamps = _stamps(source.path)
    known = {file.path: file for file in source.files.all()}
    gone = [file.pk for path, file in known.items() if path not in stamps]
    for start in range(0, len(gone), WRITE_BATCH):
        WatchedFile.objects.filter(pk__in=gone[start : start + WRITE_BATCH]).delete()
    fresh, changed, ready = [], [], []
    for path, stamp in stamps.items():
        file = known.get(path)
        if file is None:
            file = WatchedFile(watched=source, path=path, stamp=stamp, seen_at=now)
            fresh.append(file)
        elif file.stamp != stamp:
            file.stamp, file.seen_at, file.taken_at, file.job = stamp, now, None, None
            changed.append(file)
        if file.taken_at is None and (s3.is_s3(path) or file.seen_at <= now - STANDS_STILL):
            ready.append(file)
    WatchedFile.objects.bulk_create(fresh, batch_size=WRITE_BATCH)
    WatchedFile.objects.bulk_update(changed, ["stamp", "seen_at", "taken_at", "job"], batch_size=WRITE_BATCH)
    taken = _take(source, ready[:TAKEN_A_LOOK_MAX], now=now)
    _resume(source, now=now)
    waiting = sum(file.taken_at is None for file in known.values() if file.path in stamps)
    return Looked(len(stamps), taken, waiting + sum(file.taken_at is None for file in fresh))


def _stamps(path: str) -> dict[str, str]:
    """The files that lie there now, each with what changes when it does. Raises `UnreadableFile` for no such folder."""
    try:
        places = discover([path]).files
    except NoSuchKey:
        return {}
    if places == [Path(path)] and not any(mark in path for mark in "*?[") and not Path(path).exists():
        raise UnreadableFile(f"There is no folder {path}. Check the path, and whether the worker sees it.")
    return dict(_stamped(places))


def _stamped(places: Iterable[Place]) -> Iterable[tuple[str, str]]:
    for place in places:
        if not isinstance(place, Path):
            yield str(place), f"{place.size} {place.etag}"
            continue
        try:
            found = place.stat()
        except OSError:
            continue  # it went between two looks at it
        text = str(place.resolve())
        if as_text(text) == text and len(text.encode()) <= PATH_BYTES_MAX:
            yield text, f"{found.st_size} {found.st_mtime_ns}"
        else:
            log.warning("watched_file_left_out", path=as_text(text)[:300], reason="its name is not UTF-8, or too long")


def _take(source: WatchedSource, files: list[WatchedFile], *, now: datetime) -> int:
    mapping = find_mapping("", source=source.source) if files else None
    taken = 0
    for file in files:
        # The job and that the file was taken are written together: a look that is killed here loses and doubles nothing.
        with transaction.atomic():
            try:
                file.job = enqueue(
                    path=file.path, now=now, source=source.source, mapping=mapping, requested_by=REQUESTED_BY
                )
            except QueueFull:
                raise
            except DomainError as exc:
                log.warning("watched_file_refused", path=file.path, code=exc.code)
                continue
            file.taken_at = now
            file.save(update_fields=["job", "taken_at"])
        taken += 1
    return taken


def _resume(source: WatchedSource, *, now: datetime) -> None:
    """Jobs of this source that stopped because the store was away go on, now that it has answered."""
    stopped = IngestionJob.objects.filter(
        watched_files__watched=source, state=IngestionJob.State.STOPPED, error_code="SOURCE_AWAY"
    )
    for job in stopped.order_by("created_at")[:RESUMED_A_LOOK_MAX]:
        try:
            resume(job.pk, now=now, actor=REQUESTED_BY)
        except DomainError as exc:
            log.info("watched_job_not_resumed", job=str(job.pk), code=exc.code)
