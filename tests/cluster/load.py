"""Customers who ask and ask while the cluster changes under them, and what has to be true afterwards."""

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import structlog
from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from config.errors import DomainError
from config.redis import RedisUnavailable
from credits import counters, drain, metering, verify
from credits.models import CreditTransaction, SetAside
from tests.factories import Customer, make_usage

log = structlog.get_logger(__name__)

AMOUNT_MAX = 5
PAUSE_S = 0.01
QUIET_TIMEOUT_S = 30.0
# What a client may be told: it has no more credits; not now, ask again; too late, nothing was charged.
EXPECTED = {
    *("InsufficientCredits", "TemporarilyUnavailable", "LoadContended", "LedgerBehind"),
    *(
        "InsufficientCredits at settle",
        "TemporarilyUnavailable at settle",
        "LoadContended at settle",
        "LedgerBehind at settle",
    ),
    "HoldExpired at settle",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One operation: what its settle asked for, and what the client was told (None: no answer to the settle)."""

    customer: Customer
    operation: str
    total: int
    told: int | None
    at: float


@dataclass
class Record:
    """What all threads have seen. `refusals` counts by exception, `defects` is what no client may see."""

    asked: list[Asked] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    defects: list[BaseException] = field(default_factory=list)
    longest_call_s: float = 0.0

    def silence_s(self, customers: Sequence[Customer]) -> float:
        """The longest time in which none of these customers was charged for anything."""
        numbers = {customer.number for customer in customers}
        served = sorted(asked.at for asked in self.asked if asked.told is not None and asked.customer.number in numbers)
        return max(later - earlier for earlier, later in itertools.pairwise(served))

    def note(self, what: str, **figures: float) -> None:
        """Figures for whoever looks at the test's log."""
        log.info(
            what,
            operations=len(self.asked),
            refusals=dict(self.refusals),
            longest_call_s=round(self.longest_call_s, 2),
            **{name: round(value, 2) for name, value in figures.items()},
        )


@contextlib.contextmanager
def asking(customers: Sequence[Customer], *, threads: int) -> Iterator[Record]:
    """Holds and settles at random, and drains, from several threads, until the block ends."""
    record, stop = Record(), threading.Event()

    def ask(seed: int) -> None:
        random = Random(seed)
        try:
            while not stop.is_set():
                began = time.monotonic()
                _ask_once(random.choice(customers), random, record)
                record.longest_call_s = max(record.longest_call_s, time.monotonic() - began)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test has to see it
            record.defects.append(error)
        finally:
            connection.close()

    def drain_all() -> None:
        try:
            drain.run(stopping=stop.is_set)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test has to see it
            record.defects.append(error)
        finally:
            connection.close()

    running = [threading.Thread(target=ask, args=(seed,)) for seed in range(threads)]
    running.append(threading.Thread(target=drain_all))
    for thread in running:
        thread.start()
    try:
        yield record
    finally:
        stop.set()
        for thread in running:
            thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in running)


def _ask_once(customer: Customer, random: Random, record: Record) -> None:
    try:
        hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=random.randint(1, AMOUNT_MAX))
    except DomainError as error:
        record.refusals[type(error).__name__] += 1
        time.sleep(PAUSE_S)
        return
    total, told = random.randint(1, hold.amount), None
    try:
        told = metering.settle(hold, total=total, usage=make_usage()).charged
    except DomainError as error:
        record.refusals[f"{type(error).__name__} at settle"] += 1
        time.sleep(PAUSE_S)
    record.asked.append(Asked(customer, hold.operation, total, told, time.monotonic()))


def come_to_rest(customers: Sequence[Customer]) -> None:
    """Drains and sweeps until nothing of these customers is held; HOLD_S is to be short."""
    deadline = time.monotonic() + QUIET_TIMEOUT_S
    while True:
        with contextlib.suppress(*RedisUnavailable):
            drain.drain_once()
            drain.sweep()
            lives = counters.inspect_many([customer.number for customer in customers])
            if all(live.held == 0 for live in lives if live.usable):
                return
        assert time.monotonic() < deadline, "credits are still held, or the cluster does not answer"
        time.sleep(0.1)


def booked(customers: Sequence[Customer]) -> dict[str, int]:
    """What the ledger has charged by operation."""
    rows = (
        CreditTransaction.objects.filter(account__in=[customer.account for customer in customers], kind="usage")
        .values_list("operation")
        .annotate(Sum("amount"))
    )
    return {str(operation): amount for operation, amount in rows}


def assert_proven(customers: Sequence[Customer], record: Record) -> list[Asked]:
    """Nobody is charged too much or twice, and every balance agrees; returns the charges that were told and lost."""
    assert record.defects == []
    come_to_rest(customers)
    assert set(record.refusals) <= EXPECTED
    numbers = {customer.number for customer in customers}
    result = verify.verify(now=timezone.now())
    assert [difference for difference in result.differences if difference.account_number in numbers] == []
    assert numbers.isdisjoint(result.behind)
    charged = booked(customers)
    known = {asked.operation for asked in record.asked}
    assert set(charged) <= known
    for asked in record.asked:
        assert charged.get(asked.operation, 0) in (0, asked.total)
        assert asked.told in (None, asked.total)
    lives = counters.inspect_many([customer.number for customer in customers])
    assert [(live.held, live.available >= 0) for live in lives if live.usable] == [
        (0, True) for live in lives if live.usable
    ]
    return [asked for asked in record.asked if asked.told is not None and asked.operation not in charged]


def set_aside(customers: Sequence[Customer]) -> Counter[str]:
    """Events of these customers that were not booked, by reason."""
    reasons = SetAside.objects.filter(account__in=[customer.account for customer in customers])
    return Counter(reasons.values_list("reason", flat=True))
