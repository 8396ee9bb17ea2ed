"""Top-ups."""

import pytest
from django.utils import timezone

from config.errors import InvalidRequest
from credits import counters, services
from credits.models import CreditGrant, CreditTransaction
from tests.factories import make_account

pytestmark = pytest.mark.usefixtures("stores")


def test_top_up_writes_grant_and_entry_and_tells_redis() -> None:
    account = make_account()
    done = services.top_up(account=account, amount=10, now=timezone.now(), reason="invoice 7", actor="ops@example.com")
    grant = CreditGrant.objects.get(account=account)
    entry = CreditTransaction.objects.get(account=account)
    assert (grant.kind, grant.amount, grant.remaining, grant.expires_at) == ("purchase", 10, 10, None)
    assert (entry.type, entry.kind, entry.amount, entry.reason, entry.actor) == (
        "credit",
        "top_up",
        10,
        "invoice 7",
        "ops@example.com",
    )
    assert (done.balance, done.repeated, counters.inspect(account.number).balance) == (10, False, 10)


def test_top_up_of_the_same_payment_is_booked_once() -> None:
    account = make_account()
    first = services.top_up(account=account, amount=10, now=timezone.now(), external_id=f"pay-{account.pk}")
    again = services.top_up(account=account, amount=10, now=timezone.now(), external_id=f"pay-{account.pk}")
    assert (again.entry, again.repeated, again.balance) == (first.entry, True, 10)


def test_top_up_of_the_same_payment_with_another_amount_is_refused() -> None:
    account = make_account()
    services.top_up(account=account, amount=10, now=timezone.now(), external_id=f"pay-{account.pk}")
    with pytest.raises(services.PaymentMismatch):
        services.top_up(account=account, amount=11, now=timezone.now(), external_id=f"pay-{account.pk}")


def test_top_up_refuses_a_payment_id_that_is_too_long() -> None:
    account = make_account()
    with pytest.raises(InvalidRequest) as refused:
        services.top_up(account=account, amount=10, now=timezone.now(), external_id="x" * 201)
    assert refused.value.details == {"external_id": "at most 200 characters"}
    assert not CreditGrant.objects.filter(account=account).exists()


@pytest.mark.parametrize("amount", [0, -1, services.TOP_UP_MAX + 1])
def test_top_up_refuses_amounts_outside_the_range(amount: int) -> None:
    account = make_account()
    with pytest.raises(InvalidRequest):
        services.top_up(account=account, amount=amount, now=timezone.now())
    assert CreditTransaction.objects.filter(account=account).count() == 0
