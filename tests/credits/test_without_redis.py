"""Calls that the reserve decides and pays, Redis being away, and what becomes of it when Redis is back."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from accounts import keys, revocation, services
from accounts.models import Account, ApiKey
from config import metrics
from config.breaker import breaker_of
from config.clickhouse.client import reader
from config.errors import TemporarilyUnavailable
from config.redis import PARTITIONS, money
from credits import counters, drain, ledger, loading, metering, refusals, reserve, usage, verify
from credits.events import Event
from credits.models import Command, CreditGrant, CreditTransaction, GrantDraw, ReserveUsage
from credits.rate import LocalWindows
from credits.services import top_up
from tests.factories import Customer, make_customer, make_usage
from tests.outages import postgres_away, redis_away

pytestmark = pytest.mark.usefixtures("stores")

COUNTER = "meterhouse_reserve_calls_total"


def loaded(*, credits: int = 10_000, rpm: int = 0) -> Customer:
    """A customer whose account Redis knows; 10,000 credits keep 200 in reserve."""
    customer = make_customer(credits=credits, rpm=rpm)
    loading.load_account(customer.number)
    return customer


def account_of(customer: Customer) -> Account:
    return Account.objects.get(number=customer.number)


def admit(customer: Customer, amount: int, *, key: str = "", body: bytes = b"{}") -> metering.Hold:
    return metering.admit(
        api_key=customer.api_key, endpoint="query", amount=amount, idempotency_key=key, body=body, address="192.0.2.1"
    )


def charges(customer: Customer) -> list[tuple[int, int | None]]:
    """(amount, seq) of each usage entry; the reserve's have no seq."""
    entries = CreditTransaction.objects.filter(account=customer.account, kind="usage").order_by("id")
    return list(entries.values_list("amount", "seq"))


def assert_proven(customer: Customer) -> None:
    drain.drain_once()
    _, behind, differences = verify._live_differences([customer.number])
    assert (verify._ledger_differences([customer.number]), behind, differences) == ([], [], [])


def logged(customer: Customer) -> list[tuple[str, int]]:
    """(request id, credits) of the customer's rows in the usage log."""
    rows = reader().query(
        "SELECT request_id, credits FROM usage FINAL WHERE account_number = {n:UInt64} ORDER BY at LIMIT 100",
        parameters={"n": customer.number},
    )
    return [(str(request_id), int(paid)) for request_id, paid in rows.result_rows]


# --- deciding --------------------------------------------------------------------------------------------------------


def test_a_request_is_decided_and_paid_by_the_reserve() -> None:
    customer = loaded()
    with redis_away():
        hold = admit(customer, 5)
        settlement = metering.settle(hold, total=3, usage=make_usage())
    account = account_of(customer)
    assert (hold.from_reserve, settlement) == (True, metering.Settlement(3, 9997))
    assert (account.balance, account.reserve, charges(customer)) == (9997, 197, [(3, None)])
    assert_proven(customer)


def test_calls_without_redis_are_counted() -> None:
    customer = loaded()

    def counted() -> list[float]:
        samples = [metrics._registry.get_sample_value(COUNTER, {"step": step}) for step in ("decided", "paid")]
        return [sample or 0.0 for sample in samples]

    before = counted()
    with redis_away():
        metering.settle(admit(customer, 5), total=3, usage=make_usage())
        admit(customer, 5)
    assert [after - earlier for after, earlier in zip(counted(), before, strict=True)] == [2.0, 1.0]


def test_what_the_reserve_paid_is_drawn_in_burn_down_order() -> None:
    customer = loaded()
    promo = top_up(account=customer.account, amount=2, now=timezone.now(), kind="promo").grant
    with redis_away():
        metering.settle(admit(customer, 5), total=3, usage=make_usage())
    draws = GrantDraw.objects.filter(grant__account=customer.account).order_by("id")
    purchase = CreditGrant.objects.get(account=customer.account, kind="purchase")
    assert list(draws.values_list("grant_id", "amount")) == [(promo.pk, 2), (purchase.pk, 1)]


def test_redis_learns_what_the_reserve_paid() -> None:
    customer = loaded()
    with redis_away():
        metering.settle(admit(customer, 5), total=3, usage=make_usage())
    drain.drain_once()
    live = counters.inspect(customer.number)
    assert (live.balance, live.reserve, live.available) == (9800, 197, 9997)


def test_a_monthly_cap_counts_what_the_reserve_paid() -> None:
    customer = make_customer(credits=10_000)
    customer.account.api_keys.update(monthly_cap=10)
    loading.load_account(customer.number)
    with redis_away():
        metering.settle(admit(customer, 7), total=7, usage=make_usage())
        with pytest.raises(refusals.InsufficientCredits) as refused:
            admit(customer, 4)
    assert refused.value.details == {"required": 4, "available": 3, "limit_source": "key_cap"}
    drain.drain_once()
    with pytest.raises(refusals.InsufficientCredits) as refused:
        admit(customer, 4)
    assert refused.value.details == {"required": 4, "available": 3, "limit_source": "key_cap"}


def test_a_load_counts_what_the_reserve_paid_once_in_the_cap() -> None:
    customer = make_customer(credits=10_000)
    customer.account.api_keys.update(monthly_cap=10)
    loading.load_account(customer.number)
    with redis_away():
        metering.settle(admit(customer, 7), total=7, usage=make_usage())
    money().flushall()
    drain.drain_once()
    assert admit(customer, 3).amount == 3


def test_a_free_call_is_answered() -> None:
    customer = loaded()
    with redis_away():
        assert metering.identify(api_key=customer.api_key, endpoint="credits").account_number == customer.number


def test_credits_shows_the_balance_of_the_ledger() -> None:
    customer = loaded()
    with redis_away():
        answer = Client().get("/api/v1/credits", headers={"X-API-Key": customer.api_key})
    assert (answer.status_code, answer.json()["data"]["balance"]) == (200, 10_000)


def test_more_than_the_reserve_is_unavailable_and_more_than_the_balance_unpaid() -> None:
    customer = loaded()
    with redis_away():
        assert admit(customer, 200).amount == 200
        with pytest.raises(reserve.ReserveShort) as short:
            admit(customer, 201)
        with pytest.raises(refusals.InsufficientCredits) as unpaid:
            admit(customer, 10_001)
    assert (short.value.status, short.value.code, short.value.headers) == (
        503,
        "TEMPORARILY_UNAVAILABLE",
        {"Retry-After": "2"},
    )
    assert unpaid.value.details == {"required": 10_001, "available": 10_000, "limit_source": "account"}


def test_an_account_without_a_reserve_waits_for_redis() -> None:
    customer = loaded(credits=499)
    with redis_away(), pytest.raises(reserve.ReserveShort):
        admit(customer, 1)


def test_a_download_waits_for_redis() -> None:
    customer = loaded()
    with redis_away(), pytest.raises(TemporarilyUnavailable, match="Downloads wait"):
        metering.admit(api_key=customer.api_key, endpoint="download", amount=1)


def test_a_release_never_raises() -> None:
    customer = loaded()
    hold = admit(customer, 5)
    counters.close(account_number=customer.number, epoch=account_of(customer).epoch, even_if_usable=True, lease_ms=0)
    with postgres_away():
        assert metering.release(hold, usage=make_usage(status=503)).charged == 0
        with pytest.raises(TemporarilyUnavailable, match="could not be confirmed"):
            metering.settle(hold, total=3, usage=make_usage())


def test_nobody_decides_without_both_stores() -> None:
    customer = loaded()
    with redis_away(), postgres_away(), pytest.raises(TemporarilyUnavailable) as refused:
        admit(customer, 1)
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "2"})
    assert_proven(customer)


def test_a_settle_that_neither_store_takes_delivers_nothing() -> None:
    customer = loaded()
    with redis_away():
        hold = admit(customer, 5)
        with postgres_away(), pytest.raises(TemporarilyUnavailable):
            metering.settle(hold, total=3, usage=make_usage())
    assert charges(customer) == []


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_wrong_secret_is_refused() -> None:
    customer = loaded()
    ApiKey.objects.filter(pk=customer.key_id).update(digest="0" * 64)
    with redis_away(), pytest.raises(refusals.KeyRefused) as refused:
        admit(customer, 1)
    assert refused.value.code == "INVALID_KEY"


def test_a_key_that_does_not_exist_is_refused_and_remembered() -> None:
    customer = loaded()
    stranger = keys.generate(account_number=customer.number)
    with redis_away():
        with pytest.raises(refusals.KeyRefused):
            metering.identify(api_key=stranger, endpoint="credits")
        with postgres_away(), pytest.raises(refusals.KeyRefused):
            metering.identify(api_key=stranger, endpoint="credits")


def test_a_revoked_key_is_refused() -> None:
    customer = loaded()
    with redis_away():
        revocation.revoke_key(public_id=customer.key_id, now=timezone.now())
        with pytest.raises(refusals.KeyRevoked):
            admit(customer, 1)


def test_an_expired_key_is_refused() -> None:
    customer = loaded()
    ApiKey.objects.filter(pk=customer.key_id).update(expires_at=timezone.now() - timedelta(seconds=1))
    with redis_away(), pytest.raises(refusals.KeyExpired):
        admit(customer, 1)


def test_a_key_without_the_scope_is_refused() -> None:
    customer = loaded()
    ApiKey.objects.filter(pk=customer.key_id).update(scopes=["download"])
    with redis_away(), pytest.raises(refusals.InsufficientScope):
        admit(customer, 1)


@pytest.mark.parametrize(("network", "allowed"), [("192.0.2.0/24", True), ("198.51.100.0/24", False), ("::/0", True)])
def test_a_key_is_bound_to_its_networks(network: str, allowed: bool) -> None:
    customer = loaded()
    ApiKey.objects.filter(pk=customer.key_id).update(networks=[network])
    with redis_away():
        if allowed:
            assert admit(customer, 1).amount == 1
        else:
            with pytest.raises(refusals.AddressNotAllowed):
                admit(customer, 1)


def test_a_suspended_account_is_refused() -> None:
    customer = loaded()
    with redis_away():
        services.set_account_state(account=customer.account, state="suspended")
        with pytest.raises(refusals.AccountSuspended):
            admit(customer, 1)


def test_a_process_keeps_the_rate_limit_by_itself() -> None:
    customer = loaded(rpm=2)
    with redis_away():
        remaining = [admit(customer, 1).rate.remaining for _ in range(2)]
        with pytest.raises(refusals.RateLimited) as refused:
            admit(customer, 1)
    assert (remaining, refused.value.headers["Retry-After"]) == ([1, 0], "60")


def test_a_local_window_slides_and_forgets_the_key_used_longest_ago() -> None:
    windows = LocalWindows(keys_max=2)
    answers = [windows.count("a", limit=2, now=now) for now in (0.0, 30.0, 59.0, 60.0)]
    assert [(answer.allowed, answer.remaining, answer.reset_ms) for answer in answers] == [
        (True, 1, 60_000),
        (True, 0, 30_000),
        (False, 0, 1_000),
        (True, 0, 30_000),
    ]
    windows.count("b", limit=1, now=60.0)
    windows.count("c", limit=1, now=60.0)
    assert windows.count("a", limit=2, now=60.0).remaining == 1


# --- paying ----------------------------------------------------------------------------------------------------------


def test_the_reserve_is_never_overspent_by_requests_at_once() -> None:
    customer = loaded()
    start = threading.Barrier(6)

    def one(_: int) -> int:
        try:
            hold = admit(customer, 60)
            start.wait()
            return metering.settle(hold, total=60, usage=make_usage()).charged
        except reserve.ReserveShort:
            return 0
        finally:
            connection.close()

    with redis_away(), ThreadPoolExecutor(6) as pool:
        charged = list(pool.map(one, range(6)))
    account = account_of(customer)
    assert (sum(charged), account.balance, account.reserve) == (180, 9820, 20)
    assert_proven(customer)


def test_a_request_that_redis_admitted_is_paid_by_the_reserve() -> None:
    customer = loaded()
    hold = admit(customer, 5)
    with redis_away():
        settlement = metering.settle(hold, total=3, usage=make_usage())
    assert (settlement, charges(customer)) == (metering.Settlement(3, 9997), [(3, None)])
    assert_proven(customer)


def test_a_settle_whose_reply_was_lost_is_charged_once() -> None:
    customer = loaded()
    hold = admit(customer, 5)
    settle_in_redis(hold, 3)
    with redis_away():
        settlement = metering.settle(hold, total=3, usage=make_usage())
    drain.drain_once()
    live = counters.inspect(customer.number)
    assert (settlement.charged, charges(customer)) == (3, [(3, None)])
    assert list(customer.account.set_aside.values_list("reason", "debit")) == [("paid", 3)]
    assert (live.balance, live.reserve, live.held) == (9800, 197, 0)
    assert_proven(customer)


def test_a_settle_that_was_drained_meanwhile_is_charged_once() -> None:
    customer = loaded()
    hold = admit(customer, 5)
    settle_in_redis(hold, 3)
    drain.drain_once()
    with redis_away():
        settlement = metering.settle(hold, total=3, usage=make_usage())
    assert (settlement, charges(customer), account_of(customer).reserve) == (
        metering.Settlement(3, 9997),
        [(3, 1)],
        200,
    )


def test_a_settle_that_reaches_redis_after_the_reserve_paid_is_returned() -> None:
    customer = loaded()
    hold = admit(customer, 5)
    with redis_away():
        metering.settle(hold, total=3, usage=make_usage())
    settle_in_redis(hold, 3)
    drain.drain_once()
    assert (charges(customer), counters.inspect(customer.number).available) == ([(3, None)], 9997)
    assert_proven(customer)


def test_a_clock_of_redis_that_is_ahead_changes_nothing() -> None:
    customer = loaded()
    hold = admit(customer, 5)
    with redis_away():
        metering.settle(hold, total=3, usage=make_usage())
    in_two_days = int((timezone.now() + timedelta(days=2)).timestamp() * 1000)
    epoch, operation = account_of(customer).epoch, uuid.UUID(hold.operation)
    event = Event(f"{in_two_days}-0", customer.number, epoch, 1, 3, 3, operation, customer.key_id, "")
    ledger.book([event], now=timezone.now())
    assert charges(customer) == [(3, None)]


def test_the_hold_of_a_request_that_the_reserve_paid_is_swept() -> None:
    customer = loaded()
    hold = admit(customer, 5)
    with redis_away():
        metering.settle(hold, total=3, usage=make_usage())
    expire(hold)
    assert counters.sweep(customer.number, hold.operation).status == "OK"
    live = counters.inspect(customer.number)
    assert (live.balance, live.held) == (9800, 0)
    assert_proven(customer)


def test_a_part_of_a_stream_is_not_paid_by_the_reserve() -> None:
    customer = loaded()
    hold = admit(customer, 50)
    metering.settle(hold, total=10, usage=None, final=False)
    with redis_away():
        with pytest.raises(TemporarilyUnavailable):
            metering.settle(hold, total=20, usage=None, final=False)
        assert metering.settle(hold, total=10, usage=make_usage()).charged == 10
    drain.drain_once()
    assert charges(customer) == [(10, 1)]


def test_a_reserve_that_is_short_of_a_request_of_redis_withholds_its_rows() -> None:
    customer = loaded()
    hold = admit(customer, 500)
    with redis_away(), pytest.raises(TemporarilyUnavailable, match="could not be confirmed"):
        metering.settle(hold, total=300, usage=make_usage())
    assert charges(customer) == []
    assert_proven(customer)


def test_a_request_of_the_reserve_that_fails_costs_nothing() -> None:
    customer = loaded()
    with redis_away():
        hold = admit(customer, 5)
        assert metering.release(hold, usage=make_usage(status=503)) == metering.Settlement(0, 10_000)
    assert (charges(customer), account_of(customer).reserve) == ([], 200)


def test_an_idempotency_key_is_charged_once_by_the_reserve() -> None:
    customer = loaded()
    with redis_away():
        first = metering.settle(admit(customer, 5, key="k"), total=3, usage=make_usage())
        hold = admit(customer, 5, key="k")
        second = metering.settle(hold, total=3, usage=make_usage())
    assert (first.charged, second.charged, hold.replayed, charges(customer)) == (3, 0, True, [(3, None)])


def test_two_attempts_under_one_idempotency_key_at_once_are_charged_once() -> None:
    customer = loaded()
    with redis_away():
        first, second = admit(customer, 5, key="k"), admit(customer, 5, key="k")
        settled = [metering.settle(hold, total=3, usage=make_usage()).charged for hold in (first, second)]
    assert (settled, first.replayed, second.replayed, charges(customer)) == ([3, 0], False, True, [(3, None)])


def test_an_idempotency_key_of_before_the_outage_is_not_charged_again() -> None:
    customer = loaded()
    metering.settle(admit(customer, 5, key="k"), total=3, usage=make_usage())
    drain.drain_once()
    with redis_away():
        hold = admit(customer, 5, key="k")
        assert (hold.replayed, metering.settle(hold, total=3, usage=make_usage()).charged) == (True, 0)
    assert charges(customer) == [(3, 1)]


def test_an_idempotency_key_of_the_outage_is_not_charged_again() -> None:
    customer = loaded()
    with redis_away():
        metering.settle(admit(customer, 5, key="k"), total=3, usage=make_usage())
    metering.settle(admit(customer, 5, key="k"), total=3, usage=make_usage())
    assert_proven(customer)
    assert (charges(customer), counters.inspect(customer.number).available) == ([(3, None)], 9997)


# --- the usage log ---------------------------------------------------------------------------------------------------


def test_what_the_reserve_paid_stands_in_the_usage_log_once() -> None:
    customer = loaded()
    report = make_usage()
    with redis_away():
        metering.settle(admit(customer, 5), total=3, usage=report)
        usage.copy_reserve_usage(now=timezone.now())
    ReserveUsage.objects.filter(account_number=customer.number).update(copied_at=None)
    drain.drain_once()
    assert logged(customer) == [(report.request_id, 3)]


def test_a_request_that_both_have_charged_stands_in_the_usage_log_once() -> None:
    customer = loaded()
    hold, report = admit(customer, 5), make_usage()
    settle_in_redis(hold, 3, report.as_json())
    with redis_away():
        metering.settle(hold, total=3, usage=report)
    drain.drain_once()
    assert logged(customer) == [(report.request_id, 3)]


def test_copied_usage_of_the_reserve_is_forgotten_after_a_week() -> None:
    customer = loaded()
    with redis_away():
        metering.settle(admit(customer, 5), total=3, usage=make_usage())
    now = timezone.now()
    usage.copy_reserve_usage(now=now)
    usage.copy_reserve_usage(now=now + timedelta(days=6))
    assert ReserveUsage.objects.filter(account_number=customer.number).count() == 1
    usage.copy_reserve_usage(now=now + timedelta(days=8))
    assert ReserveUsage.objects.filter(account_number=customer.number).count() == 0


# --- coming back -----------------------------------------------------------------------------------------------------


def test_one_process_without_redis_and_one_with_it_never_overspend() -> None:
    customer = loaded(credits=1000)
    with redis_away():
        metering.settle(admit(customer, 20), total=20, usage=make_usage())
    metering.settle(admit(customer, 980), total=980, usage=make_usage())
    with pytest.raises(refusals.InsufficientCredits):
        admit(customer, 1)
    assert_proven(customer)
    assert account_of(customer).balance == 0


def test_balances_agree_after_redis_came_back_without_data() -> None:
    customer = loaded()
    metering.settle(admit(customer, 5), total=5, usage=make_usage())
    drain.drain_once()
    with redis_away():
        metering.settle(admit(customer, 5), total=3, usage=make_usage())
    money().flushall()
    drain.drain_once()
    live = counters.inspect(customer.number)
    assert (live.usable, live.available, account_of(customer).balance) == (True, 9992, 9992)
    assert_proven(customer)


def test_the_reserve_is_filled_again_by_a_load() -> None:
    customer = loaded()
    with redis_away():
        metering.settle(admit(customer, 150), total=150, usage=make_usage())
    assert account_of(customer).reserve == 50
    loading.load_account(customer.number, even_if_usable=True)
    assert account_of(customer).reserve == 197
    assert_proven(customer)


def test_the_breaker_opens_and_redis_is_asked_again_when_it_is_back() -> None:
    customer = loaded()
    with redis_away():
        admit(customer, 1)
        assert breaker_of(customer.number % PARTITIONS, now=0.0).is_open
    assert admit(customer, 1).from_reserve is False


def test_a_note_is_applied_once() -> None:
    customer = loaded()
    with redis_away():
        metering.settle(admit(customer, 5), total=3, usage=make_usage())
    note = Command.objects.get(account=customer.account, kind="note")
    for _ in range(2):
        loading._deliver(customer.number, note)
    live = counters.inspect(customer.number)
    assert (note.amount, note.reserve, live.balance, live.reserve) == (3, 197, 9800, 197)
    assert_proven(customer)


def settle_in_redis(hold: metering.Hold, total: int, report: str = "") -> None:
    """What happens when the script runs and its reply is lost."""
    charge = counters.settle(
        account_number=hold.account_number,
        operation=hold.operation,
        attempt=hold.attempt,
        total=total,
        final=True,
        amount=hold.amount,
        deadline_ms=hold.deadline_ms,
        key_id=hold.key_id,
        endpoint=hold.endpoint,
        usage=report,
        kept_ms=hold.kept_ms,
    )
    assert charge.status == "OK"


def expire(hold: metering.Hold) -> None:
    name = counters.account_key(hold.account_number)
    packed = money().hget(name, f"h:{uuid.UUID(hold.operation)}")
    fields = bytes(packed or b"").split(b" ")  # type: ignore[arg-type]
    fields[1] = b"1"
    money().hset(name, f"h:{hold.operation}", b" ".join(fields))
