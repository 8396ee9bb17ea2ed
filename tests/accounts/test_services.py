"""Users, accounts and keys."""

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F
from django.utils import timezone

from accounts import key_state, revocation, services
from accounts.models import Account, ApiKey, Membership, User
from config.errors import InvalidRequest, NotFound
from config.redis import money
from credits import counters, metering
from tests.factories import Customer, make_account, make_customer
from tests.outages import redis_away

pytestmark = pytest.mark.usefixtures("stores")


def change_limits(customer: Customer, **changes: Any) -> services.KeyChange:
    """The key's limits as they are, except for `changes`."""
    key = ApiKey.objects.get(pk=customer.key_id)
    names = ("label", "rpm", "scopes", "expires_at", "networks", "monthly_cap")
    limits = {**{name: getattr(key, name) for name in names}, **changes}
    return services.set_key_limits(public_id=customer.key_id, now=timezone.now(), **limits)


def fresh_email() -> str:
    return f"bob-{uuid.uuid4().hex[:12]}@example.com"


def test_create_operator_makes_a_staff_user_who_logs_in_by_email() -> None:
    email = fresh_email()
    user = services.create_operator(email=email.upper(), password="correct horse")
    assert (user.email, user.is_staff, user.is_superuser, user.check_password("correct horse")) == (
        email,
        True,
        True,
        True,
    )


def test_create_operator_refuses_an_address_in_use_whatever_its_case() -> None:
    email = fresh_email()
    services.create_operator(email=email, password="correct horse")
    with pytest.raises(services.DuplicateEmail):
        services.create_operator(email=email.upper(), password="correct horse")


@pytest.mark.parametrize("email", ["", "bob", "bob@", "a@b c.com"])
def test_create_customer_refuses_what_is_no_address(email: str) -> None:
    with pytest.raises(InvalidRequest):
        services.create_customer(name="Bob", email=email)


def test_create_customer_makes_an_owner_and_a_customer_number() -> None:
    first, second = make_account(), make_account()
    assert second.number > first.number >= 1
    assert Membership.objects.get(account=first).role == "owner"


def test_find_account_knows_number_and_uuid() -> None:
    account = make_account()
    assert services.find_account(str(account.number)).pk == account.pk
    assert services.find_account(str(account.pk)).pk == account.pk


@pytest.mark.parametrize("reference", ["0", "x", "", "-1", "1e3", "01890a5d-ac96-774b-bcce-b302099a8057", "9" * 40])
def test_find_account_says_what_to_give(reference: str) -> None:
    with pytest.raises(NotFound):
        services.find_account(reference)


def test_issue_key_stores_a_digest_and_never_the_key() -> None:
    issued = services.issue_key(account=make_account(), label=" nightly ")
    row = ApiKey.objects.values().get(pk=issued.key.pk)
    assert row["label"] == "nightly"
    assert issued.api_key not in str(row)
    assert issued.api_key.rpartition("_")[2] not in str(row)


def test_issue_key_refuses_a_limit_out_of_range() -> None:
    with pytest.raises(InvalidRequest):
        services.issue_key(account=make_account(), rpm=services.RPM_MAX + 1)


def test_revoke_key_tells_redis_at_once_and_only_once_changes_the_key() -> None:
    customer = make_customer(credits=1)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    first = revocation.revoke_key(public_id=customer.key_id, now=timezone.now(), actor="carol@example.com")
    again = revocation.revoke_key(public_id=customer.key_id, now=timezone.now(), actor="dave@example.com")
    assert (first.state, again.state) == ("revoked", "revoked")
    assert ApiKey.objects.get(pk=customer.key_id).revoked_by == "carol@example.com"
    assert money().hget(key_state.redis_key(customer.key_id, customer.number), "state") == b"revoked"


def test_revoke_key_of_nobody_is_not_found() -> None:
    with pytest.raises(NotFound):
        revocation.revoke_key(public_id="nobody", now=timezone.now())


def test_a_slow_writer_cannot_bring_a_revoked_key_back() -> None:
    customer = make_customer(credits=1)
    before = key_state.read(customer.key_id)
    revocation.revoke_key(public_id=customer.key_id, now=timezone.now())
    assert before is not None
    assert key_state.write(before) is False
    assert money().hget(key_state.redis_key(customer.key_id, customer.number), "state") == b"revoked"


def test_a_key_read_under_an_earlier_epoch_is_read_again() -> None:
    customer = make_customer(credits=1)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    stale = key_state.read(customer.key_id)
    money().delete(counters.account_key(customer.number))
    metering.identify(api_key=customer.api_key, endpoint="credits")
    fresh = key_state.read(customer.key_id)
    assert stale is not None
    assert fresh is not None
    assert fresh.epoch == stale.epoch + 1


def test_set_key_limits_counts_from_the_next_call() -> None:
    customer = make_customer(credits=1, rpm=0)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    change_limits(customer, rpm=7)
    assert metering.identify(api_key=customer.api_key, endpoint="credits").rate.limit == 7


def test_set_key_limits_says_what_differs() -> None:
    customer = make_customer(rpm=0)
    change = change_limits(customer, rpm=7, networks=["10.0.0.9/8", " 203.0.113.7/32"])
    assert change.changed == {"rpm": (0, 7), "networks": ([], ["10.0.0.0/8", "203.0.113.7"])}
    assert change_limits(customer).changed == {}


def test_set_key_limits_leaves_a_revoked_key_alone() -> None:
    customer = make_customer()
    revocation.revoke_key(public_id=customer.key_id, now=timezone.now())
    with pytest.raises(services.KeyEnded):
        change_limits(customer, rpm=7)


def test_set_key_limits_of_nobody_is_not_found() -> None:
    customer = make_customer()
    with pytest.raises(NotFound):
        services.set_key_limits(
            public_id=customer.key_id[::-1],
            label="",
            rpm=None,
            scopes=[],
            expires_at=None,
            networks=[],
            monthly_cap=None,
            now=timezone.now(),
        )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"expires_at": timezone.now() - timedelta(days=1)}, "expires_at"),
        ({"networks": ["10.0.0.0/33"]}, "networks"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"monthly_cap": -1}, "monthly_cap"),
        ({"rpm": services.RPM_MAX + 1}, "rpm"),
    ],
)
def test_set_key_limits_names_the_limit_it_refuses(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        change_limits(make_customer(), **changes)
    assert list(refused.value.details) == [field]


def test_the_other_limits_of_an_expired_key_can_be_changed_and_it_can_be_prolonged() -> None:
    customer = make_customer(rpm=0)
    ApiKey.objects.filter(pk=customer.key_id).update(expires_at=timezone.now() - timedelta(days=1))
    assert change_limits(customer, rpm=7).key.rpm == 7
    later = timezone.now() + timedelta(days=1)
    assert change_limits(customer, expires_at=later).key.expires_at == later


def test_the_grace_of_a_rotated_key_is_only_shortened() -> None:
    customer = make_customer()
    now = timezone.now()
    services.rotate_key(public_id=customer.key_id, grace=timedelta(hours=2), now=now)
    for later in (None, now + timedelta(hours=3)):
        with pytest.raises(InvalidRequest) as refused:
            change_limits(customer, expires_at=later)
        assert list(refused.value.details) == ["expires_at"]
    sooner = timezone.now() + timedelta(hours=1)
    assert change_limits(customer, expires_at=sooner).key.expires_at == sooner


def test_the_cap_of_a_successor_is_its_predecessors_too() -> None:
    customer = make_customer()
    issued = services.rotate_key(public_id=customer.key_id, grace=timedelta(hours=2), now=timezone.now())
    change_limits(Customer(customer.account, issued.api_key, issued.key.pk), monthly_cap=5)
    assert ApiKey.objects.get(pk=customer.key_id).monthly_cap == 5
    assert money().hget(key_state.redis_key(customer.key_id, customer.number), "cap") == b"5"


def test_suspending_an_account_tells_all_of_its_keys_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_state, "PAGE", 2)
    account = make_account()
    issued = [services.issue_key(account=account).key.pk for _ in range(5)]
    assert services.set_account_state(account=account, state="suspended").pending is False
    states = [money().hget(key_state.redis_key(public_id, account.number), "state") for public_id in issued]
    assert states == [b"suspended"] * 5
    assert ApiKey.objects.filter(account=account, version__gt=F("published_version")).count() == 0


def test_uses_noted_by_several_drains_at_once_do_not_wait_in_a_circle() -> None:
    account = make_account()
    issued = [services.issue_key(account=account).key.pk for _ in range(40)]
    start = threading.Barrier(4)

    def note(turn: int) -> None:
        order = issued if turn % 2 else issued[::-1]
        try:
            start.wait(timeout=10)
            for minutes in range(1, 6):
                services.note_uses(dict.fromkeys(order, timezone.now() + timedelta(minutes=2 * minutes)))
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(note, turn) for turn in range(4)]:
            done.result(timeout=60)
    assert ApiKey.objects.filter(account=account, last_used_at=None).count() == 0


def test_set_account_state_says_when_redis_could_not_be_told() -> None:
    customer = make_customer()
    with redis_away():
        assert services.set_account_state(account=customer.account, state="suspended").pending is True
    assert Account.objects.get(pk=customer.account.pk).state == "suspended"
    assert services.set_account_state(account=customer.account, state="active").pending is False


def test_commands_create_customer_key_and_operator() -> None:
    out = StringIO()
    email = fresh_email()
    call_command("create_customer", email=email, credits=9, stdout=out)
    account = Account.objects.get(email=email)
    call_command("create_key", account=str(account.number), stdout=out)
    call_command("create_operator", email=fresh_email(), password="correct horse", stdout=out)
    assert account.balance == 9
    assert "mh_live_" in out.getvalue()
    assert User.objects.get(email=email).is_staff is False


def test_the_command_rotates_and_says_what_it_replaced() -> None:
    customer, out = make_customer(), StringIO()
    call_command("rotate_key", customer.api_key, grace_hours=0, json=True, stdout=out)
    said = json.loads(out.getvalue())
    assert (said["replaces"], said["pending"]) == (customer.key_id, False)
    assert ApiKey.objects.get(pk=customer.key_id).successor_id == said["key_id"]


def test_the_command_issues_a_key_with_every_limit() -> None:
    account, out = make_account(), StringIO()
    call_command(
        "create_key",
        account=str(account.number),
        scope=["search", "download"],
        days=90,
        network=["192.0.2.9/24"],
        monthly_cap=5000,
        rpm=600,
        stdout=out,
    )
    key = ApiKey.objects.get(account=account)
    assert (key.scopes, key.networks, key.monthly_cap, key.rpm) == (["download", "search"], ["192.0.2.0/24"], 5000, 600)


def test_create_key_for_nobody_says_what_to_give() -> None:
    with pytest.raises(CommandError, match="UUID or its customer number"):
        call_command("create_key", account="nobody")
