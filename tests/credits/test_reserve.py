"""The reserve while Redis is up: what it is, and that Redis and it never have the same credit."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import Account
from config.errors import TemporarilyUnavailable
from credits import counters, decreases, drain, events, ledger, loading, metering, refusals, verify
from credits.amounts import reserve_target
from credits.models import Command, CreditGrant, CreditTransaction, Decrease
from credits.selectors import credits_of
from credits.services import top_up
from tests.factories import Customer, make_account, make_customer, make_usage
from tests.outages import postgres_away

pytestmark = pytest.mark.usefixtures("stores")


def loaded(*, credits: int) -> Customer:
    """A customer whose account Redis knows."""
    customer = make_customer(credits=credits)
    loading.load_account(customer.number)
    return customer


def account_of(customer: Customer) -> Account:
    return Account.objects.get(number=customer.number)


def spend(customer: Customer, total: int) -> metering.Settlement:
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=total)
    return metering.settle(hold, total=total, usage=make_usage())


def assert_proven(customer: Customer) -> None:
    drain.drain_once()
    _, behind, differences = verify._live_differences([customer.number])
    assert (verify._ledger_differences([customer.number]), behind, differences) == ([], [], [])


@pytest.mark.parametrize(
    ("balance", "reserve"), [(0, 0), (499, 0), (500, 10), (1000, 20), (49_999, 999), (50_000, 1000), (10**12, 1000)]
)
def test_the_reserve_is_two_percent_within_bounds(balance: int, reserve: int) -> None:
    assert reserve_target(balance) == reserve


def test_a_load_keeps_the_reserve_from_redis() -> None:
    customer = loaded(credits=1000)
    live = counters.inspect(customer.number)
    assert (account_of(customer).reserve, live.balance, live.reserve, live.available) == (20, 980, 20, 1000)
    assert_proven(customer)


def test_a_top_up_lets_the_reserve_grow_to_its_target() -> None:
    customer = loaded(credits=1000)
    top_up(account=customer.account, amount=4000, now=timezone.now())
    live = counters.inspect(customer.number)
    assert (account_of(customer).reserve, live.balance, live.reserve, live.available) == (100, 4900, 100, 5000)
    assert_proven(customer)


def test_the_reserve_grows_by_less_than_the_top_up() -> None:
    customer = loaded(credits=10_000)
    ledger.move_reserve(customer.number)
    top_up(account=customer.account, amount=5, now=timezone.now())
    assert account_of(customer).reserve == 4
    last = Command.objects.filter(account=customer.account).latest("credit_seq")
    assert (last.kind, last.amount, last.reserve) == ("add", 1, 4)
    assert_proven(customer)


def test_customers_see_the_reserve_as_theirs() -> None:
    customer = loaded(credits=1000)
    settlement = spend(customer, 5)
    shown = credits_of(account_number=customer.number, now=timezone.now())
    assert (settlement.available, shown.available) == (995, 995)


def test_a_short_admit_moves_the_reserve_to_redis() -> None:
    customer = loaded(credits=1000)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=1000)
    live = counters.inspect(customer.number)
    assert (hold.amount, live.balance, live.held, live.reserve, account_of(customer).reserve) == (
        1000,
        1000,
        1000,
        0,
        0,
    )
    assert metering.settle(hold, total=1000, usage=make_usage()).charged == 1000
    assert_proven(customer)


def test_a_short_admit_that_is_covered_counts_once_in_the_rate_window() -> None:
    customer = make_customer(credits=1000, rpm=2)
    loading.load_account(customer.number)
    assert metering.admit(api_key=customer.api_key, endpoint="query", amount=1000).rate.remaining == 1


def test_a_402_beyond_the_reserve_asks_no_postgres() -> None:
    customer = loaded(credits=1000)
    spend(customer, 1)
    with postgres_away(), pytest.raises(refusals.InsufficientCredits) as refused:
        metering.admit(api_key=customer.api_key, endpoint="query", amount=1000)
    assert refused.value.details == {"required": 1000, "available": 999, "limit_source": "account"}


def test_a_402_says_when_requests_under_way_hold_the_rest() -> None:
    customer = loaded(credits=1000)
    metering.admit(api_key=customer.api_key, endpoint="query", amount=100)
    with pytest.raises(refusals.InsufficientCredits) as refused:
        metering.admit(api_key=customer.api_key, endpoint="query", amount=901)
    assert refused.value.details == {"required": 901, "available": 900, "limit_source": "in_flight"}


def test_a_short_admit_without_postgres_is_unavailable_rather_than_unpaid() -> None:
    customer = loaded(credits=1000)
    spend(customer, 1)
    with postgres_away(), pytest.raises(TemporarilyUnavailable):
        metering.admit(api_key=customer.api_key, endpoint="query", amount=990)
    assert metering.admit(api_key=customer.api_key, endpoint="query", amount=990).amount == 990


def test_a_key_that_has_reached_its_cap_does_not_move_the_reserve() -> None:
    customer = make_customer(credits=1000)
    customer.account.api_keys.update(monthly_cap=10)
    loading.load_account(customer.number)
    with pytest.raises(refusals.InsufficientCredits) as refused:
        metering.admit(api_key=customer.api_key, endpoint="query", amount=990)
    assert (refused.value.details["limit_source"], account_of(customer).reserve) == ("key_cap", 20)


def test_many_short_admits_at_once_spend_the_balance_exactly() -> None:
    customer = loaded(credits=1000)
    spend(customer, 970)
    start = threading.Barrier(8)

    def one(_: int) -> int:
        start.wait()
        spent = 0
        try:
            for _ in range(5):
                spent += spend(customer, 1).charged
        except refusals.InsufficientCredits:
            pass
        finally:
            connection.close()
        return spent

    with ThreadPoolExecutor(8) as pool:
        spent = sum(pool.map(one, range(8)))
    live = counters.inspect(customer.number)
    assert (spent, live.balance, live.reserve, account_of(customer).reserve) == (30, 0, 0, 0)
    assert_proven(customer)
    assert account_of(customer).balance == 0


def test_a_settle_whose_hold_was_lost_is_covered_by_the_reserve() -> None:
    customer = loaded(credits=1000)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=1000)
    loading.load_account(customer.number, even_if_usable=True)
    assert counters.inspect(customer.number).balance == 980
    assert metering.settle(hold, total=1000, usage=make_usage()).charged == 1000
    assert_proven(customer)


def test_a_deduction_is_booked_at_once_from_the_reserve() -> None:
    customer = loaded(credits=1000)
    deduction = decreases.deduct(account=customer.account, amount=15, reason="test", actor="", now=timezone.now())
    account, live = account_of(customer), counters.inspect(customer.number)
    assert (account.balance, account.reserve, live.balance, live.reserve) == (985, 5, 980, 5)
    assert Decrease.objects.get(pk=deduction.decrease.pk).closed_at is not None
    assert_proven(customer)


def test_what_the_reserve_does_not_cover_of_a_decrease_is_taken_from_redis() -> None:
    customer = loaded(credits=1000)
    decreases.deduct(account=customer.account, amount=120, reason="test", actor="", now=timezone.now())
    assert (account_of(customer).balance, counters.inspect(customer.number).balance) == (980, 880)
    assert_proven(customer)
    account = account_of(customer)
    booked = CreditTransaction.objects.filter(account=account, kind="adjustment").order_by("id")
    assert (account.balance, account.reserve) == (880, 0)
    assert list(booked.values_list("amount", "seq")) == [(20, None), (100, 1)]


def test_a_void_takes_the_reserve_too() -> None:
    customer = loaded(credits=1000)
    grant = CreditGrant.objects.get(account=customer.account)
    decreases.void_grant(grant=grant, reason="test", actor="", now=timezone.now())
    assert_proven(customer)
    account, live = account_of(customer), counters.inspect(customer.number)
    assert (account.balance, account.reserve, live.balance, live.available) == (0, 0, 0, 0)


def test_a_deduction_may_take_the_reserve_while_all_else_is_held() -> None:
    customer = loaded(credits=1000)
    metering.admit(api_key=customer.api_key, endpoint="query", amount=980)
    decreases.deduct(account=customer.account, amount=20, reason="test", actor="", now=timezone.now())
    account, live = account_of(customer), counters.inspect(customer.number)
    assert (account.balance, account.reserve, live.balance, live.held, live.available) == (980, 0, 980, 980, 0)


def test_a_debit_beyond_what_redis_was_given_is_set_aside() -> None:
    customer = loaded(credits=1000)
    epoch = account_of(customer).epoch
    event = f"{customer.number} {epoch} 1 981 981 6d3b0f0e-6a4f-4a56-9c0e-1d6f1f1f7a35 - -"
    ledger.book([events.parse(b"1700000000000-0", {b"event": event.encode(), b"usage": b""})], now=timezone.now())
    account = account_of(customer)
    assert (account.balance, account.reserve) == (1000, 20)
    assert list(account.set_aside.values_list("reason", "debit")) == [("bad", 981)]


def test_an_account_below_500_has_no_reserve() -> None:
    account = make_account(credits=499)
    loading.load_account(account.number)
    assert (Account.objects.get(pk=account.pk).reserve, counters.inspect(account.number).balance) == (0, 499)
