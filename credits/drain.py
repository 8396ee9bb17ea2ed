"""The drain: moves the journal into the ledger and the usage log, applies what Redis has to learn, sweeps old holds.

Any number of drains may run; what they do twice changes nothing. Each store that is away is waited for, and the others'
work goes on meanwhile.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from accounts import key_state, revocation
from config.alive import Sign
from config.clickhouse.client import StoreUnavailable
from config.redis import PARTITIONS, RedisUnavailable, each_by_shard
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
        booked = _book()
        copied = usage.drain_usage(ALL_PARTITIONS, limit=EVENTS_PER_PASS)
        entries += booked.entries
        usage_events += copied
        if booked.events == 0 and copied == 0:
            break
    usage_events += usage.copy_reserve_usage(now=timezone.now())
    loading.apply_outstanding()
    revocation.carry_revocations()
    key_state.publish_pending()
    counters.trim(ALL_PARTITIONS)
    return Drained(entries, usage_events)


def sweep() -> int:
    """Releases the holds past their deadline; how many."""
    due, refused = counters.due_holds(limit=SWEEP_MAX)
    released = 0

    def release(hold: tuple[int, str]) -> None:
        nonlocal released
        released += _release(*hold)

    each_by_shard(due, partition=lambda hold: hold[0] % PARTITIONS, work=release)
    if released:
        log.info("holds_swept", count=released)
    if refused is not None:
        raise refused
    return released


def _release(account_number: int, operation: str) -> bool:
    charge = counters.sweep(account_number, operation)
    if charge.status == "LOAD":
        # Holds do not survive a load: afterwards the sweep only forgets the deadline.
        try:
            loading.load_account(account_number)
        except (loading.LoadContended, ledger.LedgerBehind):
            return False  # somebody else is at it; the other holds need not wait
        charge = counters.sweep(account_number, operation)
    return charge.status == "OK"


def run(*, stopping: Callable[[], bool]) -> None:
    """Drains until `stopping()` says so; the pass under way is finished first."""
    next_sweep = next_apply = 0.0
    done = DrainLog()
    alive = Sign(settings.ALIVE_FILE)
    log.info("drain_started")
    while not stopping():
        alive.give()
        busy = _attempt("ledger", lambda: _drain_ledger(done)) | _attempt("usage", lambda: _drain_usage(done))
        now = time.monotonic()
        if now >= next_sweep:
            _attempt("sweep", lambda: _sweep(done))
            next_sweep = time.monotonic() + SWEEP_EVERY_S
        if now >= next_apply:
            _attempt("apply", lambda: loading.apply_outstanding() > 0)
            _attempt("reserve_usage", lambda: usage.copy_reserve_usage(now=timezone.now()) > 0)
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
    booked = _book()
    done.note(events=booked.events, entries=booked.entries)
    done.note(**{f"aside_{reason}": count for reason, count in booked.set_aside.items()})
    return booked.events > 0


def _book() -> ledger.Booked:
    """One pass of the ledger's consumer.

    Late events may come from a server that went on by an epoch that has ended: a master and its successor both served for
    a moment, and the account was loaded at the other one. What it gives out would never be charged, so it is loaded.
    """
    booked = ledger.drain_ledger(ALL_PARTITIONS, limit=EVENTS_PER_PASS, now=timezone.now())
    for account_number, epoch in booked.late:
        live = counters.inspect(account_number)
        if live.usable and live.epoch <= epoch:
            log.warning("account_overtaken", account=account_number, epoch=live.epoch)
            with contextlib.suppress(loading.LoadContended, ledger.LedgerBehind):  # its next late event tries again
                loading.load_account(account_number)
    return booked


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
