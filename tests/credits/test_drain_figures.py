"""How far behind the drains are, and what they have done: measured at each consumer's own cursor, summed over all drains."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import Account
from config.redis import PARTITIONS, money
from credits import counters, drain, drain_figures, ledger, metering, usage
from credits.models import Command, CreditTransaction, Decrease
from tests.factories import Customer, make_customer, make_usage
from tests.faults.processes import Drain

pytestmark = pytest.mark.usefixtures("stores")

ALL = tuple(range(PARTITIONS))
CALLS = 40
SOON_S = 30.0


@pytest.fixture
def drained() -> None:
    """Journals that both consumers have read to their ends."""
    drain.drain_once()


def _spend(customer: Customer, total: int = 1) -> None:
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=total)
    metering.settle(hold, total=total, usage=make_usage())


def _run_passes(count: int) -> None:
    passes = iter(range(count))
    drain.run(stopping=lambda: next(passes, None) is None)


def test_nothing_waits_when_both_consumers_have_read_all(drained: None) -> None:
    waiting = drain_figures.backlog()
    assert (waiting.ledger_lag_s, waiting.usage_lag_s) == (0.0, 0.0)


def test_lag_is_the_age_of_the_oldest_event_that_was_not_read(drained: None) -> None:
    customer = make_customer(credits=10)
    _spend(customer)
    time.sleep(0.2)
    _spend(customer)
    waiting = drain_figures.backlog()
    assert waiting.ledger_lag_s >= 0.2
    assert waiting.usage_lag_s >= 0.2


def test_each_consumer_has_a_lag_of_its_own(drained: None) -> None:
    _spend(make_customer(credits=10))
    time.sleep(0.05)
    ledger.drain_ledger(ALL, now=timezone.now())
    waiting = drain_figures.backlog()
    assert waiting.ledger_lag_s == 0.0
    assert waiting.usage_lag_s >= 0.05
    usage.drain_usage(ALL)
    assert drain_figures.backlog().usage_lag_s == 0.0


def test_the_event_kept_at_the_cursor_is_no_lag(drained: None) -> None:
    _spend(make_customer(credits=10))
    drain.drain_once()
    time.sleep(0.05)
    waiting = drain_figures.backlog()
    assert waiting.journal_events >= 1
    assert (waiting.ledger_lag_s, waiting.usage_lag_s) == (0.0, 0.0)


def test_holds_and_due_holds_are_counted(drained: None) -> None:
    customer = make_customer(credits=10)
    before = drain_figures.backlog()
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=1)
    held = drain_figures.backlog()
    assert (held.holds - before.holds, held.holds_due - before.holds_due) == (1, 0)
    money().zadd(counters.holds_key(customer.number % PARTITIONS), {f"{customer.number}:{hold.operation}": 1})
    due = drain_figures.backlog()
    assert (due.holds - before.holds, due.holds_due - before.holds_due) == (1, 1)
    metering.release(hold, usage=make_usage())


def test_journal_events_are_counted(drained: None) -> None:
    before = drain_figures.backlog().journal_events
    _spend(make_customer(credits=10))
    assert drain_figures.backlog().journal_events == before + 1


def test_open_commands_and_decreases_are_counted_with_their_age() -> None:
    account = make_customer(credits=10).account
    before = drain_figures.open_work()
    old = timezone.now() - timedelta(seconds=90)
    decrease = Decrease.objects.create(account=account, kind="adjustment", target=1, created_at=old)
    command = Command.objects.create(account=account, credit_seq=10**9, kind="add", amount=1, created_at=old)
    work = drain_figures.open_work()
    assert (work.commands - before.commands, work.decreases - before.decreases) == (1, 1)
    assert work.commands_age_s >= 90
    assert work.decreases_age_s >= 90
    command.delete()
    decrease.delete()


def test_a_drain_adds_what_it_did_to_the_sums(drained: None) -> None:
    before, _ = drain_figures.drained()
    _spend(make_customer(credits=10))
    _run_passes(2)
    sums, alive = drain_figures.drained()
    assert {name: sums[name] - before.get(name, 0) for name in ("events", "entries", "usage")} == {
        "events": 1,
        "entries": 1,
        "usage": 1,
    }
    assert alive >= 1


def test_events_set_aside_are_summed_by_reason(drained: None) -> None:
    before, _ = drain_figures.drained()
    money().xadd(counters.journal_key(3), {"nonsense": "1"})
    _run_passes(2)
    sums, _ = drain_figures.drained()
    assert sums["aside_bad"] - before.get("aside_bad", 0) == 1


def test_a_drain_that_fell_silent_is_not_alive() -> None:
    money().delete(drain_figures._DRAINS)
    drain_figures.DrainLog().publish()
    assert drain_figures.drained()[1] == 1
    silent = [str(name.decode()) for name in money().zrange(drain_figures._DRAINS, 0, -1)]  # type: ignore[union-attr]
    money().zadd(drain_figures._DRAINS, dict.fromkeys(silent, 1))
    assert drain_figures.drained()[1] == 0
    drain_figures.DrainLog().publish()
    assert money().zcard(drain_figures._DRAINS) == 1


@pytest.fixture
def drains() -> Iterator[list[Drain]]:
    """Two drains at once."""
    with ExitStack() as stack:
        started = [Drain(), Drain()]
        for process in started:
            stack.callback(process.close)
        yield started


@pytest.mark.timeout(180)
def test_two_drains_at_once_book_each_event_once(drained: None, drains: list[Drain]) -> None:
    customers = [make_customer(credits=CALLS) for _ in range(4)]
    before, _ = drain_figures.drained()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(_spend, customers * CALLS))
    deadline = time.monotonic() + SOON_S
    while _waits() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert drain_figures.drained()[1] >= 2
    assert [process.terminate() for process in drains] == [0, 0]
    accounts = Account.objects.filter(pk__in=[customer.account.pk for customer in customers])
    assert list(accounts.values_list("balance", flat=True)) == [0] * 4
    entries = CreditTransaction.objects.filter(account__in=accounts, kind="usage")
    assert sum(entries.values_list("amount", flat=True)) == 4 * CALLS
    assert drain_figures.drained()[0]["entries"] - before.get("entries", 0) == 4 * CALLS


def _waits() -> bool:
    waiting = drain_figures.backlog()
    return waiting.ledger_lag_s > 0 or waiting.usage_lag_s > 0
