"""Credits over HTTP: balance, usage, top-ups, reconciliation; the codes of each refusal."""

import uuid
from datetime import date, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import Client, override_settings

from credits import drain, metering
from credits.models import CreditTransaction
from tests.factories import Customer, make_account, make_customer, make_usage

pytestmark = pytest.mark.usefixtures("stores")


def post(path: str, body: Any, **headers: str) -> Any:
    given = {
        "X-Admin-Secret": settings.ADMIN_SECRET,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return Client().post(path, data=body, content_type="application/json", headers=given)


def get(path: str, customer: Customer) -> Any:
    return Client().get(path, headers={"X-API-Key": customer.api_key})


def spend(customer: Customer, total: int) -> None:
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=total)
    metering.settle(hold, total=total, usage=make_usage(rows=42))


def test_topup_by_customer_number_answers_balance_and_transaction() -> None:
    account = make_account(credits=5)
    response = post("/admin/topup", {"user_id": account.number, "amount": 10})
    entry = CreditTransaction.objects.filter(account=account).order_by("-id")[0]
    assert response.status_code == 200
    assert response.json() == {"user_id": account.number, "amount": 10, "balance": 15, "transaction_id": entry.pk}


def test_topup_by_account_uuid() -> None:
    account = make_account()
    assert post("/admin/topup", {"user_id": str(account.pk), "amount": 3}).json()["balance"] == 3


def test_topup_with_the_same_idempotency_key_is_booked_once() -> None:
    account = make_account()
    key = str(uuid.uuid4())
    first = post("/admin/topup", {"user_id": account.number, "amount": 3}, Idempotency_Key=key)
    again = post("/admin/topup", {"user_id": account.number, "amount": 3}, Idempotency_Key=key)
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")
    other = post("/admin/topup", {"user_id": account.number, "amount": 4}, Idempotency_Key=key)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "IDEMPOTENCY_MISMATCH")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": -5}, "amount"),
        ({"amount": 10**13}, "amount"),
        ({"amount": "10"}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": None}, "amount"),
        ({"user_id": None}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"user_id": [1]}, "user_id"),
        ({"ammount": 5}, "ammount"),
    ],
)
def test_topup_names_the_field_it_refuses(change: dict[str, Any], field: str) -> None:
    account = make_account()
    response = post("/admin/topup", {"user_id": account.number, "amount": 1, **change})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert field in response.json()["error"]["details"]
    assert CreditTransaction.objects.filter(account=account).count() == 0


@pytest.mark.parametrize("user_id", [10**12, "01890a5d-ac96-774b-bcce-b302099a8057", "nobody", "9" * 30, "\u0660"])
def test_topup_of_an_unknown_account_is_404(user_id: Any) -> None:
    response = post("/admin/topup", {"user_id": user_id, "amount": 1})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("body", ["{", "[]", "1", '"x"', "null", ""])
def test_topup_refuses_a_malformed_body(body: str) -> None:
    response = post("/admin/topup", body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("secret", ["", "local-admin", "é"])
@pytest.mark.parametrize("path", ["/admin/topup", "/admin/sync-credits"])
def test_the_admin_interface_refuses_a_wrong_secret(path: str, secret: str) -> None:
    response = post(path, {"user_id": 1, "amount": 1}, X_Admin_Secret=secret)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "INVALID_ADMIN_SECRET")


def test_sync_credits_drains_and_reports_without_a_body() -> None:
    customer = make_customer(credits=10)
    spend(customer, 4)
    response = Client().generic("POST", "/admin/sync-credits", headers={"X-Admin-Secret": settings.ADMIN_SECRET})
    customer.account.refresh_from_db()
    assert (response.status_code, customer.account.balance) == (200, 6)
    assert response.json()["repaired"] == []


def test_credits_shows_balance_held_and_grants() -> None:
    customer = make_customer(credits=10)
    metering.admit(api_key=customer.api_key, endpoint="query", amount=4)
    response = get("/api/v1/credits", customer)
    data = response.json()["data"]
    assert (data["balance"], data["held"], data["ledger_balance"]) == (6, 4, 10)
    assert [(grant["amount"], grant["remaining"], grant["expires_at"]) for grant in data["grants"]] == [(10, 10, None)]
    assert (response.headers["X-Credits-Used"], response.headers["X-Credits-Remaining"]) == ("0", "6")


def test_usage_shows_requests_and_totals_of_this_account_alone() -> None:
    customer, other = make_customer(credits=10), make_customer(credits=10)
    spend(customer, 4)
    spend(customer, 1)
    spend(other, 7)
    drain.drain_once()
    data = get("/api/v1/usage", customer).json()["data"]
    assert data["totals"] == {"requests": 2, "credits": 5}
    assert sorted(row["credits"] for row in data["requests"]) == [1, 4]
    assert all(row["at"].endswith("Z") for row in data["requests"])
    assert [row["rows"] for row in data["groups"]] == [84]


@pytest.mark.parametrize("group_by", ["day", "key", "endpoint"])
def test_usage_groups(group_by: str) -> None:
    customer = make_customer(credits=10)
    spend(customer, 4)
    drain.drain_once()
    groups = get(f"/api/v1/usage?group_by={group_by}", customer).json()["data"]["groups"]
    assert [(row["requests"], row["credits"]) for row in groups] == [(1, 4)]


def test_usage_logs_a_released_request_with_its_status_and_no_cost() -> None:
    customer = make_customer(credits=10)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=4)
    metering.release(hold, usage=make_usage(status=504, rows=0))
    drain.drain_once()
    rows = get("/api/v1/usage", customer).json()["data"]["requests"]
    assert [(row["status"], row["credits"]) for row in rows] == [(504, 0)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("group_by=week", "group_by"),
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("form=2026-01-01", "form"),
        ("from=2026-02-01&to=2026-01-01", "from"),
        ("from=2020-01-01&to=2026-01-01", "from"),
    ],
)
def test_usage_names_the_parameter_it_refuses(query: str, field: str) -> None:
    response = get(f"/api/v1/usage?{query}", make_customer())
    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert field in response.json()["error"]["details"]


def test_usage_of_days_without_requests_is_empty() -> None:
    customer = make_customer()
    day = (date(2025, 1, 1) + timedelta(days=3)).isoformat()
    data = get(f"/api/v1/usage?from={day}&to={day}", customer).json()["data"]
    assert (data["totals"], data["groups"], data["requests"]) == ({"requests": 0, "credits": 0}, [], [])


@pytest.mark.parametrize("path", ["/api/v1/credits", "/api/v1/usage"])
def test_free_endpoints_ask_for_a_key(path: str) -> None:
    response = Client().get(path)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "MISSING_KEY")


def test_many_wrong_keys_from_one_address_are_refused_for_a_while() -> None:
    with override_settings(UNAUTHENTICATED_RATE="3/h"):
        answers = [
            Client(REMOTE_ADDR="203.0.113.9").get("/api/v1/credits", headers={"X-API-Key": "x"}) for _ in range(5)
        ]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    waits = [int(answer.headers["Retry-After"]) for answer in answers[3:]]
    assert [answer.json()["error"]["details"]["retry_after_s"] for answer in answers[3:]] == waits
    assert 1 <= waits[1] <= waits[0] <= 3600


def test_every_answer_carries_a_request_id() -> None:
    echoed = Client().get("/api/v1/credits", headers={"X-Request-ID": "abc-1"})
    made = Client().get("/api/v1/credits", headers={"X-Request-ID": "a b\u00e9"})
    assert echoed.headers["X-Request-ID"] == "abc-1"
    assert uuid.UUID(made.headers["X-Request-ID"])


def test_topup_names_the_closest_field() -> None:
    response = post("/admin/topup", {"user": 1, "amount": 1})
    assert response.json()["error"]["details"]["user"] == 'unknown field; did you mean "user_id"?'


def test_usage_says_what_it_groups_by() -> None:
    response = get("/api/v1/usage?group_by=week", make_customer())
    assert response.json()["error"]["details"] == {"group_by": "must be day, key or endpoint"}
