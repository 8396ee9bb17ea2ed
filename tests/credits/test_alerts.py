"""When customers are told: once per crossing and threshold, again after recovery, once per grant that expires."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone

from accounts.models import Account
from credits import alert_settings, alerts, ledger, metering
from credits.alert_models import Alert, AlertDelivery, AlertState, ExpiryNotice
from credits.models import CreditGrant
from credits.services import top_up
from tests.factories import Customer, make_account, make_customer, make_usage

pytestmark = pytest.mark.usefixtures("stores")


def choose(
    account: Account,
    *,
    low_credits: int = 0,
    low_percent: int = 0,
    expiring_days: int = 0,
    emails: list[str] | None = None,
) -> None:
    alert_settings.save(
        account=account,
        low_credits=low_credits,
        low_percent=low_percent,
        expiring_days=expiring_days,
        emails=emails,
        webhook_url="",
        now=timezone.now(),
    )


def customer_with(credits: int, *, low_credits: int = 0, low_percent: int = 0) -> Customer:
    customer = make_customer(credits=credits)
    choose(customer.account, low_credits=low_credits, low_percent=low_percent)
    return customer


def spend(customer: Customer, total: int) -> None:
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=total)
    metering.settle(hold, total=total, usage=make_usage())
    while ledger.drain_ledger([customer.number % 64], now=timezone.now()).events:
        pass


def give(customer: Customer, amount: int) -> None:
    top_up(account=customer.account, amount=amount, now=timezone.now(), reason="test")


def evaluate() -> None:
    alerts.evaluate(now=timezone.now())


def told(account: Account) -> list[tuple[str, int | None, int]]:
    """(kind, threshold, balance) of each alert, oldest first."""
    return list(Alert.objects.filter(account=account).order_by("id").values_list("kind", "threshold", "balance"))


def test_a_balance_at_the_threshold_is_told() -> None:
    customer = customer_with(1000, low_credits=100)
    evaluate()
    assert told(customer.account) == []
    spend(customer, 900)
    evaluate()
    assert told(customer.account) == [("low_credits", 100, 100)]


def test_a_balance_above_the_threshold_is_not_told() -> None:
    customer = customer_with(1000, low_credits=100)
    spend(customer, 899)
    evaluate()
    assert told(customer.account) == []


def test_a_crossing_is_told_once_however_often_it_is_looked_at() -> None:
    customer = customer_with(1000, low_credits=100)
    for amount in (950, 10, 10):
        spend(customer, amount)
        evaluate()
        evaluate()
    assert told(customer.account) == [("low_credits", 100, 50)]


def test_after_recovery_the_next_crossing_is_told() -> None:
    customer = customer_with(1000, low_credits=100)
    spend(customer, 950)
    evaluate()
    give(customer, 51)
    evaluate()
    spend(customer, 1)
    evaluate()
    assert told(customer.account) == [("low_credits", 100, 50), ("low_credits", 100, 100)]


def test_a_top_up_that_stays_below_the_threshold_is_no_recovery() -> None:
    customer = customer_with(1000, low_credits=100)
    spend(customer, 950)
    evaluate()
    give(customer, 50)
    evaluate()
    spend(customer, 1)
    evaluate()
    assert told(customer.account) == [("low_credits", 100, 50)]


def test_percent_is_of_the_credits_of_open_grants() -> None:
    customer = customer_with(1000, low_percent=20)
    spend(customer, 799)
    evaluate()
    assert told(customer.account) == []
    spend(customer, 1)
    evaluate()
    assert told(customer.account) == [("low_percent", 20, 200)]
    assert Alert.objects.get(account=customer.account).granted == 1000


def test_percent_is_armed_again_by_a_top_up() -> None:
    customer = customer_with(1000, low_percent=20)
    spend(customer, 800)
    evaluate()
    give(customer, 1000)
    evaluate()
    spend(customer, 800)
    evaluate()
    # 1,200 of the two grants' 2,000; the first is used up, so 400 of 1,000, and 200 at last.
    assert told(customer.account) == [("low_percent", 20, 200)]
    spend(customer, 200)
    evaluate()
    assert told(customer.account) == [("low_percent", 20, 200), ("low_percent", 20, 200)]


def test_a_grant_that_is_used_up_does_not_arm_percent_again() -> None:
    customer = customer_with(1000, low_percent=20)
    give(customer, 100)
    spend(customer, 900)
    evaluate()
    assert told(customer.account) == [("low_percent", 20, 200)]
    for _ in range(10):  # the first grant ends at 100: then 100 of 100 is no recovery
        spend(customer, 20)
        evaluate()
    assert told(customer.account) == [("low_percent", 20, 200)]


def test_an_empty_account_is_low_by_percent() -> None:
    customer = customer_with(10, low_percent=20)
    spend(customer, 10)
    evaluate()
    assert told(customer.account) == [("low_percent", 20, 0)]


def test_credits_and_percent_are_told_separately() -> None:
    customer = customer_with(1000, low_credits=100, low_percent=50)
    spend(customer, 500)
    evaluate()
    spend(customer, 400)
    evaluate()
    give(customer, 1)
    evaluate()
    spend(customer, 1)
    evaluate()
    assert told(customer.account) == [("low_percent", 50, 500), ("low_credits", 100, 100), ("low_credits", 100, 100)]


def test_a_threshold_of_zero_is_off() -> None:
    customer = customer_with(10)
    spend(customer, 10)
    evaluate()
    assert told(customer.account) == []


def test_an_account_that_never_had_credits_is_not_low() -> None:
    account = make_account()
    choose(account, low_credits=100, low_percent=20)
    evaluate()
    assert told(account) == []


def test_an_account_that_has_chosen_nothing_follows_the_settings() -> None:
    customer = make_customer(credits=100)
    spend(customer, 80)
    with override_settings(ALERT_LOW_CREDITS=0, ALERT_LOW_PERCENT=0):
        evaluate()
    assert told(customer.account) == []
    with override_settings(ALERT_LOW_CREDITS=30, ALERT_LOW_PERCENT=20):
        evaluate()
    assert told(customer.account) == [("low_credits", 30, 20), ("low_percent", 20, 20)]


def test_a_threshold_that_is_raised_over_the_balance_is_told() -> None:
    customer = customer_with(500, low_credits=100)
    evaluate()
    choose(customer.account, low_credits=500)
    evaluate()
    assert told(customer.account) == [("low_credits", 500, 500)]


@pytest.mark.parametrize("unit", ["low_credits", "low_percent"])
def test_a_threshold_that_is_lowered_under_the_balance_is_armed(unit: str) -> None:
    customer = make_customer(credits=100)
    spend(customer, 20)
    for threshold in (90, 70):
        by_credits = unit == "low_credits"
        choose(customer.account, low_credits=threshold * by_credits, low_percent=threshold * (not by_credits))
        evaluate()
    spend(customer, 10)
    evaluate()
    assert told(customer.account) == [(unit, 90, 80), (unit, 70, 70)]


def test_a_suspended_account_is_not_told() -> None:
    customer = customer_with(10, low_credits=100)
    Account.objects.filter(pk=customer.account.pk).update(state=Account.State.SUSPENDED)
    evaluate()
    assert told(customer.account) == []


def test_an_account_that_did_not_change_is_not_looked_at() -> None:
    customer = customer_with(10, low_credits=100)
    evaluate()
    assert customer.account.pk not in {pk for page in alerts._changed_accounts() for pk in page}
    spend(customer, 1)
    assert customer.account.pk in {pk for page in alerts._changed_accounts() for pk in page}


def test_every_page_of_changed_accounts_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    customers = [customer_with(10, low_credits=100) for _ in range(5)]
    monkeypatch.setattr(alerts, "PAGE", 2)
    evaluate()
    assert [told(customer.account) for customer in customers] == [[("low_credits", 100, 10)]] * 5


def together(work: Callable[[], object], *, times: int = 4) -> None:
    """Runs it in several threads at once, each with a database connection of its own."""

    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    with ThreadPoolExecutor(times) as pool:
        for done in [pool.submit(run) for _ in range(times)]:
            done.result()


def test_passes_at_the_same_time_tell_a_crossing_once() -> None:
    customers = [customer_with(1000, low_credits=100, low_percent=20) for _ in range(10)]
    evaluate()
    for customer in customers:
        spend(customer, 950)
    together(evaluate)
    evaluate()
    assert [told(customer.account) for customer in customers] == [
        [("low_credits", 100, 50), ("low_percent", 20, 50)]
    ] * 10


def test_the_first_passes_at_the_same_time_tell_a_crossing_once() -> None:
    customers = [customer_with(10, low_credits=100) for _ in range(10)]
    together(evaluate)
    evaluate()
    assert [told(customer.account) for customer in customers] == [[("low_credits", 100, 10)]] * 10


def test_a_pass_leaves_accounts_alone_that_another_one_looks_at() -> None:
    customer = customer_with(1000, low_credits=100)
    evaluate()
    spend(customer, 950)
    with transaction.atomic():
        AlertState.objects.select_for_update().get(account=customer.account)
        together(evaluate, times=1)
        assert told(customer.account) == []
    evaluate()
    assert told(customer.account) == [("low_credits", 100, 50)]


def test_an_alert_goes_to_the_accounts_address_unless_others_are_set() -> None:
    theirs, chosen, none = (make_account(credits=10) for _ in range(3))
    choose(theirs, low_credits=10)
    choose(chosen, low_credits=10, emails=["a@example.com", "B@example.com", "a@example.com"])
    choose(none, low_credits=10, emails=[])
    evaluate()
    targets = [
        sorted(AlertDelivery.objects.filter(alert__account=account).values_list("target", flat=True))
        for account in (theirs, chosen, none)
    ]
    assert targets == [[theirs.email], ["a@example.com", "b@example.com"], []]


NOW = datetime(2031, 5, 1, 12, tzinfo=UTC)


def expiring(account: Account, amount: int, *, days: float, at: datetime = NOW) -> CreditGrant:
    top_up(account=account, amount=amount, now=timezone.now(), kind="promo", expires_at=at + timedelta(days=days))
    return CreditGrant.objects.filter(account=account).order_by("-created_at")[0]


def announced(account: Account) -> list[tuple[int | None, int | None, int | None]]:
    """(credits, grants, days) of each alert of credits that expire, oldest first."""
    found = Alert.objects.filter(account=account, kind="expiring").order_by("id")
    return list(found.values_list("expiring", "expiring_grants", "threshold"))


def test_a_grant_inside_the_window_is_announced_once() -> None:
    account = make_account()
    choose(account, expiring_days=7)
    grant = expiring(account, 30, days=7)
    alerts.evaluate(now=NOW - timedelta(seconds=1))
    assert announced(account) == []
    alerts.evaluate(now=NOW)
    alerts.evaluate(now=NOW + timedelta(days=1))
    assert announced(account) == [(30, 1, 7)]
    assert Alert.objects.get(account=account, kind="expiring").expires_at == grant.expires_at


def test_grants_that_enter_the_window_together_are_one_alert() -> None:
    account = make_account()
    choose(account, expiring_days=7)
    first, _, later = expiring(account, 30, days=5), expiring(account, 20, days=6), expiring(account, 5, days=8)
    alerts.evaluate(now=NOW)
    alerts.evaluate(now=NOW + timedelta(days=2))
    assert announced(account) == [(50, 2, 7), (5, 1, 7)]
    assert Alert.objects.filter(account=account, expires_at=first.expires_at).count() == 1
    assert ExpiryNotice.objects.get(grant=later).remaining == 5


def test_another_window_announces_a_grant_once_more() -> None:
    account = make_account()
    choose(account, expiring_days=30)
    expiring(account, 30, days=6)
    alerts.evaluate(now=NOW)
    choose(account, expiring_days=7)
    alerts.evaluate(now=NOW)
    choose(account, expiring_days=30)
    alerts.evaluate(now=NOW)
    assert announced(account) == [(30, 1, 30), (30, 1, 7)]


@pytest.mark.parametrize("days", [0, 7])
def test_grants_outside_the_window_are_not_announced(days: int) -> None:
    account = make_account(credits=10)
    choose(account, expiring_days=days)
    expiring(account, 30, days=7.1)
    past = expiring(account, 20, days=3)
    alerts.evaluate(now=(past.expires_at or NOW) + timedelta(seconds=1) if days == 0 else NOW)
    assert [row for row in announced(account) if row[0] != 20] == []


def test_a_grant_that_has_expired_or_is_used_up_is_not_announced() -> None:
    customer = make_customer()
    choose(customer.account, expiring_days=7)
    expiring(customer.account, 30, days=7)
    alerts.evaluate(now=NOW + timedelta(days=7))
    expiring(customer.account, 20, days=8)
    spend(customer, 50)
    alerts.evaluate(now=NOW + timedelta(days=2))
    assert announced(customer.account) == []


def test_passes_at_the_same_time_announce_a_grant_once() -> None:
    accounts = [make_account() for _ in range(5)]
    for account in accounts:
        choose(account, expiring_days=7)
        expiring(account, 30, days=5)
    together(lambda: alerts.evaluate(now=NOW))
    assert [announced(account) for account in accounts] == [[(30, 1, 7)]] * 5


def test_every_page_of_grants_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = [make_account() for _ in range(3)]
    for account in accounts:
        choose(account, expiring_days=7)
        expiring(account, 10, days=4)
        expiring(account, 20, days=5)
    monkeypatch.setattr(alerts, "PAGE", 2)
    alerts.evaluate(now=NOW)
    assert [sum(row[0] or 0 for row in announced(account)) for account in accounts] == [30, 30, 30]
