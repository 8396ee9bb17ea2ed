"""`POST /admin/revoke-key`: its answers and its refusals."""

from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from accounts.models import ApiKey
from credits import metering
from credits.refusals import KeyRevoked
from tests.factories import make_customer
from tests.outages import postgres_away, redis_away

pytestmark = pytest.mark.usefixtures("stores")

PATH = "/admin/revoke-key"


def post(body: Any, *, secret: str | None = None) -> Any:
    headers = {"X-Admin-Secret": settings.ADMIN_SECRET if secret is None else secret}
    return Client().post(PATH, data=body, content_type="application/json", headers=headers)


def test_a_revoked_key_is_answered_with_200() -> None:
    customer = make_customer(credits=5)
    response = post({"key": customer.key_id, "reason": "leaked"})
    assert response.status_code == 200
    assert response.json() == {
        "key": customer.key_id,
        "state": "revoked",
        "known_by": ["postgres", "redis"],
        "message": "Every process refuses the key from now on, whatever Redis loses.",
    }
    key = ApiKey.objects.get(pk=customer.key_id)
    assert (key.revoked_by, key.revoked_reason) == ("admin api", "leaked")
    with pytest.raises(KeyRevoked):
        metering.identify(api_key=customer.api_key, endpoint="credits")


def test_without_postgres_the_answer_is_202_and_the_key_is_refused() -> None:
    customer = make_customer(credits=5)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    with postgres_away():
        response = post({"key": customer.key_id})
        with pytest.raises(KeyRevoked):
            metering.identify(api_key=customer.api_key, endpoint="credits")
    assert (response.status_code, response.json()["state"], response.json()["known_by"]) == (202, "pending", ["redis"])


def test_without_redis_the_answer_is_202() -> None:
    customer = make_customer()
    with redis_away():
        response = post({"key": customer.key_id})
    assert (response.status_code, response.json()["known_by"]) == (202, ["postgres"])


def test_without_both_stores_the_answer_is_503() -> None:
    customer = make_customer()
    with postgres_away(), redis_away():
        response = post({"key": customer.key_id})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "Retry-After" in response.headers
    assert ApiKey.objects.get(pk=customer.key_id).state == "active"


def test_an_unknown_key_is_answered_with_404() -> None:
    response = post({"key": "0000000000000"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "key"),
        ({"key": ""}, "key"),
        ({"key": None}, "key"),
        ({"key": ["x"]}, "key"),
        ({"key": "0" * 13, "reason": "x" * 256}, "reason"),
        ({"key": "0" * 13, "raeson": "x"}, "raeson"),
    ],
)
def test_a_body_that_cannot_be_used_names_the_field(body: dict[str, Any], field: str) -> None:
    response = post(body)
    assert response.status_code == 400
    assert field in response.json()["error"]["details"]


@pytest.mark.parametrize("secret", ["", "local-admin", "é"])
def test_a_wrong_secret_is_refused(secret: str) -> None:
    customer = make_customer()
    response = post({"key": customer.key_id}, secret=secret)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "INVALID_ADMIN_SECRET")
    assert ApiKey.objects.get(pk=customer.key_id).state == "active"


def test_another_method_is_told_the_right_one() -> None:
    response = Client().get(PATH, headers={"X-Admin-Secret": settings.ADMIN_SECRET})
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert response.json()["error"]["details"] == {"allowed": ["POST"]}
