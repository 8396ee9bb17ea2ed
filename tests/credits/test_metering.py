"""Admit, settle and release on the real counters."""

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.conf import settings
from django.test import override_settings
from django.utils import timezone

from accounts import key_state, keys, revocation, services
from config.errors import TemporarilyUnavailable
from config.redis import money
from credits import counters, drain, loading, metering, rate, refusals
from credits.services import top_up
from tests.factories import make_account, make_customer, make_usage
from tests.outages import redis_away

pytestmark = pytest.mark.usefixtures("stores")


def test_admit_holds_the_amount() -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=11)
    live = counters.inspect(customer.number)
    assert (hold.amount, hold.available, live.balance, live.held) == (11, 89, 100, 11)


def test_settle_charges_the_true_price_and_frees_the_rest() -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=11)
    settlement = metering.settle(hold, total=2, usage=make_usage())
    live = counters.inspect(customer.number)
    assert (settlement.charged, settlement.available, live.balance, live.held) == (2, 98, 98, 0)


def test_settle_of_the_same_attempt_again_charges_nothing() -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=11)
    first = metering.settle(hold, total=2, usage=make_usage())
    assert metering.settle(hold, total=2, usage=make_usage()) == first
    assert counters.inspect(customer.number).balance == 98


def test_settle_of_nothing_is_free_and_closes_the_hold() -> None:
    customer = make_customer(credits=10)
    hold = metering.admit(api_key=customer.api_key, endpoint="person", amount=1)
    assert metering.settle(hold, total=0, usage=make_usage(status=404)).charged == 0
    live = counters.inspect(customer.number)
    assert (live.balance, live.held, live.seq) == (10, 0, 0)


def test_settle_above_the_hold_is_refused() -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=5)
    with pytest.raises(RuntimeError, match="OVER"):
        metering.settle(hold, total=6, usage=make_usage())
    assert counters.inspect(customer.number).balance == 100


def test_settle_charges_a_stream_by_its_cumulative_total() -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="download", amount=50)
    totals = [metering.settle(hold, total=total, usage=None, final=False).charged for total in (5, 8, 8)]
    final = metering.settle(hold, total=9, usage=make_usage())
    live = counters.inspect(customer.number)
    assert (totals, final.charged, live.balance, live.held, live.seq) == ([5, 8, 8], 9, 91, 0, 3)


def test_settle_of_a_chunk_extends_the_deadline() -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="download", amount=50)
    before = hold.deadline_ms
    with override_settings(HOLD_S=settings.HOLD_S + 60):
        metering.settle(hold, total=1, usage=None, final=False)
    assert hold.deadline_ms >= before + 60_000


def test_release_gives_everything_back() -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=11)
    assert metering.release(hold, usage=make_usage(status=504)) == metering.Settlement(0, 100)
    assert counters.inspect(customer.number).held == 0


def test_release_of_a_stream_keeps_what_was_delivered() -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="download", amount=50)
    metering.settle(hold, total=7, usage=None, final=False)
    assert metering.release(hold, usage=make_usage()) == metering.Settlement(7, 93)


def test_settle_after_release_charges_nothing() -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=11)
    metering.release(hold, usage=make_usage())
    with pytest.raises(refusals.HoldExpired):
        metering.settle(hold, total=2, usage=make_usage())
    assert counters.inspect(customer.number).balance == 100


def test_the_mark_of_a_release_lives_until_its_deadline() -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=11)
    metering.release(hold, usage=make_usage())
    left_ms = money().pttl(counters._operation_key(customer.number, hold.operation))
    seconds, microseconds = money().time()
    assert seconds * 1000 + microseconds // 1000 + left_ms >= hold.deadline_ms


def test_settle_after_the_deadline_and_sweep_charges_nothing() -> None:
    customer = make_customer(credits=100)
    with override_settings(HOLD_S=-1):
        hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=11)
    assert counters.sweep(customer.number, hold.operation).status == "OK"
    money().delete(
        counters._operation_key(customer.number, hold.operation)
    )  # its mark lives no longer than the deadline
    with pytest.raises(refusals.HoldExpired):
        metering.settle(hold, total=2, usage=make_usage())
    live = counters.inspect(customer.number)
    assert (live.balance, live.held) == (100, 0)


def test_sweep_before_the_deadline_leaves_the_hold() -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=11)
    assert counters.sweep(customer.number, hold.operation).status == "NOT_DUE"
    assert counters.inspect(customer.number).held == 11


def test_settle_by_another_attempt_is_refused() -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=11)
    with pytest.raises(refusals.HoldExpired):
        metering.settle(dataclasses.replace(hold, attempt="other"), total=2, usage=make_usage())
    assert counters.inspect(customer.number).held == 11


def test_admit_of_the_same_attempt_again_holds_once() -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=11)
    key = metering._presented(customer.api_key)
    again = counters.admit(
        key=key, amount=11, operation=hold.operation, attempt=hold.attempt, endpoint="query", scope="search"
    )
    assert (again.status, again.deadline_ms, counters.inspect(customer.number).held) == ("OK", hold.deadline_ms, 11)


def test_admit_refuses_when_available_is_short() -> None:
    customer = make_customer(credits=10)
    with pytest.raises(refusals.InsufficientCredits) as refused:
        metering.admit(api_key=customer.api_key, endpoint="query", amount=11)
    assert refused.value.message == "Insufficient credits. Required: 11, Available: 10"
    assert refused.value.details == {"required": 11, "available": 10, "limit_source": "account"}


def test_admit_says_in_flight_when_only_other_holds_stand_in_the_way() -> None:
    customer = make_customer(credits=10)
    metering.admit(api_key=customer.api_key, endpoint="query", amount=8)
    with pytest.raises(refusals.InsufficientCredits) as refused:
        metering.admit(api_key=customer.api_key, endpoint="query", amount=5)
    assert refused.value.details == {"required": 5, "available": 2, "limit_source": "in_flight"}


def test_admit_from_many_threads_never_spends_more_than_there_is() -> None:
    customer = make_customer(credits=50)
    metering.identify(api_key=customer.api_key, endpoint="credits")

    def call(_: int) -> bool:
        try:
            hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=1)
        except refusals.InsufficientCredits:
            return False
        metering.settle(hold, total=1, usage=make_usage())
        return True

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(call, range(200)))
    live = counters.inspect(customer.number)
    assert (outcomes.count(True), live.balance, live.held, live.seq) == (50, 0, 0, 50)


@pytest.mark.parametrize("api_key", [None, ""])
def test_admit_asks_for_a_missing_key(api_key: str | None) -> None:
    with pytest.raises(refusals.MissingKey):
        metering.admit(api_key=api_key, endpoint="query", amount=1)


@pytest.mark.parametrize("api_key", ["demo-key", "mh_live_x_y", "mh_live_" + "0" * 60, "é" * 20, "\x00"])
def test_admit_refuses_a_malformed_key(api_key: str) -> None:
    with pytest.raises(refusals.KeyRefused) as refused:
        metering.admit(api_key=api_key, endpoint="query", amount=1)
    assert refused.value.code == "INVALID_KEY"


def test_admit_refuses_a_well_formed_key_nobody_issued() -> None:
    with pytest.raises(refusals.KeyRefused) as refused:
        metering.admit(api_key=keys.generate(account_number=make_account().number), endpoint="query", amount=1)
    assert refused.value.code == "INVALID_KEY"


def test_admit_refuses_another_secret_under_a_known_id() -> None:
    customer = make_customer(credits=10)
    body = f"mh_live_{customer.key_id}_" + "A" * keys.SECRET_LENGTH
    with pytest.raises(refusals.KeyRefused) as refused:
        metering.admit(api_key=body + keys._crc(body), endpoint="query", amount=1)
    assert refused.value.code == "INVALID_KEY"


def test_admit_refuses_a_revoked_key() -> None:
    customer = make_customer(credits=10)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    revocation.revoke_key(public_id=customer.key_id, now=timezone.now())
    with pytest.raises(refusals.KeyRevoked):
        metering.admit(api_key=customer.api_key, endpoint="query", amount=1)


def test_admit_refuses_a_revoked_key_after_redis_lost_everything() -> None:
    customer = make_customer(credits=10)
    revocation.revoke_key(public_id=customer.key_id, now=timezone.now())
    money().flushall()
    with pytest.raises(refusals.KeyRevoked):
        metering.admit(api_key=customer.api_key, endpoint="query", amount=1)


def test_admit_refuses_a_suspended_account_until_it_is_active_again() -> None:
    customer = make_customer(credits=10)
    services.set_account_state(account=customer.account, state="suspended")
    with pytest.raises(refusals.AccountSuspended):
        metering.admit(api_key=customer.api_key, endpoint="query", amount=1)
    services.set_account_state(account=customer.account, state="active")
    assert metering.admit(api_key=customer.api_key, endpoint="query", amount=1).available == 9


def test_rate_limit_refuses_the_sixth_call_of_five() -> None:
    customer = make_customer(credits=100, rpm=5)
    remaining = [metering.identify(api_key=customer.api_key, endpoint="credits").rate.remaining for _ in range(5)]
    with pytest.raises(refusals.RateLimited) as refused:
        metering.admit(api_key=customer.api_key, endpoint="query", amount=1)
    assert remaining == [4, 3, 2, 1, 0]
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
    assert counters.inspect(customer.number).held == 0


def test_rate_limit_of_a_key_without_its_own_follows_the_setting() -> None:
    customer = make_customer(credits=100, rpm=None)
    with override_settings(RATE_LIMIT_RPM=2):
        metering.identify(api_key=customer.api_key, endpoint="credits")
        metering.identify(api_key=customer.api_key, endpoint="credits")
        with pytest.raises(refusals.RateLimited):
            metering.identify(api_key=customer.api_key, endpoint="credits")


def test_rate_limit_slides_call_by_call() -> None:
    customer = make_customer(credits=100, rpm=2)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    metering.identify(api_key=customer.api_key, endpoint="credits")
    # The older of the two calls leaves the minute.
    window = key_state.rate_key(customer.key_id, customer.number)
    money().lset(window, -1, str(int(money().lindex(window, -1) or 0) - 60_001))
    assert metering.identify(api_key=customer.api_key, endpoint="credits").rate.remaining == 0
    with pytest.raises(refusals.RateLimited):
        metering.identify(api_key=customer.api_key, endpoint="credits")


def test_an_unaffordable_call_counts_once_in_the_window() -> None:
    customer = make_customer(credits=1, rpm=10)
    with pytest.raises(refusals.InsufficientCredits):
        metering.admit(api_key=customer.api_key, endpoint="query", amount=2)
    assert metering.identify(api_key=customer.api_key, endpoint="credits").rate.remaining == 8


def test_admit_is_refused_while_the_journal_is_full() -> None:
    customer = make_customer(credits=10)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    with override_settings(JOURNAL_EVENTS_MAX=0), pytest.raises(TemporarilyUnavailable) as refused:
        metering.admit(api_key=customer.api_key, endpoint="query", amount=1)
    assert refused.value.headers == {"Retry-After": "5"}


def test_rate_headers_carry_the_common_and_the_ietf_form() -> None:
    before = int(time.time())
    headers = rate.rate_headers(rate.RateWindow(limit=60, remaining=59, reset_s=60))
    assert before + 60 <= int(headers.pop("X-RateLimit-Reset")) <= int(time.time()) + 60
    assert headers == {
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "59",
        "RateLimit-Policy": '"minute";q=60;w=60',
        "RateLimit": '"minute";r=59;t=60',
    }


def test_admit_is_refused_while_redis_is_away() -> None:
    customer = make_customer(credits=10)
    with redis_away(), pytest.raises(TemporarilyUnavailable) as refused:
        metering.admit(api_key=customer.api_key, endpoint="query", amount=1)
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "2"})


def test_settle_is_refused_and_release_left_to_the_sweep_while_redis_is_away() -> None:
    customer = make_customer(credits=10)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=4)
    with redis_away():
        with pytest.raises(TemporarilyUnavailable):
            metering.settle(hold, total=1, usage=make_usage())
        released = metering.release(hold, usage=make_usage())
    live = counters.inspect(customer.number)
    assert (released, live.balance, live.held) == (metering.Settlement(0, 10), 10, 4)


def test_top_up_is_booked_and_applied_later_while_redis_is_away() -> None:
    customer = make_customer(credits=10)
    with redis_away():
        assert top_up(account=customer.account, amount=5, now=timezone.now()).balance == 15
    assert counters.inspect(customer.number).balance == 10
    loading.apply_outstanding()
    assert counters.inspect(customer.number).balance == 15


def test_a_revocation_that_redis_missed_is_told_by_the_drain() -> None:
    customer = make_customer(credits=10)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    with redis_away():
        assert revocation.revoke_key(public_id=customer.key_id, now=timezone.now()).pending is True
    drain.drain_once()
    with pytest.raises(refusals.KeyRevoked):
        metering.identify(api_key=customer.api_key, endpoint="credits")
    assert revocation.revoke_key(public_id=customer.key_id, now=timezone.now()).pending is False
