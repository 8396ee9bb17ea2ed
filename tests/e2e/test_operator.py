"""An operator's day in a real browser: customer, top-up, key, revocation. No console error, no request off the host."""

import uuid

import httpx
import pytest
from django.contrib import admin
from django.urls import reverse
from django.utils import timezone

from accounts.models import Account, ApiKey
from credits import ledger
from credits.models import CreditTransaction
from ingestion.models import IngestionJob
from tests.e2e.browser import Visit
from tests.factories import make_account, make_customer
from tests.operators import page_of

pytestmark = pytest.mark.browser


def create_customer(visit: Visit) -> Account:
    email = f"new-{uuid.uuid4().hex[:12]}@example.com"
    visit.goto("/admin/accounts/account/add/")
    visit.page.fill("#id_name", "Northwind Research")
    visit.page.fill("#id_email", email)
    visit.page.click("text=Create customer")
    visit.page.wait_for_selector("text=Live available")
    return Account.objects.get(email=email)


def issue_key(visit: Visit, account: Account) -> str:
    visit.goto(page_of(account, "issue_key"))
    visit.page.fill("#id_label", "nightly export")
    visit.page.click("button:has-text('Issue key')")
    return visit.page.inner_text("#api-key")


def query(visit: Visit, api_key: str) -> httpx.Response:
    body = {"filters": {"city": "Nowhere at all"}, "limit": 1}
    return httpx.post(f"{visit.url}/api/v1/query", json=body, headers={"X-API-Key": api_key})


def test_operator_creates_a_customer(operator_visit: Visit) -> None:
    account = create_customer(operator_visit)
    assert (account.name, account.balance) == ("Northwind Research", 0)
    assert "not loaded" in operator_visit.page.inner_text(".mh-tiles")


def test_operator_tops_up_and_sees_before_and_after(operator_visit: Visit) -> None:
    account = make_account(credits=1000)
    page = operator_visit.page
    operator_visit.goto(page_of(account))
    page.click("text=Top up")
    page.fill("#id_amount", "1500")
    page.fill("#id_reason", "Invoice 2026-118")
    page.click("button:has-text('Top up')")
    page.wait_for_selector("text=Balance after")
    assert page.locator(".mh-tile-value").all_inner_texts() == ["1,000", "+1,500", "2,500", "2,500"]


def test_a_top_up_clicked_twice_is_booked_once(operator_visit: Visit) -> None:
    account = make_account()
    page = operator_visit.page
    operator_visit.goto(page_of(account, "top_up"))
    page.fill("#id_amount", "700")
    page.fill("#id_reason", "twice")
    page.dblclick("button:has-text('Top up')")
    page.wait_for_selector("text=Balance after")
    assert CreditTransaction.objects.get(account=account).amount == 700


def test_a_top_up_sent_five_times_at_once_is_booked_once(operator_visit: Visit) -> None:
    account = make_account()
    page = operator_visit.page
    operator_visit.goto(page_of(account, "top_up"))
    page.fill("#id_amount", "700")
    page.fill("#id_reason", "five times")
    statuses = page.evaluate(
        """() => Promise.all(Array.from({length: 5}, () =>
            fetch(location.href, {method: "POST", body: new FormData(document.querySelector("form[data-send-once]"))})
                .then((response) => response.status)))"""
    )
    assert statuses == [200] * 5
    assert CreditTransaction.objects.get(account=account).amount == 700


def test_an_issued_key_is_copied_and_works(operator_visit: Visit) -> None:
    account = make_account(credits=5)
    api_key = issue_key(operator_visit, account)
    page = operator_visit.page
    page.click("text=Copy >> nth=-1")
    page.wait_for_selector("button:has-text('Copied')")
    assert page.evaluate("navigator.clipboard.readText()") == api_key
    answer = query(operator_visit, api_key)
    assert (answer.status_code, answer.headers["X-Credits-Remaining"]) == (200, "4")


def test_an_issued_key_is_shown_once_even_after_a_reload(operator_visit: Visit) -> None:
    account = make_account()
    api_key = issue_key(operator_visit, account)
    page = operator_visit.page
    assert api_key not in page.url
    page.reload()
    page.wait_for_selector("text=Live available")
    assert api_key not in page.content()
    assert ApiKey.objects.filter(account=account).count() == 1


def test_a_rotated_key_and_its_successor_both_work(operator_visit: Visit) -> None:
    customer = make_customer(credits=5)
    page = operator_visit.page
    operator_visit.goto(reverse("admin:accounts_apikey_change", args=[customer.key_id]))
    page.click("text=Rotate >> nth=0")
    page.select_option("#id_grace", label="1 hour")
    page.click("button:has-text('Rotate key')")
    successor = page.inner_text("#api-key")
    assert [query(operator_visit, key).status_code for key in (customer.api_key, successor)] == [200, 200]


def test_a_changed_limit_holds_at_once(operator_visit: Visit) -> None:
    customer = make_customer(credits=5)
    page = operator_visit.page
    assert query(operator_visit, customer.api_key).status_code == 200
    operator_visit.goto(reverse("admin:accounts_apikey_change", args=[customer.key_id]))
    page.click("text=Change limits >> nth=0")
    page.check("text=account: credits and usage")
    page.click("button:has-text('Change limits')")
    page.wait_for_selector("text=are changed")
    answer = query(operator_visit, customer.api_key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "INSUFFICIENT_SCOPE")


def test_a_revoked_key_stops_working_at_once(operator_visit: Visit) -> None:
    customer = make_customer(credits=5)
    page = operator_visit.page
    assert query(operator_visit, customer.api_key).status_code == 200
    operator_visit.goto(reverse("admin:accounts_apikey_change", args=[customer.key_id]))
    page.click("text=Revoke >> nth=0")
    page.fill("#id_confirmation", customer.key_id)
    page.click("button:has-text('Revoke this key')")
    page.wait_for_selector("text=is revoked. Every process refuses the key from now on")
    answer = query(operator_visit, customer.api_key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "KEY_REVOKED")


def test_what_a_customer_spent_shows_in_the_ledger_with_the_grant_that_paid(operator_visit: Visit) -> None:
    customer = make_customer(credits=5)
    query(operator_visit, customer.api_key)
    while ledger.drain_ledger([customer.number % 64], now=timezone.now()).events:
        pass
    page = operator_visit.page
    operator_visit.goto(f"/admin/credits/credittransaction/?customer={customer.number}")
    page.click("tbody >> a >> nth=0")
    page.wait_for_selector("text=Paid from")
    assert "Purchase of 5 credits" in page.inner_text("#content-main")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_list_opens_without_a_complaint(operator_visit: Visit, scheme: str) -> None:
    make_customer(credits=5)
    now = timezone.now()
    IngestionJob.objects.create(
        source_path="data.csv",
        source_file="data.csv",
        size_bytes=1,
        sha256="0" * 64,
        format="csv",
        chunk_rows=1,
        created_at=now,
        started_at=now,
    )
    operator_visit.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    for model in admin.site._registry:
        operator_visit.goto(reverse(f"admin:{model._meta.label_lower.replace('.', '_')}_changelist"))
        row = operator_visit.page.locator("tbody th a, tbody td a").first
        if row.count():
            row.click()
            operator_visit.page.wait_for_load_state()


def test_no_page_is_wider_than_a_phone(operator_visit: Visit) -> None:
    customer = make_customer(credits=5)
    account = customer.account
    operator_visit.page.set_viewport_size({"width": 390, "height": 844})
    wide = []
    of_account = [page_of(account, action) for action in ("change", "top_up", "issue_key")]
    actions = ("change", "change_limits", "rotate", "revoke")
    of_key = [reverse(f"admin:accounts_apikey_{action}", args=[customer.key_id]) for action in actions]
    for path in ["/admin/", "/admin/accounts/account/", "/admin/accounts/apikey/", *of_account, *of_key]:
        operator_visit.goto(path)
        if operator_visit.page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(path)
    assert wide == []
