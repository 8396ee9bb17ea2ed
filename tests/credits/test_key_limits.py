"""What a key may do: scopes, expiry, addresses, monthly cap; and what its successor inherits."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts import key_state, revocation, services
from accounts.models import ApiKey
from config.errors import InvalidRequest
from config.redis import money
from credits import counters, drain, loading, metering, refusals
from tests.factories import Customer, make_account, make_usage

pytestmark = pytest.mark.usefixtures("stores")


def customer_with(*, credits: int = 100, **limits: Any) -> Customer:
    account = make_account(credits=credits)
    issued = services.issue_key(account=account, rpm=0, **limits)
    return Customer(account, issued.api_key, issued.key.pk)


def spend(customer: Customer, total: int, *, amount: int | None = None) -> metering.Settlement:
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=amount or total)
    return metering.settle(hold, total=total, usage=make_usage())


def test_a_key_without_the_scope_is_refused() -> None:
    customer = customer_with(scopes=["account"])
    with pytest.raises(refusals.InsufficientScope) as refused:
        metering.admit(api_key=customer.api_key, endpoint="query", amount=1)
    assert refused.value.details == {"required": "search"}
    assert metering.identify(api_key=customer.api_key, endpoint="credits").account_number == customer.number


def test_every_endpoint_has_a_scope_that_exists() -> None:
    assert set(metering.SCOPES.values()) == set(ApiKey.Scope.values)


def test_an_expired_key_is_refused() -> None:
    customer = customer_with(expires_at=timezone.now() + timedelta(hours=1))
    assert spend(customer, 1).charged == 1
    ApiKey.objects.filter(pk=customer.key_id).update(expires_at=timezone.now(), version=2)
    key_state.publish_account(customer.account.pk)
    with pytest.raises(refusals.KeyExpired):
        metering.admit(api_key=customer.api_key, endpoint="query", amount=1)


@pytest.mark.parametrize("address", ["203.0.113.7", "2001:db8::1"])
def test_a_key_works_from_its_networks(address: str) -> None:
    customer = customer_with(networks=["203.0.113.0/28", "2001:db8::/64"])
    assert metering.admit(api_key=customer.api_key, endpoint="query", amount=1, address=address).available == 99


@pytest.mark.parametrize("address", ["203.0.113.16", "203.0.112.255", "2001:db8:0:1::", "::1", "", "nonsense"])
def test_a_key_is_refused_from_elsewhere(address: str) -> None:
    customer = customer_with(networks=["203.0.113.0/28", "2001:db8::/64"])
    with pytest.raises(refusals.AddressNotAllowed):
        metering.admit(api_key=customer.api_key, endpoint="query", amount=1, address=address)
    assert counters.inspect(customer.number).held == 0


def test_the_monthly_cap_counts_what_was_charged_not_what_was_held() -> None:
    customer = customer_with(monthly_cap=10)
    spend(customer, 2, amount=9)
    spend(customer, 8)
    with pytest.raises(refusals.InsufficientCredits) as refused:
        metering.admit(api_key=customer.api_key, endpoint="query", amount=1)
    assert refused.value.details == {"required": 1, "available": 0, "limit_source": "key_cap"}


def test_a_monthly_cap_of_nothing_lets_the_key_ask_what_is_free() -> None:
    customer = customer_with(monthly_cap=0)
    with pytest.raises(refusals.InsufficientCredits):
        metering.admit(api_key=customer.api_key, endpoint="query", amount=1)
    assert metering.identify(api_key=customer.api_key, endpoint="credits").key_id == customer.key_id


def test_the_monthly_cap_counts_holds_under_way() -> None:
    customer = customer_with(monthly_cap=10)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=9)
    with pytest.raises(refusals.InsufficientCredits):
        metering.admit(api_key=customer.api_key, endpoint="query", amount=2)
    metering.release(hold, usage=make_usage())
    assert spend(customer, 10).charged == 10


def test_the_monthly_cap_survives_a_loss_of_redis() -> None:
    customer = customer_with(monthly_cap=10)
    spend(customer, 8)
    drain.drain_once()
    money().flushall()
    with pytest.raises(refusals.InsufficientCredits):
        metering.admit(api_key=customer.api_key, endpoint="query", amount=3)
    assert spend(customer, 2).charged == 2


def test_a_settle_that_outlives_a_load_counts_once_against_the_cap() -> None:
    customer = customer_with(monthly_cap=10)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=9)
    loading.load_account(customer.number, even_if_usable=True)
    metering.settle(hold, total=4, usage=make_usage())
    assert spend(customer, 6).charged == 6


def test_a_successor_inherits_every_limit_and_the_cap_counts_on() -> None:
    customer = customer_with(label="nightly", scopes=["search"], networks=["10.0.0.0/8", "203.0.113.7"], monthly_cap=10)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=7, address="10.1.2.3")
    metering.settle(hold, total=7, usage=make_usage())
    issued = services.rotate_key(public_id=customer.key_id, grace=timedelta(hours=1), now=timezone.now())
    new = issued.key
    assert (new.label, new.rpm, new.scopes, new.networks, new.monthly_cap) == (
        "nightly",
        0,
        ["search"],
        ["10.0.0.0/8", "203.0.113.7"],
        10,
    )
    with pytest.raises(refusals.InsufficientCredits):
        metering.admit(api_key=issued.api_key, endpoint="query", amount=4, address="10.1.2.3")
    assert metering.admit(api_key=issued.api_key, endpoint="query", amount=3, address="10.1.2.3").amount == 3


def test_a_rotated_key_works_through_its_grace() -> None:
    customer = customer_with()
    services.rotate_key(public_id=customer.key_id, grace=timedelta(hours=1), now=timezone.now())
    assert spend(customer, 1).charged == 1


def test_a_key_rotated_without_grace_ends_at_once() -> None:
    customer = customer_with()
    metering.identify(api_key=customer.api_key, endpoint="credits")
    services.rotate_key(public_id=customer.key_id, grace=timedelta(0), now=timezone.now())
    with pytest.raises(refusals.KeyExpired):
        metering.identify(api_key=customer.api_key, endpoint="credits")


def test_a_key_is_rotated_once() -> None:
    customer = customer_with()
    services.rotate_key(public_id=customer.key_id, grace=timedelta(hours=1), now=timezone.now())
    with pytest.raises(services.KeyNotRotatable):
        services.rotate_key(public_id=customer.key_id, grace=timedelta(hours=1), now=timezone.now())


def test_a_revoked_key_is_not_rotated() -> None:
    customer = customer_with()
    revocation.revoke_key(public_id=customer.key_id, now=timezone.now())
    with pytest.raises(services.KeyNotRotatable):
        services.rotate_key(public_id=customer.key_id, grace=timedelta(hours=1), now=timezone.now())


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"scopes": ["everything"]}, "scopes"),
        ({"networks": ["10.0.0.0/33"]}, "networks"),
        ({"networks": ["10.0.0.1"] * 101}, "networks"),
        ({"monthly_cap": -1}, "monthly_cap"),
        ({"rpm": -1}, "rpm"),
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, "expires_at"),
    ],
)
def test_issue_key_names_the_limit_it_refuses(limits: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        services.issue_key(account=make_account(), **limits)
    assert list(refused.value.details) == [field]


def test_a_key_hash_of_an_older_release_is_read_again() -> None:
    customer = customer_with()
    spend(customer, 1)
    money().hdel(key_state.redis_key(customer.key_id, customer.number), "family", "cap", "expires")
    assert spend(customer, 1).charged == 1


def test_the_last_use_is_noted_by_the_drain_at_most_once_a_minute() -> None:
    customer = customer_with()
    assert ApiKey.objects.get(pk=customer.key_id).last_used_at is None
    spend(customer, 1)
    drain.drain_once()
    first = ApiKey.objects.get(pk=customer.key_id).last_used_at
    spend(customer, 1)
    drain.drain_once()
    assert first is not None
    assert timedelta(0) <= timezone.now() - first < timedelta(minutes=1)
    assert ApiKey.objects.get(pk=customer.key_id).last_used_at == first


def test_a_key_hash_is_not_believed_after_a_load() -> None:
    customer = customer_with()
    spend(customer, 1)
    # Revoked in Postgres; Redis has not heard of it, and then the account is loaded again.
    ApiKey.objects.filter(pk=customer.key_id).update(state="revoked", revoked_at=timezone.now(), version=2)
    loading.load_account(customer.number, even_if_usable=True)
    with pytest.raises(refusals.KeyRevoked):
        metering.identify(api_key=customer.api_key, endpoint="credits")
