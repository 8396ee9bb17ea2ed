"""Stores that go away or fill up while a job runs: which of it passes by itself, and how long a job waits for that."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from clickhouse_connect.driver.exceptions import DatabaseError
from django.conf import settings
from django.utils import timezone

from config.clickhouse.client import StoreUnavailable
from config.clickhouse.locks import LockBusy, holds
from config.errors import DomainError
from ingestion import events
from ingestion.formats.disk import disk_errors
from ingestion.models import IngestionJob

T = TypeVar("T")

PAUSE_MIN_S = 0.5
PAUSE_MAX_S = 5.0
# How long a job waits for its turn to write: a roll back of a large job takes hours.
WRITER_WAIT_S = 6 * 3600.0
# What ClickHouse says when it has no room: its own code, or the system's words in another one's text.
_FULL_CODE = 243
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "File too large")
# Timeouts, too many queries, parts or bytes of memory, shutting down, replicas out of reach: it may be over in a moment.
_PASSING_CODES = frozenset({159, 202, 209, 210, 236, 241, 242, 252, 285, 319, 394, 999})


class StoreFull(DomainError):
    """507: ClickHouse has no room for more rows. The job can be taken up when it has."""

    status = 507
    code = "STORE_FULL"


class LockLost(DomainError):
    """503: the connection that held the job's lock is gone; another process may work on the job by now."""

    status = 503
    code = "LOCK_LOST"


class StopAsked(DomainError):
    """409: somebody asked for an end while the job waited for its store."""

    status = 409
    code = "STOPPED"


@contextmanager
def trouble_told() -> Iterator[None]:
    """Tells apart what a store says: `StoreUnavailable` may pass, `StoreFull` and `DiskFull` need somebody's help."""
    try:
        with disk_errors():
            yield
    except StoreUnavailable as exc:
        if isinstance(exc.__cause__, DatabaseError) and _is_full(exc.__cause__):
            raise _store_full() from exc
        raise
    except DatabaseError as exc:
        if _is_full(exc):
            raise _store_full() from exc
        if exc.code in _PASSING_CODES:
            raise StoreUnavailable(f"The data store cannot take rows right now ({exc.name or exc.code}).") from exc
        raise


def _is_full(exc: DatabaseError) -> bool:
    return exc.code == _FULL_CODE or any(text in str(exc) for text in _FULL_TEXTS)


def _store_full() -> StoreFull:
    return StoreFull("ClickHouse has no room left on its disk. Make room there, or give it another disk, then go on.")


class Patience:
    """What one job does while its store is away: it asks again, says so, and gives up after INGEST_STORE_WAIT_S."""

    def __init__(
        self,
        job: IngestionJob,
        *,
        lock: str,
        on_progress: Callable[[IngestionJob], None],
        is_to_stop: Callable[[], bool],
    ) -> None:
        self._job, self._lock = job, lock
        self._on_progress, self._is_to_stop = on_progress, is_to_stop
        self._since: float | None = None
        self._pause_s = PAUSE_MIN_S
        self.waited_s = 0.0

    def until_done(self, action: Callable[[], T]) -> T:
        """What `action` returns, tried again while the store is away or the writer's lock taken: one that may be repeated.

        Raises the last `StoreUnavailable` or `LockBusy` after the longest wait, `StopAsked`, `LockLost`, and what else
        `action` raises.
        """
        while True:
            try:
                with trouble_told():
                    result = action()
            except StoreUnavailable as reason:
                self._wait(reason, most_s=settings.INGEST_STORE_WAIT_S)
                continue
            except LockBusy as reason:
                self._wait(reason, most_s=WRITER_WAIT_S)
                continue
            if self._since is not None:
                self._go_on()
            return result

    def _wait(self, reason: StoreUnavailable | LockBusy, *, most_s: float) -> None:
        now = time.monotonic()
        self._insist_on_lock()
        if self._since is None:
            self._since = now
            self._job.waiting_since = timezone.now()
            self._job.save(update_fields=["waiting_since"])
            events.note(self._job, "waiting", reason.message)
        waited_s = now - self._since
        if waited_s >= most_s:
            self._over()
            raise type(reason)(f"{reason.message} It was waited for {waited_s:,.0f} s.") from reason
        if self._is_to_stop():
            self._over()
            raise StopAsked("Stopped on request while it waited for the store.") from reason
        self._on_progress(self._job)
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    def _go_on(self) -> None:
        events.note(self._job, "store is back", f"After {self._over():,.1f} s; the job goes on with the same chunk.")
        self._on_progress(self._job)

    def _over(self) -> float:
        waited_s = time.monotonic() - (self._since or time.monotonic())
        self.waited_s += waited_s
        self._since, self._pause_s = None, PAUSE_MIN_S
        self._job.waiting_since = None
        self._job.save(update_fields=["waiting_since"])
        return waited_s

    def _insist_on_lock(self) -> None:
        if not holds(self._lock):
            raise lock_lost(self._job)


def lock_lost(job: IngestionJob) -> LockLost:
    """That somebody else may work on the job by now."""
    return LockLost(
        f"The connection to PostgreSQL was lost, and with it the lock of job {job.pk}, which is as its last checkpoint left it."
    )
