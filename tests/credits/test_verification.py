"""Ledger checks that are written down: one at a time, each with its end, an unfinished one never taken for a result."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TypeVar

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from config.clickhouse import locks
from config.redis import RedisUnavailable, money
from credits import counters, metering, verification, verify
from credits.models import VerificationRun
from credits.tasks import verify_ledger
from tests.factories import Customer, make_customer, make_usage
from tests.faults.processes import ServerProcess, database_url
from tests.outages import redis_away

pytestmark = pytest.mark.usefixtures("stores")

State, Trigger = VerificationRun.State, VerificationRun.Trigger
SOON_S = 20.0
Found = TypeVar("Found")


def _run(*, repair: bool = False) -> VerificationRun:
    return verification.run(now=timezone.now(), trigger=Trigger.API, actor="carol", reason="why", repair=repair)


def _spoiled(customer: Customer) -> Customer:
    """The customer, with seven credits too many in Redis."""
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=5)
    metering.settle(hold, total=5, usage=make_usage())
    money().hincrby(counters.account_key(customer.number), "bal", 7)
    return customer


def _of(customer: Customer, row: VerificationRun) -> list[dict[str, object]]:
    return [difference for difference in row.differences if difference["account"] == customer.number]


@contextmanager
def _other_connection() -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    with psycopg.connect(database_url(), autocommit=True) as other:
        yield other


def test_a_run_keeps_who_asked_when_and_how_many_were_compared() -> None:
    customer = make_customer(credits=5)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    now = timezone.now()
    made = verification.run(now=now, trigger=Trigger.ADMIN, actor="carol", reason="why")
    row = VerificationRun.objects.get(pk=made.pk)
    assert (row.trigger, row.actor, row.reason, row.repair, row.started_at) == ("admin", "carol", "why", False, now)
    assert row.finished_at is not None
    assert row.accounts >= row.live_accounts >= 1
    assert row.state == made.state


def test_a_dry_run_keeps_what_differs_and_changes_nothing() -> None:
    customer = _spoiled(make_customer(credits=50))
    row = VerificationRun.objects.get(pk=_run().pk)
    what = "live balance in Redis against the ledger"
    assert _of(customer, row) == [
        {"account": customer.number, "what": what, "expected": 45, "found": 52, "repairable": True}
    ]
    assert (row.state, row.repaired, counters.inspect(customer.number).balance) == ("differs", [], 52)
    assert verification.can_repair(row)
    _run(repair=True)


def test_a_repair_keeps_whom_it_loaded_again() -> None:
    customer = _spoiled(make_customer(credits=50))
    row = VerificationRun.objects.get(pk=_run(repair=True).pk)
    assert (row.repair, customer.number in row.repaired) == (True, True)
    assert counters.inspect(customer.number).balance == 45
    assert not verification.can_repair(row)
    assert _of(customer, _run()) == []


_FOUND = verify.Difference(1, "live balance in Redis against the ledger", 1, 2, repairable=True)
_LEDGER = verify.Difference(2, "account balance against the sum of its ledger", 1, 2)


@pytest.mark.parametrize(
    ("differences", "behind", "repaired", "state"),
    [
        ([], [], [], "proven"),
        ([], [7], [], "behind"),
        ([_FOUND], [], [], "differs"),
        ([_FOUND], [], [1], "repaired"),
        ([_FOUND], [7], [1], "differs"),
        ([_FOUND, _LEDGER], [], [1], "differs"),
    ],
)
def test_the_state_says_what_was_found(
    differences: list[verify.Difference], behind: list[int], repaired: list[int], state: str
) -> None:
    result = verify.Verification(timezone.now(), 2, 2, behind, differences, repaired)
    assert verification._state_of(result) == state


def test_a_second_run_at_a_time_is_refused_and_not_written_down() -> None:
    before = VerificationRun.objects.count()
    with _other_connection() as other:
        other.execute("SELECT pg_advisory_lock(%s)", [locks._key(verification.LOCK)])
        with pytest.raises(verification.VerificationRunning, match="Another ledger check is under way"):
            _run()
        with pytest.raises(CommandError, match="Another ledger check is under way"):
            call_command("verify_ledger")
        verify_ledger()
    assert VerificationRun.objects.count() == before


def test_a_run_without_redis_is_kept_as_failed() -> None:
    with redis_away(), pytest.raises(RedisUnavailable):
        _run()
    row = VerificationRun.objects.latest("id")
    assert (row.state, row.accounts, row.error.partition(":")[0]) == ("failed", 0, "ConnectionError")
    assert row.finished_at is not None


def test_a_run_that_is_killed_stays_unfinished_and_is_called_broken_off() -> None:
    last = VerificationRun.objects.order_by("-id").values_list("id", flat=True).first() or 0
    with _other_connection() as other:
        other.execute("BEGIN; LOCK TABLE accounts_account IN ACCESS EXCLUSIVE MODE")
        process = ServerProcess("manage.py", "verify_ledger")
        try:
            row = _wait_for(lambda: VerificationRun.objects.filter(id__gt=last).first())
            assert (row.state, verification.state_now(row)) == ("running", "running")
        finally:
            process.kill()
            other.execute("ROLLBACK")
    _wait_for(lambda: not locks.is_held(verification.LOCK))
    row.refresh_from_db()
    assert (row.state, row.finished_at, verification.state_now(row)) == ("running", None, "broken_off")
    shown = verification.last_run()
    assert shown is not None
    assert (shown.pk, verification.state_now(shown)) == (row.pk, "broken_off")
    _run()
    row.refresh_from_db()
    assert (row.state, row.finished_at) == ("broken_off", None)


def _wait_for(found: Callable[[], Found | None]) -> Found:
    deadline = time.monotonic() + SOON_S
    while not (answer := found()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return answer


def test_a_run_that_was_called_broken_off_stays_so() -> None:
    row = VerificationRun.objects.create(trigger=Trigger.TASK, started_at=timezone.now())
    VerificationRun.objects.filter(pk=row.pk).update(state=State.BROKEN_OFF)
    row.state = State.PROVEN
    verification._finish(row)
    row.refresh_from_db()
    assert row.state == "broken_off"


def test_only_the_last_runs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "PROVEN_KEPT", 2)
    monkeypatch.setattr(verification, "OTHERS_KEPT", 1)
    now = timezone.now()
    made = [
        VerificationRun.objects.create(
            trigger=Trigger.TASK, state=state, started_at=now, finished_at=now, error=state
        ).pk
        for state in (State.FAILED, State.PROVEN, State.PROVEN, State.PROVEN, State.DIFFERS)
    ]
    verification._forget_old_runs()
    assert list(VerificationRun.objects.filter(pk__in=made).order_by("id").values_list("id", flat=True)) == made[2:]
    assert VerificationRun.objects.count() == 3


def test_accounts_are_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "CHUNK", 3)
    numbers = [make_customer().number for _ in range(4)]
    pages = list(verify._chunks())
    assert all(len(page) <= 3 for page in pages)
    everyone = [number for page in pages for number in page]
    assert everyone == sorted(set(everyone))
    assert set(numbers) <= set(everyone)


def test_the_command_shows_the_run_as_json() -> None:
    customer = _spoiled(make_customer(credits=50))
    out = StringIO()
    with pytest.raises(CommandError, match="differences"):
        call_command("verify_ledger", "--json", stdout=out)
    shown = json.loads(out.getvalue())
    (mine,) = [difference for difference in shown["differences"] if difference["account"] == customer.number]
    assert (shown["ok"], shown["state"], mine["expected"], mine["found"]) == (False, "differs", 45, 52)
    assert VerificationRun.objects.latest("id").trigger == "command"
    _run(repair=True)


def test_the_task_keeps_its_run_and_survives_a_store_that_is_away() -> None:
    with redis_away():
        verify_ledger()
    row = VerificationRun.objects.latest("id")
    assert (row.trigger, row.state) == ("task", "failed")


def _lose_the_connection() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
    with _other_connection() as other:
        other.execute("SELECT pg_terminate_backend(%s)", [backend])
    raise RuntimeError("the reason")


def test_a_lost_connection_does_not_hide_why_a_holder_of_a_lock_failed() -> None:
    with pytest.raises(RuntimeError, match="the reason"), locks.advisory_lock("of this test", wait_s=0):
        _lose_the_connection()
    assert not locks.is_held("of this test")
