"""The documented commands, sent as curl sends them: lower-case header names, `Accept: */*`, no body on a bare POST."""

import csv
import io
import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.conf import settings as django_settings
from pytest_django import Settings

from accounts.models import Account
from accounts.services import issue_key
from credits import drain
from tests.factories import Customer, make_customer
from tests.search.conftest import insert_records


@pytest.fixture
def curl(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, headers={"accept": "*/*", "user-agent": "curl/8.5.0"}, timeout=20) as client:
        yield client


@pytest.fixture
def demo(base_url: str) -> Customer:
    """A customer with 3 credits, and records about Acme."""
    insert_records([{"user_id": str(uuid.uuid4()), "name": f"Acme {number} Ltd."} for number in range(7)])
    return make_customer(credits=3)


def search(curl: httpx.Client, customer: Customer) -> httpx.Response:
    return curl.get("/search?q=Acme", headers={"x-api-key": customer.api_key})


def top_up(curl: httpx.Client, customer: Customer, amount: int, secret: str = "") -> httpx.Response:
    headers = {"x-admin-secret": secret or django_settings.ADMIN_SECRET, "Content-Type": "application/json"}
    body = json.dumps({"user_id": customer.number, "amount": amount})
    return curl.post("/admin/topup", headers=headers, content=body)


def test_health(curl: httpx.Client) -> None:
    response = curl.get("/health")
    assert response.status_code == 200
    assert response.json() == {"ok": True, "status": "ok", "postgres": True, "redis": True, "clickhouse": True}


def test_top_up_answers_with_the_new_balance(curl: httpx.Client, demo: Customer) -> None:
    response = top_up(curl, demo, 10)
    assert response.status_code == 200
    body = response.json()
    assert (body["user_id"], body["amount"], body["balance"]) == (demo.number, 10, 13)
    assert body["transaction_id"]


def test_top_up_with_a_wrong_secret_is_refused(curl: httpx.Client, demo: Customer) -> None:
    response = top_up(curl, demo, 10, secret="guess")
    assert (response.status_code, response.json()["error"]["code"]) == (401, "INVALID_ADMIN_SECRET")


def test_sync_credits_needs_no_body(curl: httpx.Client, demo: Customer) -> None:
    response = curl.post("/admin/sync-credits", headers={"x-admin-secret": django_settings.ADMIN_SECRET})
    assert response.status_code == 200


def test_search_finds_acme_for_one_credit(curl: httpx.Client, demo: Customer) -> None:
    response = search(curl, demo)
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    assert all("acme" in row["name"].lower() for row in body["data"])
    assert body["metadata"]["returned"] >= 7
    assert (body["metadata"]["credits_used"], body["metadata"]["credits_remaining"]) == (1, 2)


def test_search_at_zero_credits_is_a_402_with_a_helpful_message(curl: httpx.Client, demo: Customer) -> None:
    assert [search(curl, demo).status_code for _ in range(3)] == [200, 200, 200]
    response = search(curl, demo)
    assert response.status_code == 402
    assert response.json()["error"] == {
        "code": "INSUFFICIENT_CREDITS",
        "message": "Insufficient credits. Required: 1, Available: 0",
        "details": {"required": 1, "available": 0, "limit_source": "account"},
    }


def test_top_up_search_and_see_the_credits_in_the_ledger(curl: httpx.Client, demo: Customer) -> None:
    assert top_up(curl, demo, 5).json()["balance"] == 8
    assert search(curl, demo).status_code == 200
    drain.drain_once()
    assert Account.objects.get(pk=demo.account.pk).balance == 7


def test_download_of_five_rows_costs_one_credit(curl: httpx.Client, demo: Customer) -> None:
    response = curl.get("/download?q=Acme&limit=5", headers={"x-api-key": demo.api_key})
    assert response.status_code == 200
    rows = list(csv.DictReader(io.StringIO(response.text, newline="")))
    assert len(rows) == 5
    assert all("Acme" in row["name"] for row in rows)
    assert response.headers["X-Credits-Used"] == "1"


def test_person_is_found_by_its_exact_id(curl: httpx.Client, demo: Customer) -> None:
    insert_records([{"user_id": "54a4f3f67468693b8cd7b470", "name": "Ann"}])
    response = curl.get("/person/54a4f3f67468693b8cd7b470", headers={"x-api-key": demo.api_key})
    assert response.status_code == 200
    assert response.json()["data"][0]["user_id"] == "54a4f3f67468693b8cd7b470"


def test_person_id_is_case_sensitive(curl: httpx.Client, demo: Customer) -> None:
    response = curl.get("/person/54A4F3F67468693B8CD7B470", headers={"x-api-key": demo.api_key})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "NOT_FOUND")


def test_the_sixth_call_of_a_minute_is_refused_at_a_limit_of_five(
    curl: httpx.Client, demo: Customer, settings: Settings
) -> None:
    settings.RATE_LIMIT_RPM = 5
    limited = Customer(demo.account, issue_key(account=demo.account).api_key, "")
    top_up(curl, demo, 10)
    responses = [search(curl, limited) for _ in range(6)]
    assert [response.status_code for response in responses] == [200] * 5 + [429]
    assert responses[0].headers["X-RateLimit-Limit"] == "5"
    assert [response.headers["X-RateLimit-Remaining"] for response in responses] == ["4", "3", "2", "1", "0", "0"]
    assert responses[5].json()["error"]["code"] == "RATE_LIMITED"
    assert int(responses[5].headers["Retry-After"]) >= 1


def test_the_header_name_of_the_key_may_be_in_any_case(curl: httpx.Client, demo: Customer) -> None:
    for name in ("x-api-key", "X-API-Key", "X-API-KEY"):
        assert curl.get("/search?q=Acme", headers={name: demo.api_key}).status_code == 200


def test_an_address_that_is_not_there_answers_in_the_error_envelope(curl: httpx.Client) -> None:
    response = curl.get("/api/v1/nothing")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "NOT_FOUND"


def test_docs_lead_to_the_api_documents(curl: httpx.Client) -> None:
    assert curl.get("/docs", follow_redirects=True).url.path == "/api/docs"
