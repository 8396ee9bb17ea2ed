"""Alerts over HTTP: each account its own settings, log and tests; refusals with their codes."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client, override_settings
from django.utils import timezone

from accounts import services
from credits import alerts, webhooks
from credits.alert_delivery import deliver_due
from credits.alert_models import Alert, AlertDelivery, AlertSettings
from tests.credits.receiver import receiving
from tests.credits.test_webhooks import is_signed
from tests.factories import Customer, make_customer

URL = "https://8.8.8.8/credits"  # an address, so that no name has to be resolved


@pytest.fixture(autouse=True)
def opened(stores: None) -> Iterator[None]:
    """The webhooks of these tests need no certificate and stay on the loopback."""
    AlertDelivery.objects.filter(finished_at=None).update(state="gave_up", finished_at=timezone.now())
    with override_settings(ALERT_WEBHOOK_ALLOW_HTTP=True, ALERT_WEBHOOK_ALLOWED_NETWORKS=["127.0.0.0/8"]):
        yield


def call(method: str, path: str, customer: Customer, body: Any = None) -> Any:
    headers = {"X-API-Key": customer.api_key}
    return Client().generic(method, path, "" if body is None else _json(body), "application/json", headers=headers)


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()


def put(customer: Customer, body: Any) -> Any:
    return call("PUT", "/api/v1/alerts", customer, body)


def get(customer: Customer, path: str = "/api/v1/alerts") -> Any:
    return call("GET", path, customer)


def test_an_account_begins_with_the_defaults() -> None:
    customer = make_customer()
    with override_settings(ALERT_LOW_CREDITS=5, ALERT_LOW_PERCENT=25, ALERT_EXPIRING_DAYS=3):
        response = get(customer)
    assert response.json()["data"] == {
        "settings": {
            "low_credits": 5,
            "low_percent": 25,
            "expiring_days": 3,
            "emails": [customer.account.email],
            "webhook_url": "",
        },
        "webhook_secret": None,
        "previous_secret_until": None,
    }
    assert response.headers["X-Credits-Used"] == "0"


def test_settings_are_kept_and_can_be_sent_back() -> None:
    customer = make_customer()
    chosen = {
        "low_credits": 500,
        "low_percent": 0,
        "expiring_days": 30,
        "emails": ["a@example.com"],
        "webhook_url": URL,
    }
    assert put(customer, chosen).json()["data"]["settings"] == chosen
    shown = get(customer).json()["data"]["settings"]
    assert shown == chosen
    assert put(customer, shown).status_code == 200


def test_what_is_left_out_follows_the_default() -> None:
    customer = make_customer()
    put(customer, {"low_credits": 500, "emails": []})
    put(customer, {})
    row = AlertSettings.objects.get(account=customer.account)
    assert (row.low_credits, row.low_percent, row.expiring_days, row.emails, row.webhook_url) == (
        None,
        None,
        None,
        None,
        "",
    )


def test_the_secret_is_shown_once_and_stays_when_the_address_changes() -> None:
    customer = make_customer()
    made = put(customer, {"webhook_url": URL})
    secret = made.json()["data"]["webhook_secret"]
    again = put(customer, {"webhook_url": URL + "/moved"}).json()["data"]["webhook_secret"]
    row = AlertSettings.objects.get(account=customer.account)
    assert (webhooks.secret_of(row.webhook_salt), again) == (secret, None)
    assert get(customer).json()["data"]["webhook_secret"] is None
    assert made.headers["Cache-Control"] == "no-store"


def test_a_webhook_that_is_set_anew_gets_a_new_secret() -> None:
    customer = make_customer()
    secrets = [put(customer, {"webhook_url": url}).json()["data"]["webhook_secret"] for url in (URL, "", URL)]
    assert secrets[1] is None
    assert secrets[0] != secrets[2]


def test_a_renewed_secret_leaves_the_old_one_for_a_day() -> None:
    customer = make_customer()
    old = put(customer, {"webhook_url": URL}).json()["data"]["webhook_secret"]
    response = call("POST", "/api/v1/alerts/secret", customer)
    data = response.json()["data"]
    row = AlertSettings.objects.get(account=customer.account)
    assert webhooks.secret_of(row.webhook_previous_salt) == old
    assert webhooks.secret_of(row.webhook_salt) == data["webhook_secret"] != old
    assert row.webhook_previous_until == row.updated_at + timedelta(hours=24)
    assert response.headers["Cache-Control"] == "no-store"


def test_a_secret_cannot_be_renewed_without_a_webhook() -> None:
    response = call("POST", "/api/v1/alerts/secret", make_customer())
    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert response.json()["error"]["details"] == {"webhook_url": "not set"}


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.1/hook",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://100.64.0.1/",
        "https://2130706433/",
        "https://localhost/",
        "https://user:password@8.8.8.8/",
        "https://8.8.8.8:22/",
        "ftp://8.8.8.8/",
        "nonsense",
    ],
)
def test_a_webhook_to_an_address_inside_gets_its_code(url: str) -> None:
    customer = make_customer()
    response = put(customer, {"webhook_url": url})
    error = response.json()["error"]
    assert (response.status_code, error["code"], list(error["details"])) == (
        400,
        "WEBHOOK_ADDRESS_REFUSED",
        ["webhook_url"],
    )
    assert get(customer).json()["data"]["settings"]["webhook_url"] == ""


def test_plain_http_is_refused_unless_the_operator_allows_it() -> None:
    with override_settings(ALERT_WEBHOOK_ALLOW_HTTP=False):
        response = put(make_customer(), {"webhook_url": "http://8.8.8.8/"})
    assert response.json()["error"]["details"] == {"webhook_url": "must begin with https://"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"low_credits": -1}, "low_credits"),
        ({"low_credits": 10**14 + 1}, "low_credits"),
        ({"low_credits": "5"}, "low_credits"),
        ({"low_credits": True}, "low_credits"),
        ({"low_percent": 100}, "low_percent"),
        ({"low_percent": 1.5}, "low_percent"),
        ({"expiring_days": 91}, "expiring_days"),
        ({"emails": "a@example.com"}, "emails"),
        ({"emails": ["nobody"]}, "emails"),
        ({"emails": ["a@example.com\nBcc: b@example.com"]}, "emails"),
        ({"emails": [None]}, "emails"),
        ({"emails": [f"{n}@example.com" for n in range(11)]}, "emails"),
        ({"webhook_url": None}, "webhook_url"),
        ({"webhook": URL}, "webhook"),
    ],
)
def test_settings_name_the_field_they_refuse(body: dict[str, Any], field: str) -> None:
    customer = make_customer()
    response = put(customer, body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert list(response.json()["error"]["details"]) == [field]
    assert not AlertSettings.objects.filter(account=customer.account).exists()


def test_an_element_of_a_list_is_named_by_its_place() -> None:
    response = put(make_customer(), {"emails": ["a@example.com", None]})
    assert response.json()["error"]["details"] == {"emails": "[1] This field may not be null."}


def test_a_test_alert_arrives_and_stands_in_the_log() -> None:
    customer = make_customer(credits=70)
    with receiving() as receiver:
        url = f"http://127.0.0.1:{receiver.port}/hook"
        secret = put(customer, {"emails": [], "webhook_url": url}).json()["data"]["webhook_secret"]
        sent = call("POST", "/api/v1/alerts/test", customer).json()["data"]
        deliver_due()
    (received,) = receiver.received
    assert is_signed(received, secret)
    assert received.headers["webhook-id"] == sent["id"]
    (shown,) = get(customer, "/api/v1/alerts/log").json()["data"]["alerts"]
    assert (shown["id"], shown["type"], shown["data"]) == (sent["id"], "alerts.test", {"balance": 70})
    assert shown["deliveries"] == [
        {
            "channel": "webhook",
            "target": url,
            "state": "delivered",
            "attempts": 1,
            "next_attempt_at": None,
            "response_status": 200,
            "last_error": "",
        }
    ]


def test_the_sixth_test_alert_of_an_hour_is_refused() -> None:
    customer, other = make_customer(), make_customer()
    statuses = [call("POST", "/api/v1/alerts/test", customer).status_code for _ in range(5)]
    refused = call("POST", "/api/v1/alerts/test", customer)
    assert statuses == [200] * 5
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "RATE_LIMITED")
    assert 3500 < int(refused.headers["Retry-After"]) <= 3600
    assert call("POST", "/api/v1/alerts/test", other).status_code == 200
    Alert.objects.filter(account=customer.account).update(created_at=timezone.now() - timedelta(hours=1, seconds=1))
    assert call("POST", "/api/v1/alerts/test", customer).status_code == 200


def test_a_test_alert_to_nobody_is_refused() -> None:
    customer = make_customer()
    put(customer, {"emails": []})
    response = call("POST", "/api/v1/alerts/test", customer)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert not Alert.objects.filter(account=customer.account).exists()


def test_the_log_is_paged_newest_first() -> None:
    customer = make_customer()
    for age in (3, 2, 1):
        alerts.send_test(account=customer.account, now=timezone.now() - timedelta(minutes=age))
    ids = [f"evt_{alert.event_id.hex}" for alert in Alert.objects.filter(account=customer.account).order_by("-id")]
    first = get(customer, "/api/v1/alerts/log?limit=2").json()["data"]
    second = get(customer, f"/api/v1/alerts/log?limit=2&before={first['next']}").json()["data"]
    assert [alert["id"] for alert in first["alerts"]] == ids[:2]
    assert [alert["id"] for alert in second["alerts"]] == ids[2:]
    assert (first["next"], second["next"]) == (ids[1], None)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "before=x", "before=evt_01890a5dac96774bbcceb302099a8057", "page=2"]
)
def test_the_log_names_the_parameter_it_refuses(query: str) -> None:
    response = get(make_customer(), f"/api/v1/alerts/log?{query}")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert list(response.json()["error"]["details"]) == [query.partition("=")[0]]


def test_another_accounts_key_sees_and_changes_nothing() -> None:
    customer, other = make_customer(), make_customer()
    put(customer, {"webhook_url": URL, "emails": ["a@example.com"]})
    event = call("POST", "/api/v1/alerts/test", customer).json()["data"]["id"]
    put(other, {"low_credits": 9})
    assert get(other).json()["data"]["settings"]["webhook_url"] == ""
    assert get(customer).json()["data"]["settings"]["webhook_url"] == URL
    assert get(other, "/api/v1/alerts/log").json()["data"] == {"alerts": [], "next": None}
    assert get(other, f"/api/v1/alerts/log?before={event}").status_code == 400


CALLS = [
    ("GET", "/api/v1/alerts"),
    ("PUT", "/api/v1/alerts"),
    ("GET", "/api/v1/alerts/log"),
    ("POST", "/api/v1/alerts/secret"),
    ("POST", "/api/v1/alerts/test"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_key_without_the_account_scope_is_refused(method: str, path: str) -> None:
    customer = make_customer()
    issued = services.issue_key(account=customer.account, rpm=0, scopes=["search"])
    response = call(method, path, Customer(customer.account, issued.api_key, issued.key.pk), {})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "INSUFFICIENT_SCOPE")
    assert not AlertSettings.objects.filter(account=customer.account).exists()


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_call_without_a_key_is_refused(method: str, path: str) -> None:
    response = Client().generic(method, path)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "MISSING_KEY")
