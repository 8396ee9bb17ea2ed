"""Grants with a later date: they count from their moment on, once, and not before."""

import threading
from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import Account
from config.errors import InvalidRequest
from credits import counters, decreases, services, verify
from credits.models import CreditGrant, CreditTransaction
from credits.services import PaymentMismatch
from tests.factories import make_account

pytestmark = pytest.mark.usefixtures("stores")


def schedule(account: Account, amount: int = 7, *, days: int = 3, **changes: object) -> services.TopUp:
    now = timezone.now()
    values = {"now": now, "effective_at": now + timedelta(days=days), "reason": "next month", "actor": "ops", **changes}
    return services.top_up(account=account, amount=amount, **values)  # type: ignore[arg-type]


def balances(account: Account) -> tuple[int, int]:
    """(ledger, live)"""
    account.refresh_from_db()
    return account.balance, counters.inspect(account.number).balance


def in_days(days: int) -> datetime:
    return timezone.now() + timedelta(days=days)


def test_a_scheduled_grant_counts_nowhere_before_its_moment() -> None:
    account = make_account(credits=5)
    done = schedule(account)
    services.enter_due(now=in_days(2))
    assert (done.entry, done.balance, balances(account)) == (None, 5, (5, 5))
    grant = CreditGrant.objects.get(pk=done.grant.pk)
    assert (grant.amount, grant.remaining, grant.entered_at) == (7, 0, None)
    assert verify._ledger_differences([account.number]) == []


def test_a_scheduled_grant_enters_ledger_and_balance_at_its_moment() -> None:
    account = make_account(credits=5)
    done = schedule(account)
    moment = in_days(4)
    services.enter_due(now=moment)
    grant = CreditGrant.objects.get(pk=done.grant.pk)
    entry = CreditTransaction.objects.get(account=account, operation=grant.pk)
    assert (grant.remaining, grant.entered_at, balances(account)) == (7, moment, (12, 12))
    assert (entry.type, entry.kind, entry.amount, entry.reason, entry.actor) == (
        "credit",
        "top_up",
        7,
        "next month",
        "ops",
    )
    assert verify._ledger_differences([account.number]) == []


def test_a_scheduled_grant_enters_once_however_many_drains_look() -> None:
    account = make_account()
    grant = schedule(account).grant
    # Each drain has read the grant as due before the other booked it.
    seen = CreditGrant.objects.select_related("account").get(pk=grant.pk)
    together = threading.Barrier(2)
    entered: list[bool] = []

    def enter() -> None:
        together.wait()
        entered.append(services._enter(seen, now=in_days(4)))
        connection.close()

    threads = [threading.Thread(target=enter) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    services.tell_redis(account)
    assert (sorted(entered), balances(account)) == ([False, True], (7, 7))


def test_a_scheduled_grant_can_be_cancelled_before_it_enters() -> None:
    account = make_account(credits=5)
    grant = schedule(account).grant
    assert decreases.void_grant(grant=grant, reason="mistake", actor="kim", now=timezone.now()) is None
    services.enter_due(now=in_days(4))
    grant.refresh_from_db()
    assert (grant.voided_at is not None, balances(account)) == (True, (5, 5))
    assert grant.reason == "next month · cancelled by kim: mistake"


def test_a_grant_that_entered_meanwhile_is_voided_by_taking_it_back() -> None:
    account = make_account()
    stale = schedule(account).grant
    services.enter_due(now=in_days(4))
    decrease = decreases.void_grant(grant=stale, reason="mistake", actor="ops", now=timezone.now())
    assert decrease is not None
    assert (decrease.target, counters.inspect(account.number).balance) == (7, 0)


def test_a_cancelled_grant_is_not_cancelled_again() -> None:
    grant = schedule(make_account()).grant
    decreases.void_grant(grant=grant, reason="mistake", actor="ops", now=timezone.now())
    with pytest.raises(decreases.GrantEnding):
        decreases.void_grant(grant=grant, reason="mistake", actor="ops", now=timezone.now())


@pytest.mark.parametrize(("days", "reason"), [(-1, "must lie in the future"), (2, "must lie after effective_at")])
def test_a_grant_that_would_expire_too_early_is_refused(days: int, reason: str) -> None:
    account = make_account()
    with pytest.raises(InvalidRequest) as refused:
        schedule(account, expires_at=in_days(days))
    assert refused.value.details == {"expires_at": reason}
    assert not CreditGrant.objects.filter(account=account).exists()


def test_an_effective_date_that_has_passed_counts_at_once() -> None:
    account = make_account()
    assert schedule(account, days=-3).balance == 7


def test_the_same_payment_scheduled_twice_is_one_grant_also_after_it_entered() -> None:
    account = make_account()
    first = schedule(account, external_id=f"pay-{account.pk}")
    assert schedule(account, external_id=f"pay-{account.pk}").grant == first.grant
    services.enter_due(now=in_days(4))
    again = schedule(account, external_id=f"pay-{account.pk}", expires_at=in_days(-9))
    assert (again.grant, again.repeated, balances(account)) == (first.grant, True, (7, 7))


def test_the_same_payment_of_another_kind_is_refused() -> None:
    account = make_account()
    schedule(account, external_id=f"pay-{account.pk}")
    with pytest.raises(PaymentMismatch):
        schedule(account, external_id=f"pay-{account.pk}", kind="promo")


def test_a_grant_without_room_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    account = make_account(credits=5)
    schedule(account)
    monkeypatch.setattr(services, "CREDITS_MAX", 11)
    services.enter_due(now=in_days(4))
    assert balances(account) == (5, 5)


@pytest.mark.parametrize("priority", [-1, 1001])
def test_a_priority_outside_its_range_is_refused(priority: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        services.top_up(account=make_account(), amount=1, now=timezone.now(), priority=priority)
    assert refused.value.details == {"priority": "0 to 1000"}


def test_a_scheduled_grant_that_expired_while_nothing_drained_is_taken_back() -> None:
    account = make_account(credits=5)
    schedule(account, expires_at=in_days(5))
    services.enter_due(now=in_days(9))
    decreases.expire_due(now=in_days(9))
    assert counters.inspect(account.number).balance == 5
