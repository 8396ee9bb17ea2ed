"""Taking credits back: void, expiry, negative adjustment; never below what is held, never twice."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.models import Account
from config.errors import InvalidRequest
from config.redis import money
from credits import counters, decreases, drain, loading, metering, services, verify
from credits.models import CreditGrant, CreditTransaction, Decrease, GrantDraw
from tests.factories import Customer, make_account, make_customer, make_usage

pytestmark = pytest.mark.usefixtures("stores")


def grant_of(account: Account) -> CreditGrant:
    return CreditGrant.objects.filter(account=account).order_by("created_at")[0]


def void(account: Account) -> Decrease:
    decrease = decreases.void_grant(grant=grant_of(account), reason="mistake", actor="ops", now=timezone.now())
    assert decrease is not None
    return decrease


def balances(account: Account) -> tuple[int, int]:
    """(ledger, live)"""
    account.refresh_from_db()
    return account.balance, counters.inspect(account.number).balance


def assert_proven(account: Account) -> None:
    assert verify._ledger_differences([account.number]) == []
    assert verify._live_differences([account.number])[1:] == ([], [])


def hold(customer: Customer, amount: int) -> metering.Hold:
    return metering.admit(api_key=customer.api_key, endpoint="query", amount=amount)


def test_void_takes_what_the_grant_has_left() -> None:
    account = make_account(credits=30)
    services.top_up(account=account, amount=5, now=timezone.now())
    decrease = void(account)
    drain.drain_once()
    decrease.refresh_from_db()
    entry = CreditTransaction.objects.get(account=account, kind="void")
    assert (entry.type, entry.amount, entry.reason, entry.actor) == ("debit", 30, "mistake", "ops")
    assert list(GrantDraw.objects.filter(entry=entry).values_list("grant", "amount")) == [(grant_of(account).pk, 30)]
    assert (decrease.booked, decrease.closed_at is not None, balances(account)) == (30, True, (5, 5))
    assert_proven(account)


def test_void_leaves_what_is_held_and_takes_it_when_it_is_released() -> None:
    customer = make_customer(credits=30)
    under_way = hold(customer, 20)
    decrease = void(customer.account)
    drain.drain_once()
    assert balances(customer.account) == (20, 20)
    metering.release(under_way, usage=make_usage())
    decreases.ask_again(now=timezone.now())
    drain.drain_once()
    decrease.refresh_from_db()
    assert (decrease.booked, balances(customer.account)) == (30, (0, 0))
    assert_proven(customer.account)


def test_void_ends_when_usage_has_spent_the_rest() -> None:
    customer = make_customer(credits=30)
    under_way = hold(customer, 20)
    decrease = void(customer.account)
    drain.drain_once()
    metering.settle(under_way, total=20, usage=make_usage())
    drain.drain_once()
    decreases.ask_again(now=timezone.now())
    decrease.refresh_from_db()
    assert (decrease.booked, decrease.closed_at is not None, balances(customer.account)) == (10, True, (0, 0))
    assert_proven(customer.account)


def test_what_was_spent_before_a_void_is_drawn_from_the_grant() -> None:
    customer = make_customer(credits=30)
    services.top_up(account=customer.account, amount=10, now=timezone.now())
    metering.settle(hold(customer, 25), total=25, usage=make_usage())
    decrease = void(customer.account)
    drain.drain_once()
    assert (decrease.target, balances(customer.account)) == (5, (10, 10))
    assert_proven(customer.account)


def test_what_was_taken_twice_goes_back() -> None:
    account = make_account(credits=30)
    services.top_up(account=account, amount=10, now=timezone.now())
    decrease = void(account)
    # Asked again before the first take was booked: Redis gives credits of the grant that stays.
    assert decreases._take_rest(decrease, now=timezone.now())
    loading.apply_commands(account.pk)
    assert counters.inspect(account.number).balance == 0
    drain.drain_once()
    assert balances(account) == (10, 10)
    assert_proven(account)


def test_a_take_past_what_its_grant_has_left_goes_back() -> None:
    customer = make_customer(credits=30)
    account = customer.account
    services.top_up(account=account, amount=10, now=timezone.now())
    metering.settle(hold(customer, 20), total=20, usage=make_usage())
    # Both begin before the drain has seen the usage, which then draws from the first of them.
    for grant in CreditGrant.objects.filter(account=account).order_by("created_at"):
        decreases._begin(grant, kind=Decrease.Kind.VOID, reason="mistake", actor="ops", now=timezone.now())
    loading.apply_commands(account.pk)
    assert counters.inspect(account.number).balance == 0
    drain.drain_once()
    assert balances(account) == (10, 10)
    assert_proven(account)
    decreases.ask_again(now=timezone.now())
    drain.drain_once()
    assert balances(account) == (0, 0)
    assert_proven(account)


def test_a_grant_is_taken_back_once() -> None:
    account = make_account(credits=30)
    void(account)
    with pytest.raises(decreases.GrantEnding):
        void(account)


def test_a_take_is_applied_once_however_often_it_is_delivered() -> None:
    account = make_account(credits=30)
    void(account)
    take = Decrease.objects.get(account=account).takes.get()
    assert loading._deliver(account.number, take) == ("OK", take.credit_seq)
    drain.drain_once()
    assert balances(account) == (0, 0)
    assert_proven(account)


def test_open_takes_are_booked_by_a_load() -> None:
    customer = make_customer(credits=30)
    hold(customer, 20)
    void(customer.account)
    drain.drain_once()
    money().flushall()
    loading.load_account(customer.number)
    assert balances(customer.account) == (0, 0)
    assert Decrease.objects.get(account=customer.account).closed_at is not None
    assert_proven(customer.account)


def test_deduct_takes_in_burn_down_order() -> None:
    account = make_account(credits=5)
    services.top_up(account=account, amount=10, now=timezone.now())
    decreases.deduct(account=account, amount=8, reason="goodwill back", actor="ops", now=timezone.now())
    drain.drain_once()
    entry = CreditTransaction.objects.get(account=account, kind="adjustment")
    assert list(entry.draws.order_by("id").values_list("amount", flat=True)) == [5, 3]
    assert balances(account) == (7, 7)
    assert_proven(account)


@pytest.mark.parametrize("amount", [0, -1, 6])
def test_deduct_refuses_more_than_can_be_spent(amount: int) -> None:
    account = make_account(credits=5)
    with pytest.raises(InvalidRequest):
        decreases.deduct(account=account, amount=amount, reason="x", actor="ops", now=timezone.now())


def test_credits_expire_at_their_moment() -> None:
    account = make_account(credits=5)
    now = timezone.now()
    services.top_up(account=account, amount=20, now=now, kind="promo", expires_at=now + timedelta(hours=1))
    decreases.expire_due(now=now)
    assert balances(account) == (25, 25)
    decreases.expire_due(now=now + timedelta(hours=2))
    drain.drain_once()
    entry = CreditTransaction.objects.get(account=account, kind="expiry")
    assert (entry.amount, balances(account)) == (20, (5, 5))
    assert_proven(account)


def test_expiring_credits_are_spent_before_those_that_stay() -> None:
    customer = make_customer(credits=5)
    now = timezone.now()
    services.top_up(account=customer.account, amount=20, now=now, kind="promo", expires_at=now + timedelta(hours=1))
    metering.settle(hold(customer, 12), total=12, usage=make_usage())
    decreases.expire_due(now=now + timedelta(hours=2))
    drain.drain_once()
    assert CreditTransaction.objects.get(account=customer.account, kind="expiry").amount == 8
    assert balances(customer.account) == (5, 5)


def test_a_grant_cannot_begin_expired() -> None:
    now = timezone.now()
    with pytest.raises(InvalidRequest):
        services.top_up(account=make_account(), amount=1, now=now, expires_at=now)


def test_the_command_takes_an_amount_or_a_grant_back() -> None:
    account = make_account(credits=30)
    out = StringIO()
    call_command("take_back", account=str(account.number), amount=4, reason="double invoice", stdout=out)
    drain.drain_once()
    call_command("take_back", grant=grant_of(account).pk, reason="payment failed", stdout=out)
    drain.drain_once()
    assert "Taking back 4 credits" in out.getvalue()
    assert "Taking back 26 credits" in out.getvalue()
    assert balances(account) == (0, 0)


def test_the_command_says_what_can_be_taken() -> None:
    account = make_account(credits=3)
    with pytest.raises(CommandError, match="Between 1 and 3 credits"):
        call_command("take_back", account=str(account.number), amount=4, reason="x")


def test_the_command_gives_credits_that_expire() -> None:
    account = make_account()
    call_command("top_up", account=str(account.number), amount=5, kind="promo", expires_days=30, stdout=StringIO())
    grant = grant_of(account)
    assert grant.expires_at is not None
    assert (grant.kind, grant.expires_at - grant.effective_at) == ("promo", timedelta(days=30))
