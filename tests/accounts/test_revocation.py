"""A key ends for good, whichever store is away: who knows, who is told later, and what nobody can undo."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts import key_state, keys, revocation, services
from accounts.models import ApiKey
from config.errors import NotFound, TemporarilyUnavailable
from config.redis import money
from credits import drain, loading, metering
from credits.refusals import KeyRevoked
from tests.factories import Customer, make_customer
from tests.outages import postgres_away, redis_away

pytestmark = pytest.mark.usefixtures("stores")


def revoke(customer: Customer, *, reason: str = "") -> revocation.Revocation:
    return revocation.revoke_key(
        public_id=customer.key_id, now=timezone.now(), actor="carol@example.com", reason=reason
    )


def note_in_redis_alone(customer: Customer) -> None:
    """What is left when the process dies before it has reached Postgres."""
    assert revocation._note(customer.key_id, now=timezone.now(), actor="carol@example.com", reason="leaked")


def used_customer() -> Customer:
    """A customer whose key Redis knows."""
    customer = make_customer(credits=5)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    return customer


def refuses(customer: Customer) -> bool:
    try:
        metering.identify(api_key=customer.api_key, endpoint="credits")
    except KeyRevoked:
        return True
    return False


def notes(customer: Customer) -> list[bytes]:
    return list(money().hkeys(key_state.revocations_key(customer.number)))  # type: ignore[arg-type]


def test_with_both_stores_up_both_know() -> None:
    customer = used_customer()
    done = revoke(customer, reason="found in a repository")
    key = ApiKey.objects.get(pk=customer.key_id)
    assert (done.state, done.known_by) == ("revoked", ("postgres", "redis"))
    assert (key.state, key.revoked_by, key.revoked_reason) == ("revoked", "carol@example.com", "found in a repository")
    assert key.published_version == key.version
    assert refuses(customer)
    assert customer.key_id.encode() not in notes(customer)


def test_success_outlives_a_loss_of_redis() -> None:
    customer = used_customer()
    assert revoke(customer).state == "revoked"
    money().flushall()
    assert refuses(customer)


def test_without_postgres_redis_refuses_at_once_and_says_pending() -> None:
    customer = used_customer()
    with postgres_away():
        done = revoke(customer)
        assert (done.state, done.known_by) == ("pending", ("redis",))
        assert refuses(customer)
    assert ApiKey.objects.get(pk=customer.key_id).state == "active"


def test_the_drain_carries_a_pending_revocation_into_postgres_and_then_forgets_it() -> None:
    customer = used_customer()
    with postgres_away():
        revoke(customer, reason="leaked")
    drain.drain_once()
    key = ApiKey.objects.get(pk=customer.key_id)
    assert (key.state, key.revoked_by, key.revoked_reason) == ("revoked", "carol@example.com", "leaked")
    assert customer.key_id.encode() not in notes(customer)
    money().flushall()
    assert refuses(customer)


def test_a_load_does_not_bring_back_a_key_whose_revocation_postgres_does_not_know() -> None:
    customer = used_customer()
    note_in_redis_alone(customer)
    loading.load_account(customer.number, even_if_usable=True)
    assert refuses(customer)


def test_a_key_that_redis_did_not_know_is_refused_after_its_revocation_was_noted() -> None:
    customer = make_customer(credits=5)
    note_in_redis_alone(customer)
    assert money().exists(key_state.redis_key(customer.key_id, customer.number)) == 0
    assert refuses(customer)


def test_a_change_of_limits_does_not_bring_back_a_key_whose_revocation_is_pending() -> None:
    customer = used_customer()
    note_in_redis_alone(customer)
    ApiKey.objects.filter(pk=customer.key_id).update(rpm=7, version=9)
    key_state.publish([customer.key_id])
    assert refuses(customer)


def test_reactivating_an_account_does_not_bring_back_a_key_whose_revocation_is_pending() -> None:
    customer = used_customer()
    services.set_account_state(account=customer.account, state="suspended")
    note_in_redis_alone(customer)
    services.set_account_state(account=customer.account, state="active")
    assert refuses(customer)


def test_a_process_that_dies_after_postgres_has_booked_leaves_the_rest_to_the_drain() -> None:
    customer = used_customer()
    with redis_away():
        revocation.book(customer.key_id, now=timezone.now(), actor="", reason="")
    assert not refuses(customer)
    drain.drain_once()
    assert refuses(customer)


def test_without_redis_postgres_knows_and_says_pending() -> None:
    customer = used_customer()
    with redis_away():
        done = revoke(customer)
    assert (done.state, done.known_by) == ("pending", ("postgres",))
    assert ApiKey.objects.get(pk=customer.key_id).state == "revoked"
    drain.drain_once()
    assert refuses(customer)


def test_without_redis_a_revoked_key_spends_nothing_of_the_reserve() -> None:
    customer = make_customer(credits=5000)
    with redis_away():
        assert revoke(customer).known_by == ("postgres",)
        with pytest.raises(KeyRevoked):
            metering.admit(api_key=customer.api_key, endpoint="query", amount=1)


def test_with_both_stores_away_nothing_is_said_to_be_revoked() -> None:
    customer = used_customer()
    with postgres_away(), redis_away(), pytest.raises(TemporarilyUnavailable):
        revoke(customer)
    assert not refuses(customer)


def test_revoking_again_after_an_outage_says_revoked() -> None:
    customer = used_customer()
    with postgres_away():
        assert revoke(customer).state == "pending"
    assert revoke(customer).state == "revoked"
    assert notes(customer) == []


def test_a_revocation_noted_twice_keeps_its_first_note() -> None:
    customer = used_customer()
    note_in_redis_alone(customer)
    with postgres_away():
        revocation.revoke_key(public_id=customer.key_id, now=timezone.now() + timedelta(hours=1), reason="again")
    packed = money().hget(key_state.revocations_key(customer.number), customer.key_id)
    assert json.loads(packed)["reason"] == "leaked"  # type: ignore[arg-type]


def test_the_notes_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    customer = used_customer()
    monkeypatch.setattr(revocation, "NOTES_MAX", 0)
    with postgres_away(), pytest.raises(TemporarilyUnavailable):
        revoke(customer)
    assert not refuses(customer)


def test_a_key_that_does_not_exist_leaves_no_note() -> None:
    unknown = keys.parse(keys.generate(account_number=7), pepper="x")
    assert unknown is not None
    with pytest.raises(NotFound):
        revocation.revoke_key(public_id=unknown.public_id, now=timezone.now())
    assert money().hexists(key_state.revocations_key(7), unknown.public_id) is False


def test_the_drain_forgets_a_note_of_no_key() -> None:
    unknown = keys.parse(keys.generate(account_number=7), pepper="x")
    assert unknown is not None
    with postgres_away():
        assert revocation.revoke_key(public_id=unknown.public_id, now=timezone.now()).state == "pending"
    drain.drain_once()
    assert money().hexists(key_state.revocations_key(7), unknown.public_id) is False


@pytest.mark.parametrize("text", ["", "nobody", "mh_live_", "0" * 14, "0000000000o00", "é" * 13])
def test_what_is_no_key_id_is_not_found(text: str) -> None:
    with pytest.raises(NotFound, match="13 characters"):
        revocation.revoke_key(public_id=text, now=timezone.now())


def test_a_whole_key_names_its_id() -> None:
    customer = used_customer()
    assert revocation.revoke_key(public_id=f" {customer.api_key}\n", now=timezone.now()).public_id == customer.key_id


def test_the_command_says_revoked() -> None:
    customer, out = used_customer(), StringIO()
    call_command("revoke_key", customer.key_id, reason="leaked", stdout=out)
    assert out.getvalue().startswith(f"Key {customer.key_id}: revoked. Every process refuses the key from now on")
    assert ApiKey.objects.get(pk=customer.key_id).revoked_reason == "leaked"


def test_the_command_ends_with_3_while_a_revocation_is_pending() -> None:
    customer, out = used_customer(), StringIO()
    with postgres_away(), pytest.raises(SystemExit) as left:
        call_command("revoke_key", customer.key_id, json=True, stdout=out)
    assert left.value.code == 3
    assert json.loads(out.getvalue()) == {"key_id": customer.key_id, "state": "pending", "known_by": ["redis"]}


def test_the_command_fails_when_nobody_could_be_told() -> None:
    customer = used_customer()
    with postgres_away(), redis_away(), pytest.raises(CommandError, match="The key is not revoked"):
        call_command("revoke_key", customer.key_id)
