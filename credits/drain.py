"""The drain: moves the journal into the ledger and the usage log, applies what Redis has to learn, sweeps old holds.

Any number of drains may run; what they do twice changes nothing. Each store that is away is waited for, and the others'
work goes on meanwhile.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from accounts import key_state, revocation
from config.clickhouse.client import StoreUnavailable
from config.redis import PARTITIONS, RedisUnavailable
from credits import counters, decreases, ledger, loading, services, usage
from credits.drain_figures import DrainLog

log = structlog.get_logger(__name__)

ALL_PARTITIONS = tuple(range(PARTITIONS))
IDLE_S = 0.05
SWEEP_EVERY_S = 1.0
APPLY_EVERY_S = 1.0
BACK_OFF_S = 0.5
EVENTS_PER_PASS = 1000
SWEEP_MAX = 100
PASSES_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain did: ledger entries written, events copied to the usage log."""

    entries: int
    usage_events: int


def drain_once() -> Drained:
    """Drains until both consumers stand at the journals' ends, applies open commands; for commands, checks and tests.

    Raises what the stores raise: `RedisUnavailable`, `StoreUnavailable`, `django.db.OperationalError`.
    """
    entries = usage_events = 0
    for _ in range(PASSES_MAX):
        booked = ledger.drain_ledger(ALL_PARTITIONS, limit=EVENTS_PER_PASS, now=timezone.now())
        copied = usage.drain_usage(ALL_PARTITIONS, limit=EVENTS_PER_PASS)
        entries += booked.entries
        usage_events += copied
        if booked.events == 0 and copied == 0:
            break
    loading.apply_outstanding()
    revocation.carry_revocations()
    key_state.publish_pending()
    counters.trim(ALL_PARTITIONS)
    return Drained(entries, usage_events)


def sweep() -> int:
    """Releases the holds past their deadline; how many."""
    released = 0
    for account_number, operation in counters.due_holds(limit=SWEEP_MAX):
        charge = counters.sweep(account_number, operation)
        if charge.status == "LOAD":
            # Holds do not survive a load: afterwards the sweep only forgets the deadline.
            try:
                loading.load_account(account_number)
            except (loading.LoadContended, ledger.LedgerBehind):
                continue  # somebody else is at it; the other holds need not wait
            charge = counters.sweep(account_number, operation)
        released += charge.status == "OK"
    if released:
        log.info("holds_swept", count=released)
    return released


def run(*, stopping: Callable[[], bool]) -> None:
    """Drains until `stopping()` says so; the pass under way is finished first."""
    next_sweep = next_apply = 0.0
    done = DrainLog()
    log.info("drain_started")
    while not stopping():
        busy = _attempt("ledger", lambda: _drain_ledger(done)) | _attempt("usage", lambda: _drain_usage(done))
        now = time.monotonic()
        if now >= next_sweep:
            _attempt("sweep", lambda: _sweep(done))
            next_sweep = time.monotonic() + SWEEP_EVERY_S
        if now >= next_apply:
            _attempt("apply", lambda: loading.apply_outstanding() > 0)
            _attempt("scheduled", lambda: services.enter_due(now=timezone.now()) > 0)
            _attempt("expiry", lambda: decreases.expire_due(now=timezone.now()) > 0)
            _attempt("decreases", lambda: decreases.ask_again(now=timezone.now()) > 0)
            _attempt("revocations", lambda: revocation.carry_revocations() > 0)
            _attempt("keys", lambda: key_state.publish_pending() > 0)
            _attempt("trim", lambda: counters.trim(ALL_PARTITIONS) > 0)
            _attempt("figures", lambda: _publish(done))
            next_apply = time.monotonic() + APPLY_EVERY_S
        if not busy:
            time.sleep(IDLE_S)
    _attempt("figures", lambda: _publish(done))
    log.info("drain_stopped")


def _drain_ledger(done: DrainLog) -> bool:
    booked = ledger.drain_ledger(ALL_PARTITIONS, limit=EVENTS_PER_PASS, now=timezone.now())
    done.note(events=booked.events, entries=booked.entries)
    done.note(**{f"aside_{reason}": count for reason, count in booked.set_aside.items()})
    return booked.events > 0


def _drain_usage(done: DrainLog) -> bool:
    copied = usage.drain_usage(ALL_PARTITIONS, limit=EVENTS_PER_PASS)
    done.note(usage=copied)
    return copied > 0


def _sweep(done: DrainLog) -> bool:
    released = sweep()
    done.note(swept=released)
    return released > 0


def _publish(done: DrainLog) -> bool:
    done.publish()
    return False


def _attempt(what: str, work: Callable[[], bool]) -> bool:
    """Does a piece of work; a store that is away is logged and waited for, nothing is lost meanwhile."""
    try:
        return work()
    except (
        *RedisUnavailable,
        OperationalError,
        InterfaceError,
        StoreUnavailable,
        ClickHouseError,
        loading.LoadContended,
        ledger.LedgerBehind,
    ) as error:
        log.warning("drain_waits", work=what, error=type(error).__name__, reason=str(error)[:300])
        if isinstance(error, OperationalError | InterfaceError):
            # Django keeps a connection that Postgres has dropped; only a request's end would look at it.
            connection.close()
        time.sleep(BACK_OFF_S)
        return False
