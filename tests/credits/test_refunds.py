"""Refunds: credits go back to the grants that paid, once, and never more than was charged."""

import threading
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.db import Error, connection, transaction
from django.utils import timezone

from accounts.models import Account
from config.errors import DomainError, InvalidRequest, NotFound
from config.redis import money
from credits import counters, decreases, drain, ledger_rows, metering, refunds, services, verify
from credits.models import CreditGrant, CreditTransaction, GrantDraw, GrantReturn, Refund
from credits.services import PaymentMismatch
from tests.factories import Customer, make_customer, make_usage

pytestmark = pytest.mark.usefixtures("stores")


def spend(customer: Customer, total: int, **idempotency: str) -> CreditTransaction:
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=total, **idempotency)  # type: ignore[arg-type]
    metering.settle(hold, total=total, usage=make_usage())
    drain.drain_once()
    return CreditTransaction.objects.get(account=customer.account, operation=hold.operation, type="debit")


def refund(entry: CreditTransaction, amount: int | None = None, **changes: object) -> refunds.Refunded:
    assert entry.operation is not None
    values = {"reason": "wrong data", "actor": "ops", "now": timezone.now(), **changes}
    return refunds.refund(account=entry.account, operation=entry.operation, amount=amount, **values)  # type: ignore[arg-type]


def remainders(account: Account) -> list[tuple[str, int]]:
    """(kind, remaining) of each grant, the oldest first"""
    grants = CreditGrant.objects.filter(account=account).order_by("created_at", "kind")
    return list(grants.values_list("kind", "remaining"))


def balances(account: Account) -> tuple[int, int]:
    """(ledger, live)"""
    account.refresh_from_db()
    return account.balance, counters.inspect(account.number).balance


def assert_proven(account: Account) -> None:
    assert verify._ledger_differences([account.number]) == []
    assert verify._live_differences([account.number])[1:] == ([], [])


def test_a_refund_goes_back_to_the_grants_that_paid_the_last_draw_first() -> None:
    customer = make_customer(credits=10)
    services.top_up(account=customer.account, amount=10, now=timezone.now())
    charge = spend(customer, 14)
    done = refund(charge, 6)
    assert remainders(customer.account) == [("purchase", 2), ("purchase", 10)]
    assert (done.balance, done.repeated, balances(customer.account)) == (12, False, (12, 12))
    assert_proven(customer.account)


def test_a_second_refund_goes_on_where_the_first_ended() -> None:
    customer = make_customer(credits=10)
    services.top_up(account=customer.account, amount=10, now=timezone.now())
    charge = spend(customer, 14)
    refund(charge, 6)
    refund(charge, 5)
    assert remainders(customer.account) == [("purchase", 7), ("purchase", 10)]
    assert_proven(customer.account)


def test_a_refund_is_a_ledger_entry_that_names_its_operation_and_its_draws() -> None:
    customer = make_customer(credits=10)
    charge = spend(customer, 4)
    entry = refund(charge, 3).refund.entry
    assert (entry.type, entry.kind, entry.amount, entry.operation) == ("credit", "refund", 3, charge.operation)
    assert (entry.reason, entry.actor) == ("wrong data", "ops")
    draw = GrantDraw.objects.get(entry=charge)
    returned = GrantReturn.objects.get(refund__entry=entry)
    assert (returned.draw, returned.grant, returned.amount) == (draw, draw.grant, 3)


def test_a_refund_without_an_amount_gives_back_all_that_is_left() -> None:
    customer = make_customer(credits=10)
    charge = spend(customer, 7)
    refund(charge, 2)
    assert refund(charge).refund.amount == 5
    assert balances(customer.account) == (10, 10)
    assert_proven(customer.account)


@pytest.mark.parametrize("amount", [0, -1, 6])
def test_a_refund_is_at_most_what_was_charged_and_not_refunded(amount: int) -> None:
    customer = make_customer(credits=10)
    charge = spend(customer, 7)
    refund(charge, 2)
    with pytest.raises(InvalidRequest) as refused:
        refund(charge, amount)
    assert refused.value.details == {"amount": "1 to 5"}
    assert balances(customer.account) == (5, 5)


def test_what_was_refunded_whole_is_not_refunded_again() -> None:
    charge = spend(make_customer(credits=10), 7)
    refund(charge)
    with pytest.raises(InvalidRequest) as refused:
        refund(charge)
    assert refused.value.details == {"amount": "nothing is left"}


def test_all_charges_of_an_operation_are_refunded_together() -> None:
    customer = make_customer(credits=10)
    hold = metering.admit(api_key=customer.api_key, endpoint="download", amount=6)
    metering.settle(hold, total=2, usage=None, final=False)
    metering.settle(hold, total=6, usage=make_usage())
    drain.drain_once()
    plan = refunds.preview(account=customer.account, operation=uuid.UUID(hold.operation), now=timezone.now())
    assert (plan.charged, plan.amount, [part.amount for part in plan.parts]) == (6, 6, [4, 2])


def test_a_preview_changes_nothing() -> None:
    customer = make_customer(credits=10)
    charge = spend(customer, 7)
    assert charge.operation is not None
    plan = refunds.preview(account=customer.account, operation=charge.operation, amount=3, now=timezone.now())
    assert [(part.amount, part.goes_back) for part in plan.parts] == [(3, True)]
    assert balances(customer.account) == (3, 3)


def expired(customer: Customer, charge: CreditTransaction) -> datetime:
    CreditGrant.objects.filter(account=customer.account).update(expires_at=timezone.now() + timedelta(hours=1))
    return timezone.now() + timedelta(hours=2)


def voided(customer: Customer, charge: CreditTransaction) -> datetime:
    grant = CreditGrant.objects.get(account=customer.account)
    decreases.void_grant(grant=grant, reason="mistake", actor="ops", now=timezone.now())
    drain.drain_once()
    return timezone.now()


@pytest.mark.parametrize("end", [expired, voided])
def test_what_an_ended_grant_paid_goes_into_a_new_grant_that_never_expires(end: object) -> None:
    customer = make_customer(credits=10)
    charge = spend(customer, 7)
    refund(charge, 4, now=end(customer, charge))  # type: ignore[operator]
    fresh = CreditGrant.objects.get(account=customer.account, kind="refund")
    assert (fresh.amount, fresh.remaining, fresh.expires_at, fresh.reason) == (4, 4, None, "wrong data")
    assert GrantReturn.objects.get(grant=fresh).draw.entry == charge
    assert_proven(customer.account)


def test_the_new_grant_expires_when_the_operator_says() -> None:
    customer = make_customer(credits=10)
    charge = spend(customer, 7)
    later = timezone.now() + timedelta(days=9)
    refund(charge, 4, now=voided(customer, charge), expires_at=later)
    assert CreditGrant.objects.get(account=customer.account, kind="refund").expires_at == later


def test_a_refund_that_would_expire_in_the_past_is_refused() -> None:
    charge = spend(make_customer(credits=10), 7)
    with pytest.raises(InvalidRequest) as refused:
        refund(charge, expires_at=timezone.now() - timedelta(seconds=1))
    assert refused.value.details == {"expires_at": "must lie in the future"}


def test_the_same_refund_id_is_one_refund() -> None:
    customer = make_customer(credits=10)
    charge = spend(customer, 7)
    first = refund(charge, 3, external_id=f"ticket-{charge.pk}")
    again = refund(charge, 3, external_id=f"ticket-{charge.pk}")
    assert (again.refund, again.repeated, balances(customer.account)) == (first.refund, True, (6, 6))


def test_the_same_refund_id_for_all_that_is_left_is_one_refund() -> None:
    customer = make_customer(credits=10)
    charge = spend(customer, 7)
    refund(charge, external_id=f"ticket-{charge.pk}")
    assert refund(charge, external_id=f"ticket-{charge.pk}").repeated
    assert balances(customer.account) == (10, 10)


@pytest.mark.parametrize("amount", [2, None])
def test_the_same_refund_id_with_another_amount_is_refused(amount: int | None) -> None:
    charge = spend(make_customer(credits=10), 7)
    refund(charge, 3, external_id=f"ticket-{charge.pk}")
    with pytest.raises(PaymentMismatch) as refused:
        refund(charge, amount, external_id=f"ticket-{charge.pk}")
    assert (refused.value.status, refused.value.code) == (422, "IDEMPOTENCY_MISMATCH")


def test_the_same_refund_id_for_another_operation_is_refused() -> None:
    charge, other = spend(make_customer(credits=10), 7), spend(make_customer(credits=10), 7)
    refund(charge, 3, external_id=f"ticket-{charge.pk}")
    with pytest.raises(PaymentMismatch):
        refund(other, 3, external_id=f"ticket-{charge.pk}")


def test_a_refunded_operation_stays_paid() -> None:
    customer = make_customer(credits=10)
    charge = spend(customer, 7, idempotency_key="order-1")
    refund(charge)
    again = metering.admit(api_key=customer.api_key, endpoint="query", amount=7, idempotency_key="order-1")
    assert again.replayed
    metering.settle(again, total=7, usage=make_usage())
    drain.drain_once()
    assert balances(customer.account) == (10, 10)


def test_a_refunded_operation_stays_paid_when_redis_has_forgotten_it() -> None:
    customer = make_customer(credits=10)
    charge = spend(customer, 7, idempotency_key="order-1")
    refund(charge)
    for key in money().scan_iter(match=f"{{p{customer.number % 64:02d}}}:*:{customer.number}:*"):
        money().delete(key)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=7, idempotency_key="order-1")
    metering.settle(hold, total=7, usage=make_usage())
    drain.drain_once()
    assert balances(customer.account) == (10, 10)
    assert_proven(customer.account)


def test_a_refund_asks_for_a_reason() -> None:
    charge = spend(make_customer(credits=10), 7)
    with pytest.raises(InvalidRequest) as refused:
        refund(charge, reason="  ")
    assert refused.value.details == {"reason": "required"}


def test_an_operation_that_was_not_charged_is_unknown() -> None:
    with pytest.raises(NotFound):
        refunds.preview(account=make_customer().account, operation=uuid.uuid4(), now=timezone.now())


def test_an_operation_of_another_account_is_unknown() -> None:
    charge = spend(make_customer(credits=10), 7)
    assert charge.operation is not None
    with pytest.raises(NotFound):
        refunds.preview(account=make_customer().account, operation=charge.operation, now=timezone.now())


def test_a_top_up_is_no_charge() -> None:
    customer = make_customer(credits=10)
    with pytest.raises(InvalidRequest):
        refunds.charge_of(CreditTransaction.objects.get(account=customer.account).pk)


def test_a_refund_past_what_an_account_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    charge = spend(make_customer(credits=10), 7)
    monkeypatch.setattr(refunds, "CREDITS_MAX", 9)
    with pytest.raises(InvalidRequest) as refused:
        refund(charge)
    assert refused.value.details == {"amount": "balance at most 9"}


@pytest.mark.parametrize("table", ["credits_refund", "credits_grantreturn"])
def test_refunds_are_never_changed(table: str) -> None:
    with pytest.raises(Error, match="insert-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET amount = amount")


def test_verify_finds_a_draw_that_was_returned_twice() -> None:
    customer = make_customer(credits=10)
    charge = spend(customer, 7)
    done = refund(charge, 7)
    draw = GrantDraw.objects.get(entry=charge)
    with transaction.atomic():
        ledger_rows.lock_accounts([customer.number])
        GrantReturn.objects.create(refund=done.refund, draw=draw, grant=draw.grant, amount=1)
    found = {difference.what for difference in verify._ledger_differences([customer.number])}
    assert found == set(verify._GRANT_CHECKS)


def at_once(*calls: Callable[[], object]) -> list[str]:
    """What comes of calls that begin together: "done" or the name of what was raised."""
    together = threading.Barrier(len(calls))
    results: list[str] = []

    def run(call: Callable[[], object]) -> None:
        together.wait()
        try:
            call()
            results.append("done")
        except DomainError as error:
            results.append(type(error).__name__)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(results)


def test_refunds_of_one_operation_at_once_never_pass_its_charge() -> None:
    charge = spend(make_customer(credits=10), 7)
    assert at_once(*[lambda: refund(charge, 5)] * 4) == ["InvalidRequest"] * 3 + ["done"]
    assert [done.amount for done in Refund.objects.filter(account=charge.account)] == [5]
    assert_proven(charge.account)


def test_the_same_refund_id_at_once_is_one_refund() -> None:
    charge = spend(make_customer(credits=10), 7)
    name = f"ticket-{charge.pk}"
    assert at_once(*[lambda: refund(charge, 2, external_id=name)] * 4) == ["done"] * 4
    assert balances(charge.account) == (5, 5)


def test_the_same_refund_id_for_two_customers_at_once_is_one_refund() -> None:
    charge, other = spend(make_customer(credits=10), 7), spend(make_customer(credits=10), 7)
    name = f"ticket-{charge.pk}"
    results = at_once(lambda: refund(charge, 2, external_id=name), lambda: refund(other, 2, external_id=name))
    assert results == ["PaymentMismatch", "done"]


def test_the_same_deduction_id_at_once_is_taken_once() -> None:
    account = make_customer(credits=10).account

    def deduct() -> object:
        return decreases.deduct(
            account=account, amount=3, reason="x", actor="", now=timezone.now(), external_id=f"note-{account.pk}"
        )

    assert at_once(*[deduct] * 4) == ["done"] * 4
    drain.drain_once()
    assert balances(account) == (7, 7)
