"""Adjust, void and refund in a real browser: once, whatever is clicked, with the balance before and after."""

import pytest
from django.urls import reverse
from django.utils import timezone

from credits import ledger, metering
from credits.models import CreditGrant, CreditTransaction, Refund
from tests.e2e.browser import Visit
from tests.factories import make_account, make_customer, make_usage
from tests.operators import page_of

pytestmark = pytest.mark.browser


def tiles(visit: Visit) -> list[str]:
    visit.page.wait_for_selector("text=Balance after")
    return visit.page.locator(".mh-tile-value").all_inner_texts()


def test_operator_sets_a_balance(operator_visit: Visit) -> None:
    account = make_account(credits=300)
    page = operator_visit.page
    operator_visit.goto(page_of(account))
    page.click("text=Adjust")
    page.select_option("#id_mode", "set")
    page.fill("#id_amount", "120")
    page.fill("#id_reason", "Agreed by phone")
    page.dblclick("button:has-text('Adjust balance')")
    assert tiles(operator_visit)[:3] == ["300", "−180", "120"]


def test_operator_refunds_a_charge(operator_visit: Visit) -> None:
    customer = make_customer(credits=300)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=40)
    metering.settle(hold, total=40, usage=make_usage())
    ledger.catch_up(customer.number % 64, now=timezone.now())
    charge = CreditTransaction.objects.get(account=customer.account, type="debit")
    page = operator_visit.page
    operator_visit.goto(reverse("admin:credits_credittransaction_change", args=[charge.pk]))
    page.click("text=Refund >> nth=0")
    assert "40 to purchase of 300 credits, which paid them." in page.inner_text("form[data-send-once]")
    page.fill("#id_amount", "15")
    page.fill("#id_reason", "Wrong data")
    page.dblclick("button:has-text('Refund')")
    assert tiles(operator_visit)[:3] == ["260", "+15", "275"]
    assert [done.amount for done in Refund.objects.filter(account=customer.account)] == [15]


def test_operator_schedules_a_grant_and_cancels_it(operator_visit: Visit) -> None:
    account = make_account(credits=300)
    page = operator_visit.page
    operator_visit.goto(page_of(account, "top_up"))
    page.fill("#id_amount", "50")
    page.fill("#id_reason", "Next year")
    page.select_option("#id_kind", "promo")
    page.fill("#id_effective_at", "2998-01-01T00:00")
    page.fill("#id_expires_at", "2999-01-01T12:00")
    page.click("button:has-text('Top up')")
    assert tiles(operator_visit)[:3] == ["300", "+0", "300"]
    page.click("text=Promo of 50 credits")
    page.click("text=Void")
    page.fill("#id_reason", "Contract ended")
    page.click("button:has-text('Cancel scheduled grant')")
    assert tiles(operator_visit)[:3] == ["300", "+0", "300"]
    assert CreditGrant.objects.get(account=account, kind="promo").voided_at is not None
