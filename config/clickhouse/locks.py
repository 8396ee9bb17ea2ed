"""Advisory locks of Postgres: one holder in the whole installation, released by itself when the holder dies."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import InterfaceError, OperationalError, connection

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
    return _exists(name, "pid = pg_backend_pid()")


def is_held(name: str) -> bool:
    """Whether any process has the lock now."""
    return _exists(name, "database = (SELECT oid FROM pg_database WHERE datname = current_database())")


def _exists(name: str, whose: str) -> bool:
    key = _key(name) & 0xFFFF_FFFF_FFFF_FFFF
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND {whose} AND granted"
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
        try:
            unlock(name)
        except (OperationalError, InterfaceError):
            connection.close()  # it is lost, and the lock with it


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
