"""The booking rule: events delivered late, twice, out of epoch or twice paid."""

import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.db import Error, OperationalError, connection, transaction
from django.utils import timezone as django_timezone

from accounts.models import Account
from credits import decreases, drain, ledger, loading, metering, services
from credits.events import BadEvent, Event, parse
from credits.models import Command, CreditGrant, CreditTransaction, GrantDraw, SetAside
from tests.factories import make_account, make_customer, make_usage
from tests.faults.processes import database_url

pytestmark = pytest.mark.usefixtures("stores")

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def event_of(account: Account, *, seq: int, debit: int, total: int | None = None, **changes: object) -> Event:
    account.refresh_from_db()
    event = Event(
        stream_id=f"{int(NOW.timestamp() * 1000)}-{seq}",
        account_number=account.number,
        epoch=account.epoch,
        seq=seq,
        debit=debit,
        total=debit if total is None else total,
        operation=uuid.uuid4(),
        key_id="key",
        usage="",
    )
    return event._replace(**changes)  # type: ignore[arg-type]


def state(account: Account) -> tuple[int, int, int]:
    """(balance, Σ ledger, Σ grants' remainders)"""
    account.refresh_from_db()
    entries = CreditTransaction.objects.filter(account=account)
    return (
        account.balance,
        sum(entry.amount if entry.type == "credit" else -entry.amount for entry in entries),
        sum(CreditGrant.objects.filter(account=account).values_list("remaining", flat=True)),
    )


def test_book_writes_entry_draw_and_balance() -> None:
    account = make_account(credits=100)
    event = event_of(account, seq=1, debit=7)
    ledger.book([event], now=NOW + timedelta(days=1))
    entry = CreditTransaction.objects.get(account=account, type="debit")
    assert (entry.amount, entry.charged_total, entry.seq, entry.operation) == (7, 7, 1, event.operation)
    assert list(GrantDraw.objects.filter(entry=entry).values_list("amount", flat=True)) == [7]
    assert state(account) == (93, 93, 93)


def test_a_copy_that_postgres_breaks_off_is_an_error_of_django() -> None:
    account = make_account(credits=100)
    event = event_of(account, seq=1, debit=7)
    with psycopg.connect(database_url()) as other:
        other.execute("LOCK TABLE credits_grantdraw IN EXCLUSIVE MODE")
        with transaction.atomic():
            connection.cursor().execute("SET LOCAL lock_timeout = '50ms'")
            with pytest.raises(OperationalError):
                ledger.book([event], now=NOW)
    assert state(account) == (100, 100, 100)


def test_book_of_the_same_events_again_changes_nothing() -> None:
    account = make_account(credits=100)
    events = [event_of(account, seq=1, debit=7), event_of(account, seq=2, debit=3)]
    ledger.book(events, now=django_timezone.now())
    ledger.book(events, now=django_timezone.now())
    ledger.book(events[:1], now=django_timezone.now())
    assert state(account) == (90, 90, 90)
    assert not SetAside.objects.filter(account=account).exists()
    assert not Command.objects.filter(account=account, seq__isnull=False).exists()


def test_book_draws_across_grants_in_burn_down_order() -> None:
    account = make_account(credits=5)
    services.top_up(account=account, amount=10, now=django_timezone.now())
    ledger.book([event_of(account, seq=1, debit=8)], now=django_timezone.now())
    draws = GrantDraw.objects.filter(entry__account=account).order_by("id").values_list("amount", flat=True)
    assert (list(draws), state(account)) == ([5, 3], (7, 7, 7))


def test_book_charges_an_operation_its_greatest_total_once() -> None:
    account = make_account(credits=100)
    operation = uuid.uuid4()
    ledger.book([event_of(account, seq=1, debit=6, operation=operation)], now=django_timezone.now())
    ledger.book([event_of(account, seq=2, debit=9, operation=operation)], now=django_timezone.now())
    amounts = CreditTransaction.objects.filter(account=account, type="debit").order_by("seq")
    assert list(amounts.values_list("amount", "charged_total")) == [(6, 6), (3, 9)]
    command = Command.objects.get(account=account, seq=2)
    assert (command.amount, command.credit_seq, state(account)) == (6, 2, (91, 91, 91))


def test_book_sets_a_debit_aside_that_was_paid_already_and_returns_it() -> None:
    account = make_account(credits=100)
    operation = uuid.uuid4()
    ledger.book([event_of(account, seq=1, debit=6, operation=operation)], now=django_timezone.now())
    ledger.book([event_of(account, seq=2, debit=6, operation=operation)], now=django_timezone.now())
    assert SetAside.objects.get(account=account).reason == "paid"
    assert Command.objects.get(account=account, seq=2).amount == 6
    assert state(account) == (94, 94, 94)


def test_book_sets_a_late_event_aside_once_and_charges_nothing() -> None:
    account = make_account(credits=100)
    event = event_of(account, seq=4, debit=7)
    Account.objects.filter(pk=account.pk).update(epoch=event.epoch + 1)
    ledger.book([event, event], now=django_timezone.now())
    ledger.book([event], now=django_timezone.now())
    assert list(SetAside.objects.filter(account=account).values_list("reason", "debit")) == [("late", 7)]
    assert state(account) == (100, 100, 100)


def test_book_skips_a_late_event_that_stands_in_the_ledger() -> None:
    account = make_account(credits=100)
    event = event_of(account, seq=1, debit=7)
    ledger.book([event], now=django_timezone.now())
    Account.objects.filter(pk=account.pk).update(epoch=event.epoch + 1)
    ledger.book([event], now=django_timezone.now())
    assert (SetAside.objects.filter(account=account).count(), state(account)) == (0, (93, 93, 93))


def test_book_sets_a_debit_above_the_balance_aside() -> None:
    account = make_account(credits=5)
    ledger.book([event_of(account, seq=1, debit=6)], now=django_timezone.now())
    assert SetAside.objects.get(account=account).reason == "bad"
    assert state(account) == (5, 5, 5)


def test_book_sets_an_unknown_account_aside() -> None:
    event = event_of(make_account(), seq=1, debit=1)._replace(account_number=2**40)
    before = SetAside.objects.filter(account=None).count()
    ledger.book([event], now=django_timezone.now())
    assert SetAside.objects.filter(account=None).count() >= before + 1


@pytest.mark.parametrize("table", ["credits_credittransaction", "credits_grantdraw", "credits_setaside"])
@pytest.mark.parametrize("statement", ["UPDATE {0} SET id = id", "DELETE FROM {0}", "TRUNCATE {0} CASCADE"])
def test_the_ledger_can_only_be_inserted_into(table: str, statement: str) -> None:
    with pytest.raises(Error, match="insert-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement.format(table))


def test_drain_books_what_requests_paid() -> None:
    customer = make_customer(credits=100)
    for total in (1, 2, 3):
        hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=3)
        metering.settle(hold, total=total, usage=make_usage())
    drain.drain_once()
    assert state(customer.account) == (94, 94, 94)


def test_parse_refuses_what_does_not_read_as_an_event() -> None:
    operation = uuid.uuid4()
    good = f"1 2 3 4 5 {operation} key -"
    assert parse(b"6-7", {b"event": good.encode(), b"usage": b"{}"}) == Event(
        "6-7", 1, 2, 3, 4, 5, operation, "key", "{}"
    )
    for bad in (
        f"1 2 3 -4 5 {operation} key -",
        f"1 2 - 4 5 {operation} key -",
        f"1 2 3 4 3 {operation} key -",
        "1 2 3 4 5 x key -",
        f" 2 3 4 5 {operation} key -",
        f"{good} more",
        "\xff",
    ):
        with pytest.raises(BadEvent):
            parse(b"6-7", {b"event": bad.encode("latin-1"), b"usage": b""})
    with pytest.raises(BadEvent):
        parse(b"6-7", {b"usage": b""})


def test_a_grant_dated_by_a_clock_ahead_of_the_drains_pays_after_the_others() -> None:
    account = make_account(credits=5)
    services.top_up(account=account, amount=5, now=django_timezone.now() + timedelta(seconds=30))
    ledger.book([event_of(account, seq=1, debit=7)], now=django_timezone.now())
    assert state(account) == (3, 3, 3)
    assert list(
        CreditGrant.objects.filter(account=account).order_by("effective_at").values_list("remaining", flat=True)
    ) == [0, 3]


def test_what_an_operator_wrote_is_kept_as_it_was_written() -> None:
    account = make_account(credits=10)
    loading.load_account(account.number)
    reason = "a tab\t, a line\nand a return\r, \\N and \\t"
    decreases.deduct(account=account, amount=3, reason=reason, actor="ann\\", now=django_timezone.now())
    drain.drain_once()
    entry = CreditTransaction.objects.get(account=account, type="debit")
    assert (entry.amount, entry.reason, entry.actor) == (3, reason, "ann\\")


def test_a_grant_is_never_deleted() -> None:
    account = make_account(credits=10)
    with pytest.raises(Error, match="keeps every row"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM credits_creditgrant WHERE account_id = %s", [account.pk])
    assert state(account) == (10, 10, 10)
