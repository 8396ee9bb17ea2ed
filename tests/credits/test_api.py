"""Credits over HTTP: balance, usage, top-ups, reconciliation; the codes of each refusal."""

import uuid
from datetime import date, timedelta
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client, override_settings
from django.utils import timezone

from credits import drain, metering, services
from credits.models import CreditGrant, CreditTransaction
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


def later(days: int) -> str:
    return (timezone.now() + timedelta(days=days)).isoformat()


def test_credits_shows_what_expires_within_30_days_and_what_is_scheduled() -> None:
    customer = make_customer(credits=3)
    for days, amount in ((5, 20), (29, 30), (31, 40)):
        post("/admin/topup", {"user_id": customer.number, "amount": amount, "kind": "promo", "expires_at": later(days)})
    post("/admin/topup", {"user_id": customer.number, "amount": 7, "effective_at": later(9)})
    data = get("/api/v1/credits", customer).json()["data"]
    assert (data["balance"], data["expiring_in_30_days"]) == (93, 50)
    assert [(grant["kind"], grant["remaining"]) for grant in data["grants"]] == [
        ("promo", 20),
        ("promo", 30),
        ("promo", 40),
        ("purchase", 3),
    ]
    assert [(grant["kind"], grant["amount"]) for grant in data["scheduled"]] == [("purchase", 7)]


def test_credits_counts_only_what_is_left_of_an_expiring_grant() -> None:
    customer = make_customer()
    post("/admin/topup", {"user_id": customer.number, "amount": 20, "expires_at": later(5)})
    spend(customer, 8)
    drain.drain_once()
    assert get("/api/v1/credits", customer).json()["data"]["expiring_in_30_days"] == 12


def test_topup_takes_kind_priority_dates_and_reason() -> None:
    account = make_account()
    start, end = later(3), later(5)
    body = {"user_id": account.number, "amount": 4, "kind": "promo", "priority": 7, "reason": "fair"}
    response = post("/admin/topup", {**body, "effective_at": start, "expires_at": end})
    grant = CreditGrant.objects.get(account=account)
    assert (grant.kind, grant.priority, grant.reason) == ("promo", 7, "fair")
    assert (grant.effective_at.isoformat(), grant.expires_at and grant.expires_at.isoformat()) == (start, end)
    answer = response.json()
    assert (answer["transaction_id"], answer["balance"]) == (None, 0)
    assert answer["effective_at"] == start.replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({"expires_at": "2001-01-01T00:00:00Z"}, {"expires_at": "must lie in the future"}),
        (
            {"effective_at": "2999-01-01T00:00:00Z", "expires_at": "2998-01-01T00:00:00Z"},
            {"expires_at": "must lie after effective_at"},
        ),
        ({"kind": "gift"}, {"kind": "must be one of purchase, promo, adjustment, refund"}),
    ],
)
def test_topup_says_why_it_refuses_a_grant(change: dict[str, Any], reasons: dict[str, str]) -> None:
    account = make_account()
    response = post("/admin/topup", {"user_id": account.number, "amount": 1, **change})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert response.json()["error"]["details"] == reasons
    assert not CreditGrant.objects.filter(account=account).exists()


@pytest.mark.parametrize("change", [{"priority": -1}, {"priority": 1001}, {"priority": "1"}, {"expires_at": "soon"}])
def test_topup_names_the_field_of_a_grant_that_it_refuses(change: dict[str, Any]) -> None:
    response = post("/admin/topup", {"user_id": make_account().number, "amount": 1, **change})
    assert (response.status_code, list(response.json()["error"]["details"])) == (400, list(change))


def test_topup_past_the_most_an_account_can_hold_names_the_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    account = make_account(credits=5)
    monkeypatch.setattr(services, "CREDITS_MAX", 9)
    response = post("/admin/topup", {"user_id": account.number, "amount": 5})
    assert (response.status_code, response.json()["error"]["details"]) == (400, {"amount": "balance at most 9"})


def test_a_payment_id_that_was_seen_before_gets_the_same_answer() -> None:
    account = make_account()
    body = {"user_id": account.number, "amount": 3, "payment_id": str(uuid.uuid4())}
    first, again = post("/admin/topup", body), post("/admin/topup", body)
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")


@pytest.mark.parametrize("change", [{"amount": 4}, {"kind": "promo"}, {"user_id": 0}])
def test_a_payment_id_that_was_seen_for_something_else_is_a_mismatch(change: dict[str, Any]) -> None:
    body: dict[str, Any] = {"user_id": make_account().number, "amount": 3, "payment_id": str(uuid.uuid4())}
    post("/admin/topup", body)
    if "user_id" in change:
        change = {"user_id": make_account().number}
    response = post("/admin/topup", {**body, **change})
    assert (response.status_code, response.json()["error"]["code"]) == (422, "IDEMPOTENCY_MISMATCH")


def test_a_payment_is_one_whether_it_comes_by_program_or_command_line() -> None:
    account = make_account()
    payment = str(uuid.uuid4())
    post("/admin/topup", {"user_id": account.number, "amount": 3, "payment_id": payment})
    call_command("top_up", account=str(account.number), amount=3, payment_id=payment, stdout=StringIO())
    account.refresh_from_db()
    assert account.balance == 3


def test_topup_takes_one_id_alone() -> None:
    body = {"user_id": make_account().number, "amount": 3, "payment_id": "inv-1"}
    response = post("/admin/topup", body, Idempotency_Key="key-1")
    assert (response.status_code, list(response.json()["error"]["details"])) == (400, ["payment_id"])
