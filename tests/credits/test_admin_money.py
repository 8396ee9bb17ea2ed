"""Top up with dates, adjust, void and refund in the operator admin: by whom it may be done, once, with a reason."""

import uuid
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse
from django.utils import timezone

from accounts.models import Account
from credits import counters, drain, metering, services, verify
from credits.models import CreditGrant, CreditTransaction, Decrease, Refund
from tests.factories import make_account, make_customer, make_usage
from tests.operators import client_of, make_operator, make_staff, page_of, text_of, typed
from tests.outages import redis_away

pytestmark = pytest.mark.usefixtures("stores")

operator = cache(make_operator)


def form_id() -> str:
    return f"admin:{uuid.uuid4()}"


def post(url: str, user: Any = None, **data: str) -> Any:
    return client_of(user or operator()).post(
        url, {"reason": "Ticket 9", "form_id": form_id(), "reference": "", **data}
    )


def adjust(account: Account, mode: str, amount: int, **data: str) -> Any:
    return post(page_of(account, "adjust"), mode=mode, amount=str(amount), **data)


def values(response: Any) -> list[str]:
    """The figures on the page's tiles."""
    return [text for tile in response.context["tiles"] if (text := str(tile.value).split(">")[1].split("<")[0])]


def live(account: Account) -> int:
    return counters.inspect(account.number).balance


def void_url(grant: CreditGrant) -> str:
    return reverse("admin:credits_creditgrant_void", args=[grant.pk])


def refund_url(entry: CreditTransaction) -> str:
    return reverse("admin:credits_credittransaction_refund", args=[entry.pk])


def charge(amount: int = 7) -> CreditTransaction:
    customer = make_customer(credits=10)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=amount)
    metering.settle(hold, total=amount, usage=make_usage())
    drain.drain_once()
    return CreditTransaction.objects.get(account=customer.account, type="debit")


def errors(response: Any) -> list[str]:
    return list(response.context["form"].errors)


def log_of(row: Any) -> str:
    return str(LogEntry.objects.get(object_id=str(row.pk)).change_message)


def assert_proven(account: Account) -> None:
    assert verify._ledger_differences([account.number]) == []
    assert verify._live_differences([account.number])[1:] == ([], [])


def test_top_up_takes_kind_priority_and_dates() -> None:
    account = make_account()
    given = {"kind": "promo", "priority": "5", "expires_at": "2999-01-01T12:30", "effective_at": "2998-01-01T00:00"}
    response = post(page_of(account, "top_up"), amount="150", **given)
    grant = CreditGrant.objects.get(account=account)
    assert (grant.kind, grant.priority, grant.entered_at, grant.actor) == ("promo", 5, None, operator().email)
    assert (f"{grant.expires_at:%Y-%m-%d %H:%M}", f"{grant.effective_at:%Y-%m-%d}") == (
        "2999-01-01 12:30",
        "2998-01-01",
    )
    assert values(response) == ["0", "+0", "0", "0"]
    assert "Scheduled" in text_of(response)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"expires_at": "2001-01-01T00:00"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"expires_at": "2998-01-01T00:00", "effective_at": "2999-01-01T00:00"}, "expires_at"),
        ({"priority": "1001"}, "priority"),
        ({"kind": "gift"}, "kind"),
    ],
)
def test_top_up_refuses_beside_the_field(given: dict[str, str], field: str) -> None:
    account = make_account()
    assert errors(post(page_of(account, "top_up"), amount="150", **given)) == [field]
    assert not CreditGrant.objects.filter(account=account).exists()


def test_adjust_adds_credits_as_an_adjustment() -> None:
    account = make_account(credits=10)
    response = adjust(account, "add", 5)
    assert values(response) == ["10", "+5", "15", "15"]
    entry = CreditTransaction.objects.get(account=account, kind="adjustment")
    assert (entry.type, entry.amount, entry.reason, entry.actor) == ("credit", 5, "Ticket 9", operator().email)
    assert log_of(account) == "Adjusted by +5 credits, 10 → 15: Ticket 9"


def test_adjust_takes_credits_as_an_adjustment() -> None:
    account = make_account(credits=10)
    response = adjust(account, "take", 4)
    assert values(response) == ["10", "−4", "6", "10"]
    drain.drain_once()
    entry = CreditTransaction.objects.get(account=account, kind="adjustment")
    assert (entry.type, entry.amount, entry.reason, entry.actor) == ("debit", 4, "Ticket 9", operator().email)
    assert_proven(account)


@pytest.mark.parametrize(("target", "change"), [(25, "+15"), (3, "−7"), (0, "−10")])
def test_adjust_sets_the_balance_by_a_signed_difference(target: int, change: str) -> None:
    account = make_account(credits=10)
    response = adjust(account, "set", target)
    assert values(response)[1:3] == [change, str(target)]
    drain.drain_once()
    assert live(account) == target
    assert_proven(account)


def test_the_balance_is_set_beside_what_is_held() -> None:
    customer = make_customer(credits=10)
    metering.admit(api_key=customer.api_key, endpoint="query", amount=4)
    adjust(customer.account, "set", 1)
    assert counters.inspect(customer.number).available == 1
    assert live(customer.account) == 5


def test_a_balance_that_is_set_counts_what_redis_has_not_learnt() -> None:
    account = make_account(credits=10)
    with redis_away():
        services.top_up(account=account, amount=5, now=timezone.now())
    adjust(account, "set", 20)
    drain.drain_once()
    assert live(account) == 20


@pytest.mark.parametrize(("mode", "amount"), [("add", 5), ("take", 5), ("set", 3), ("set", 30)])
def test_an_adjustment_sent_twice_is_booked_once(mode: str, amount: int) -> None:
    account = make_account(credits=10)
    same = form_id()
    adjust(account, mode, amount, form_id=same)
    before = live(account)
    second = adjust(account, mode, amount, form_id=same)
    assert "Nothing was booked now." in text_of(second)
    assert live(account) == before
    assert LogEntry.objects.filter(object_id=str(account.pk)).count() == 1


def test_an_adjustment_of_the_same_reference_with_another_amount_is_refused() -> None:
    account = make_account(credits=10)
    reference = f"note-{account.pk}"
    adjust(account, "take", 5, reference=reference)
    assert errors(adjust(account, "take", 4, reference=reference)) == ["reference"]
    assert errors(adjust(account, "add", 5, reference=reference)) == ["reference"]
    assert live(account) == 5


@pytest.mark.parametrize(("mode", "amount"), [("add", 0), ("take", 0), ("take", 11), ("set", 10), ("add", 10**12 + 1)])
def test_an_adjustment_that_cannot_be_is_refused_beside_the_amount(mode: str, amount: int) -> None:
    account = make_account(credits=10)
    assert errors(adjust(account, mode, amount)) == ["amount"]
    assert live(account) == 10


def test_an_adjustment_asks_for_a_reason() -> None:
    account = make_account(credits=10)
    assert errors(adjust(account, "take", 1, reason=" ")) == ["reason"]


def test_a_balance_is_not_set_without_redis() -> None:
    account = make_account(credits=10)
    url = page_of(account, "adjust")
    client = client_of(operator())
    with redis_away():
        response = client.post(
            url, {"mode": "set", "amount": "3", "reason": "x", "form_id": form_id(), "reference": ""}
        )
    assert "Nothing was changed; try again." in text_of(response)
    assert not Decrease.objects.filter(account=account).exists()


def test_void_takes_back_what_a_grant_has_left() -> None:
    account = make_account(credits=10)
    grant = CreditGrant.objects.get(account=account)
    response = post(void_url(grant))
    assert values(response)[:3] == ["10", "−10", "0"]
    drain.drain_once()
    entry = CreditTransaction.objects.get(account=account, kind="void")
    assert (entry.amount, entry.reason, entry.actor) == (10, "Ticket 9", operator().email)
    assert log_of(grant) == "Voided 10 credits: Ticket 9"
    assert_proven(account)


def test_void_cancels_a_scheduled_grant() -> None:
    account = make_account()
    later = timezone.now() + timedelta(days=9)
    grant = services.top_up(account=account, amount=5, now=timezone.now(), effective_at=later).grant
    assert "Cancelled" in text_of(post(void_url(grant)))
    grant.refresh_from_db()
    assert grant.voided_at is not None


def test_a_grant_is_voided_once() -> None:
    grant = CreditGrant.objects.get(account=make_account(credits=10))
    post(void_url(grant))
    assert errors(post(void_url(grant))) == ["__all__"]
    assert Decrease.objects.filter(grant=grant).count() == 1


def test_a_grants_page_offers_to_void_what_is_left_alone() -> None:
    grant = CreditGrant.objects.get(account=make_account(credits=10))
    page = f"/admin/credits/creditgrant/{grant.pk}/change/"
    assert void_url(grant) in client_of(operator()).get(page).content.decode()
    post(void_url(grant))
    assert void_url(grant) not in client_of(operator()).get(page).content.decode()


def test_refund_shows_who_would_get_what() -> None:
    entry = charge()
    response = client_of(operator()).get(refund_url(entry))
    assert values(response) == ["7", "0", "7"]
    assert "7 to purchase of 10 credits, which paid them." in text_of(response)
    assert typed(response, "amount") == "7"
    assert not Refund.objects.filter(account=entry.account).exists()


def test_refund_gives_a_part_of_a_charge_back() -> None:
    entry = charge()
    response = post(refund_url(entry), amount="3")
    assert values(response) == ["3", "+3", "6", "6"]
    booked = Refund.objects.get(account=entry.account).entry
    assert (booked.kind, booked.amount, booked.reason, booked.actor) == ("refund", 3, "Ticket 9", operator().email)
    assert log_of(entry) == "Refunded 3 credits: Ticket 9"
    assert_proven(entry.account)


def test_a_refund_sent_twice_is_booked_once() -> None:
    entry = charge()
    same = form_id()
    post(refund_url(entry), amount="3", form_id=same)
    second = post(refund_url(entry), amount="3", form_id=same)
    assert "Nothing was booked now." in text_of(second)
    assert live(entry.account) == 6


def test_a_refund_past_the_charge_is_refused_beside_the_amount() -> None:
    entry = charge()
    assert errors(post(refund_url(entry), amount="8")) == ["amount"]
    assert live(entry.account) == 3


def test_what_was_refunded_whole_says_so() -> None:
    entry = charge()
    post(refund_url(entry), amount="7")
    assert "All 7 credits of this operation were refunded before." in text_of(
        client_of(operator()).get(refund_url(entry))
    )


def test_a_top_up_has_no_refund() -> None:
    entry = CreditTransaction.objects.get(account=make_account(credits=1))
    assert client_of(operator()).get(refund_url(entry)).status_code == 404
    page = client_of(operator()).get(f"/admin/credits/credittransaction/{entry.pk}/change/")
    assert refund_url(entry) not in page.content.decode()


def test_support_moves_no_money() -> None:
    entry = charge()
    account, grant = entry.account, CreditGrant.objects.get(account=entry.account)
    support = make_staff(
        "accounts.view_account",
        "accounts.change_account",
        "credits.view_creditgrant",
        "credits.view_credittransaction",
    )
    urls = [page_of(account, "top_up"), page_of(account, "adjust"), void_url(grant), refund_url(entry)]
    assert [post(url, support, amount="1", mode="add").status_code for url in urls] == [403] * 4
    assert live(account) == 3


def test_finance_moves_money() -> None:
    entry = charge()
    account, grant = entry.account, CreditGrant.objects.get(account=entry.account)
    finance = make_staff(
        "accounts.view_account",
        "credits.view_creditgrant",
        "credits.view_credittransaction",
        "credits.add_creditgrant",
        "credits.add_decrease",
        "credits.add_refund",
    )
    urls = [page_of(account, "top_up"), page_of(account, "adjust"), refund_url(entry), void_url(grant)]
    assert [text_of(post(url, finance, amount="1", mode="add")).count("Balance after") for url in urls] == [1] * 4


def test_the_customers_page_says_what_expires_soon() -> None:
    account = make_account(credits=3)
    now = timezone.now()
    for days, amount in ((5, 20), (29, 30), (31, 40)):
        services.top_up(account=account, amount=amount, now=now, expires_at=now + timedelta(days=days))
    response = client_of(operator()).get(page_of(account))
    (tile,) = [tile for tile in response.context["tiles"] if tile.title == "Expiring in 30 days"]
    assert ">50<" in str(tile.value)


def test_a_charge_and_its_refund_lead_to_each_other() -> None:
    entry = charge()
    done = Refund.objects.get(pk=refund_of(entry))
    text = text_of(client_of(operator()).get(f"/admin/credits/credittransaction/{entry.pk}/change/"))
    assert "Refund of 3 credits" in text
    text = text_of(client_of(operator()).get(f"/admin/credits/credittransaction/{done.entry_id}/change/"))
    assert "3 to Purchase of 10 credits" in text


def refund_of(entry: CreditTransaction) -> uuid.UUID:
    post(refund_url(entry), amount="3")
    return Refund.objects.get(account=entry.account).pk


def test_money_moves_beside_the_reserve() -> None:
    account = make_account(credits=10_000)
    adjust(account, "set", 4_000)
    drain.drain_once()
    assert services.spendable(account) == 4_000
    adjust(account, "set", 0)
    drain.drain_once()
    assert services.spendable(account) == 0
    adjust(account, "set", 50_000)
    assert services.spendable(account) == 50_000
    account.refresh_from_db()
    assert account.reserve > 0
    assert_proven(account)
