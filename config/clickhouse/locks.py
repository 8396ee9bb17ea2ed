"""Advisory locks of Postgres: one holder in the whole installation, released by itself when the holder dies."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from config.errors import DomainError

POLL_S = 0.05


class LockBusy(DomainError):
    """409: another process held the lock for the whole wait."""

    status = 409
    code = "LOCK_BUSY"


def try_lock(name: str) -> bool:
    """Takes the lock called `name` on this thread's connection if it is free; it may be taken again by its holder."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_key(name)])
        return bool(cursor.fetchone()[0])


def unlock(name: str) -> None:
    """Gives the lock back. Harmless when it is not held."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock(%s)", [_key(name)])


def holds(name: str) -> bool:
    """Whether this thread's connection has the lock now; a connection that was lost raises Django's OperationalError."""
    key = _key(name) & 0xFFFF_FFFF_FFFF_FFFF
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted"
            " AND classid::bigint = %s AND objid::bigint = %s AND objsubid = 1)",
            [key >> 32, key & 0xFFFF_FFFF],
        )
        return bool(cursor.fetchone()[0])


@contextmanager
def advisory_lock(name: str, *, wait_s: float) -> Iterator[None]:
    """Holds the lock called `name`; raises `LockBusy` after `wait_s`.

    Polls instead of waiting inside Postgres, where statement and lock timeouts would end the wait with an error.
    """
    deadline = time.monotonic() + wait_s
    while not try_lock(name):
        if time.monotonic() > deadline:
            raise LockBusy(f"Another process has held the lock '{name}' for {wait_s:.0f} s. Try again when it is done.")
        time.sleep(POLL_S)
    try:
        yield
    finally:
        unlock(name)


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
