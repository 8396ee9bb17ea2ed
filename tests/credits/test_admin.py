"""Top-ups and the ledger in the operator admin."""

import uuid
from datetime import timedelta
from functools import cache
from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from credits import counters, ledger, metering
from credits.models import Command, CreditGrant, CreditTransaction, SetAside
from tests.factories import Customer, make_account, make_customer, make_usage
from tests.operators import client_of, make_operator, make_staff, page_of, text_of, typed
from tests.outages import redis_away

pytestmark = pytest.mark.usefixtures("stores")

operator = cache(make_operator)
LEDGER = "/admin/credits/credittransaction/"


def form_id() -> str:
    return f"admin:{uuid.uuid4()}"


def top_up(account: Any, **changes: str) -> Any:
    data = {"amount": "150", "reason": "Invoice 7", "reference": "", "form_id": form_id(), **changes}
    return client_of(operator()).post(page_of(account, "top_up"), data)


def values(response: Any) -> list[str]:
    """The figures on the page's tiles."""
    return [text for tile in response.context["tiles"] if (text := str(tile.value).split(">")[1].split("<")[0])]


def charged(customer: Customer, *, total: int) -> CreditTransaction:
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=total)
    metering.settle(hold, total=total, usage=make_usage())
    while ledger.drain_ledger([customer.number % 64], now=timezone.now()).events:
        pass
    return CreditTransaction.objects.get(account=customer.account, type="debit")


def test_top_up_shows_the_balance_before_and_after() -> None:
    account = make_account(credits=1000)
    response = top_up(account)
    assert values(response) == ["1,000", "+150", "1,150", "1,150"]
    assert "no-store" in response.headers["Cache-Control"]


def test_top_up_names_operator_and_reason_in_the_ledger() -> None:
    account = make_account()
    top_up(account)
    entry = CreditTransaction.objects.get(account=account)
    assert (entry.kind, entry.amount, entry.reason, entry.actor) == ("top_up", 150, "Invoice 7", operator().email)
    assert LogEntry.objects.get(object_id=str(account.pk)).change_message == "Topped up 150 credits: Invoice 7"


def test_top_up_reaches_the_live_balance() -> None:
    account = make_account(credits=1)
    top_up(account)
    assert counters.inspect(account.number).available == 151


def test_top_up_without_redis_is_booked_and_says_that_it_waits() -> None:
    account = make_account(credits=1000)
    client = client_of(operator())
    data = {"amount": "150", "reason": "Invoice 7", "reference": "", "form_id": form_id()}
    with redis_away():
        response = client.post(page_of(account, "top_up"), data)
    account.refresh_from_db()
    assert account.balance == 1150
    assert "Booked. Redis away:" in text_of(response)
    assert "can be spent now" not in text_of(response)


def test_top_up_submitted_twice_books_once() -> None:
    account = make_account(credits=1000)
    same = form_id()
    top_up(account, form_id=same)
    second = top_up(account, form_id=same)
    account.refresh_from_db()
    assert account.balance == 1150
    assert values(second) == ["1,150", "+0", "1,150", "1,150"]
    assert "Nothing was booked now." in text_of(second)
    assert LogEntry.objects.filter(object_id=str(account.pk)).count() == 1


def test_top_up_opened_twice_books_twice() -> None:
    account = make_account()
    client = client_of(operator())
    ids = {typed(client.get(page_of(account, "top_up")), "form_id") for _ in range(2)}
    for one in ids:
        top_up(account, form_id=one)
    account.refresh_from_db()
    assert (len(ids), account.balance) == (2, 300)


def test_the_same_payment_is_booked_once_from_two_forms() -> None:
    account = make_account()
    reference = f"INV-{uuid.uuid4()}"
    top_up(account, reference=reference)
    top_up(account, reference=reference)
    account.refresh_from_db()
    assert account.balance == 150


def test_the_same_payment_is_booked_once_from_the_form_and_the_command_line() -> None:
    account = make_account()
    reference = f"INV-{uuid.uuid4()}"
    top_up(account, reference=reference)
    call_command("top_up", account=str(account.number), amount=150, payment_id=reference, stdout=StringIO())
    account.refresh_from_db()
    assert account.balance == 150


def test_the_same_payment_with_another_amount_is_refused_beside_its_field() -> None:
    account = make_account()
    reference = f"INV-{uuid.uuid4()}"
    top_up(account, reference=reference)
    response = top_up(account, reference=reference, amount="151")
    assert list(response.context["form"].errors) == ["reference"]
    assert (typed(response, "amount"), typed(response, "reason")) == ("151", "Invoice 7")
    account.refresh_from_db()
    assert account.balance == 150


def test_a_form_that_was_booked_asks_before_it_books_another_amount() -> None:
    account = make_account()
    same = form_id()
    top_up(account, form_id=same)
    refused = top_up(account, form_id=same, amount="20")
    assert list(refused.context["form"].errors) == ["amount"]
    top_up(account, form_id=typed(refused, "form_id"), amount="20")
    account.refresh_from_db()
    assert account.balance == 170


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": ""}, "amount"),
        ({"amount": "0"}, "amount"),
        ({"amount": "-5"}, "amount"),
        ({"amount": "1.5"}, "amount"),
        ({"amount": "ten"}, "amount"),
        ({"amount": "1000000000001"}, "amount"),
        ({"reason": ""}, "reason"),
        ({"reason": "   "}, "reason"),
        ({"reason": "x" * 256}, "reason"),
        ({"form_id": ""}, "form_id"),
        ({"form_id": "payment:somebody-else"}, "form_id"),
    ],
)
def test_top_up_refuses_and_keeps_what_was_typed(changes: dict[str, str], field: str) -> None:
    account = make_account(credits=3)
    response = top_up(account, **{"reference": "kept", **changes})
    account.refresh_from_db()
    assert (response.status_code, account.balance) == (200, 3)
    assert list(response.context["form"].errors) == [field]
    assert typed(response, "reference") == "kept"


def test_top_up_past_the_largest_balance_is_refused_beside_the_amount() -> None:
    account = make_account()
    account.balance = 10**14 - 200
    account.save(update_fields=["balance"])
    response = top_up(account, amount="500")
    account.balance = 0
    account.save(update_fields=["balance"])
    assert list(response.context["form"].errors) == ["amount"]


def test_top_up_needs_its_own_permission() -> None:
    account = make_account()
    staff = make_staff("accounts.view_account", "accounts.change_account")
    data = {"amount": "150", "reason": "x", "reference": "", "form_id": form_id()}
    response = client_of(staff).post(page_of(account, "top_up"), data)
    account.refresh_from_db()
    assert (response.status_code, account.balance) == (403, 0)


def test_top_up_by_finance_alone_is_allowed() -> None:
    account = make_account()
    staff = make_staff("credits.add_creditgrant", "accounts.view_account")
    data = {"amount": "150", "reason": "x", "reference": "", "form_id": form_id()}
    assert client_of(staff).post(page_of(account, "top_up"), data).status_code == 200


def test_reading_the_top_up_page_books_nothing() -> None:
    account = make_account()
    client_of(operator()).get(page_of(account, "top_up"), {"amount": "150", "reason": "x", "form_id": form_id()})
    account.refresh_from_db()
    assert account.balance == 0


@pytest.mark.parametrize("model", ["credittransaction", "creditgrant", "setaside", "command"])
@pytest.mark.parametrize("page", ["add", "change", "delete"])
def test_nobody_writes_the_books_by_post(model: str, page: str) -> None:
    account = make_account(credits=9)
    rows: dict[str, Any] = {
        "credittransaction": CreditTransaction.objects.get(account=account),
        "creditgrant": CreditGrant.objects.get(account=account),
        "setaside": SetAside.objects.create(account=account, reason="late", debit=1, event={}),
        "command": Command.objects.get(account=account),
    }
    row = rows[model]
    before = type(row).objects.filter(account=account).values().get()
    url = reverse(f"admin:credits_{model}_{page}", args=[] if page == "add" else [row.pk])
    response = client_of(operator()).post(url, {"amount": "1", "account": str(account.pk), "post": "yes"})
    assert response.status_code == 403
    assert type(row).objects.filter(account=account).values().get() == before


def test_the_ledger_offers_no_bulk_action() -> None:
    account = make_account(credits=1)
    entry = CreditTransaction.objects.get(account=account)
    response = client_of(operator()).post(LEDGER, {"action": "delete_selected", "_selected_action": str(entry.pk)})
    assert response.context["action_form"] is None
    assert CreditTransaction.objects.filter(pk=entry.pk).exists()


def test_the_ledger_is_never_counted() -> None:
    make_account(credits=1)
    client = client_of(operator())
    with CaptureQueriesContext(connection) as queries:
        response = client.get(LEDGER)
    assert response.status_code == 200
    assert [query["sql"] for query in queries if "COUNT(" in query["sql"]] == []


def test_the_ledger_is_read_by_its_primary_key_with_its_customers() -> None:
    make_account(credits=1)
    client = client_of(operator())
    with CaptureQueriesContext(connection) as queries:
        client.get(LEDGER)
    (read,) = [query["sql"] for query in queries if 'FROM "credits_credittransaction"' in query["sql"]]
    assert 'INNER JOIN "accounts_account"' in read
    assert 'ORDER BY "credits_credittransaction"."id" DESC LIMIT 50' in read


def listed(**query: Any) -> list[int]:
    response = client_of(operator()).get(LEDGER, query)
    return [row.pk for row in response.context["cl"].result_list]


def test_the_ledger_is_filtered_by_customer() -> None:
    account = make_account(credits=1)
    make_account(credits=1)
    assert listed(customer=account.number) == [CreditTransaction.objects.get(account=account).pk]


@pytest.mark.parametrize("number", ["0", "-1", "x", "1e3", "9" * 30, "²"])
def test_an_unknown_customer_number_shows_an_empty_ledger(number: str) -> None:
    assert listed(customer=number) == []


def test_the_ledger_is_filtered_by_type_and_kind() -> None:
    customer = make_customer(credits=10)
    debit = charged(customer, total=3)
    assert listed(customer=customer.number, type__exact="debit") == [debit.pk]
    assert listed(customer=customer.number, kind__exact="usage") == [debit.pk]
    assert debit.pk not in listed(customer=customer.number, kind__exact="top_up")


def test_the_ledger_is_filtered_by_day() -> None:
    account = make_account(credits=1)
    entry = CreditTransaction.objects.get(account=account)
    day = entry.created_at.date()
    assert listed(customer=account.number, day=day.isoformat()) == [entry.pk]
    assert listed(customer=account.number, day=(day - timedelta(days=1)).isoformat()) == []


@pytest.mark.parametrize("day", ["yesterday", "2026-13-40", "9999-12-31", "0001-01-01"])
def test_a_day_that_is_none_shows_an_empty_ledger(day: str) -> None:
    assert listed(day=day) == []


def test_an_entry_shows_which_grants_paid() -> None:
    customer = make_customer(credits=2)
    top_up(customer.account, amount="10")
    debit = charged(customer, total=5)
    text = text_of(client_of(operator()).get(f"{LEDGER}{debit.pk}/change/"))
    assert "Paid from" in text
    assert text.index("Purchase of 2 credits") < text.index("Purchase of 10 credits")
    assert customer.key_id in text


def test_a_customers_page_shows_its_grants() -> None:
    account = make_account(credits=4321)
    text = text_of(client_of(operator()).get(page_of(account)))
    assert text.count("4,321") >= 3


def test_a_grants_page_shows_the_id_that_take_back_asks_for() -> None:
    grant = CreditGrant.objects.get(account=make_account(credits=1))
    assert str(grant.pk) in text_of(client_of(operator()).get(f"/admin/credits/creditgrant/{grant.pk}/change/"))


def test_grants_are_filtered_by_customer() -> None:
    account = make_account(credits=1)
    response = client_of(operator()).get("/admin/credits/creditgrant/", {"customer": account.number})
    assert [grant.account_id for grant in response.context["cl"].result_list] == [account.pk]


def test_a_page_past_the_bound_is_refused() -> None:
    response = client_of(operator()).get(LEDGER, {"p": "201"})
    assert response.status_code == 302
