"""Idempotency-Key on metered calls: charged once in 24 hours, whatever is sent again and whatever Redis loses."""

import pytest

from config.errors import InvalidRequest
from config.redis import money
from credits import counters, drain, metering, refusals
from tests.factories import Customer, make_customer, make_usage

pytestmark = pytest.mark.usefixtures("stores")


def admit(customer: Customer, *, key: str = "k1", body: bytes = b"{}", endpoint: str = "query") -> metering.Hold:
    return metering.admit(api_key=customer.api_key, endpoint=endpoint, amount=4, idempotency_key=key, body=body)


def test_a_replay_runs_again_at_no_charge() -> None:
    customer = make_customer(credits=10)
    metering.settle(admit(customer), total=3, usage=make_usage())
    again = admit(customer)
    settlement = metering.settle(again, total=4, usage=make_usage())
    live = counters.inspect(customer.number)
    assert (again.replayed, settlement, live.balance, live.held) == (True, metering.Settlement(0, 7), 7, 0)


def test_a_replay_that_fails_gives_nothing_back() -> None:
    customer = make_customer(credits=10)
    metering.settle(admit(customer), total=3, usage=make_usage())
    assert metering.release(admit(customer), usage=make_usage()) == metering.Settlement(0, 7)
    assert counters.inspect(customer.number).balance == 7


def test_the_same_key_with_another_body_is_refused() -> None:
    customer = make_customer(credits=10)
    metering.settle(admit(customer), total=3, usage=make_usage())
    with pytest.raises(refusals.IdempotencyMismatch):
        admit(customer, body=b'{"limit":1}')
    assert counters.inspect(customer.number).balance == 7


def test_another_attempt_in_flight_is_refused() -> None:
    customer = make_customer(credits=10)
    admit(customer)
    with pytest.raises(refusals.IdempotencyInProgress):
        admit(customer)
    assert counters.inspect(customer.number).held == 4


def test_after_a_failure_the_same_key_may_be_tried_again() -> None:
    customer = make_customer(credits=10)
    metering.release(admit(customer), usage=make_usage(status=504))
    settlement = metering.settle(admit(customer), total=3, usage=make_usage())
    assert settlement == metering.Settlement(3, 7)


def test_the_same_key_belongs_to_each_account_and_endpoint() -> None:
    alice, bob = make_customer(credits=10), make_customer(credits=10)
    for customer, endpoint in ((alice, "query"), (bob, "query"), (alice, "search")):
        assert metering.settle(admit(customer, endpoint=endpoint), total=1, usage=make_usage()).charged == 1


def test_a_replay_after_redis_lost_everything_is_charged_once() -> None:
    customer = make_customer(credits=10)
    metering.settle(admit(customer), total=3, usage=make_usage())
    drain.drain_once()
    money().flushall()
    metering.settle(admit(customer), total=3, usage=make_usage())
    drain.drain_once()
    customer.account.refresh_from_db()
    assert (customer.account.balance, counters.inspect(customer.number).balance) == (7, 7)


def test_a_key_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        admit(make_customer(credits=10), key="x" * 129)
