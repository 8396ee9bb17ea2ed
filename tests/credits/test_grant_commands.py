"""`top_up`, `take_back` and `refund` on the command line."""

import uuid
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.models import Account
from credits import counters, drain, metering
from credits.models import CreditGrant, CreditTransaction, Decrease, Refund
from tests.factories import make_account, make_customer, make_usage

pytestmark = pytest.mark.usefixtures("stores")


def run(command: str, *arguments: str) -> str:
    out = StringIO()
    call_command(command, *arguments, stdout=out)
    return out.getvalue()


def live(account: Account) -> int:
    return counters.inspect(account.number).balance


def charge() -> CreditTransaction:
    customer = make_customer(credits=10)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=7)
    metering.settle(hold, total=7, usage=make_usage())
    drain.drain_once()
    return CreditTransaction.objects.get(account=customer.account, type="debit")


def test_top_up_takes_priority_and_dates() -> None:
    account = make_account()
    next_year = timezone.now().year + 1
    given = ("--account", str(account.number), "--amount", "5", "--priority", "7", "--kind", "promo")
    said = run("top_up", *given, "--effective-at", f"{next_year}-01-01", "--expires-at", f"{next_year}-06-30T12:00")
    grant = CreditGrant.objects.get(account=account)
    assert (grant.priority, grant.effective_at, grant.expires_at) == (
        7,
        datetime(next_year, 1, 1, tzinfo=UTC),
        datetime(next_year, 6, 30, 12, tzinfo=UTC),
    )
    assert said == f"Grant {grant.pk}: +5 from {next_year}-01-01 00:00 UTC on, balance 0 until then.\n"


def test_top_up_counts_the_days_of_an_expiry_from_the_effective_date() -> None:
    account = make_account()
    start = (timezone.now() + timedelta(days=5)).replace(microsecond=0)
    run(
        "top_up",
        "--account",
        str(account.number),
        "--amount",
        "5",
        "--effective-at",
        start.isoformat(),
        "--expires-days",
        "2",
    )
    assert CreditGrant.objects.get(account=account).expires_at == start + timedelta(days=2)


def test_take_back_under_an_id_takes_once() -> None:
    account = make_account(credits=10)
    given = (
        "--account",
        str(account.number),
        "--amount",
        "3",
        "--reason",
        "double invoice",
        "--id",
        f"note-{account.pk}",
    )
    run("take_back", *given)
    assert run("take_back", *given) == (
        f"3 credits of customer {account.number} were taken back under this id before. Nothing was taken now.\n"
    )
    assert (live(account), Decrease.objects.filter(account=account).count()) == (7, 1)


def test_take_back_under_an_id_with_another_amount_is_refused() -> None:
    account = make_account(credits=10)
    given = ("--account", str(account.number), "--reason", "double invoice", "--id", f"note-{account.pk}")
    run("take_back", *given, "--amount", "3")
    with pytest.raises(CommandError, match="used before"):
        run("take_back", *given, "--amount", "4")
    assert live(account) == 7


def test_take_back_cancels_a_scheduled_grant() -> None:
    account = make_account()
    run(
        "top_up",
        "--account",
        str(account.number),
        "--amount",
        "5",
        "--effective-at",
        f"{timezone.now().year + 1}-01-01",
    )
    grant = CreditGrant.objects.get(account=account)
    assert run("take_back", "--grant", str(grant.pk), "--reason", "mistake") == (
        f"Grant {grant.pk} of 5 credits was cancelled before it counted.\n"
    )


def test_refund_shows_first_and_changes_nothing() -> None:
    entry = charge()
    said = run("refund", "--entry", str(entry.pk), "--amount", "4", "--reason", "wrong data")
    grant = CreditGrant.objects.get(account=entry.account)
    assert said.splitlines() == [
        f"Operation {entry.operation} of customer {entry.account.number}: 7 charged, 0 refunded before. 4 would go back:",
        f"  4 to grant {grant.pk}, purchase",
        "Nothing was changed. Add --book to book it.",
    ]
    assert not Refund.objects.filter(account=entry.account).exists()


def test_refund_books_once_under_an_id() -> None:
    entry = charge()
    given = (
        "--entry",
        str(entry.pk),
        "--amount",
        "4",
        "--reason",
        "wrong data",
        "--id",
        f"ticket-{entry.pk}",
        "--book",
    )
    run("refund", *given)
    booked = Refund.objects.get(account=entry.account)
    again = run("refund", *given)
    assert again == f"Ledger entry {booked.entry_id}: +4, balance 7 (booked before: nothing was given back now).\n"
    assert live(entry.account) == 7


def test_refund_names_the_charge_by_its_operation() -> None:
    entry = charge()
    named = ("--account", str(entry.account.number), "--operation", str(entry.operation))
    run("refund", *named, "--reason", "wrong data", "--book")
    assert live(entry.account) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--entry", "0"), "no entry 0"),
        (("--operation", str(uuid.uuid4())), "--account"),
    ],
)
def test_refund_says_what_is_missing(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run("refund", *arguments, "--reason", "x")
