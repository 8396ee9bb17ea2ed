"""`max_credits`: a request holds and costs no more than the customer said."""

import json
from typing import Any

import pytest
from django.test import Client

from tests.factories import Customer, make_customer
from tests.search.conftest import insert_records


@pytest.fixture
def many(stores: None, word: str) -> None:
    insert_records([{"user_id": f"{number:04d}", "city": word} for number in range(250)])


def ask(api: Client, customer: Customer, document: Any, **headers: str) -> Any:
    given = {"x-api-key": customer.api_key, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return api.post("/api/v1/query", json.dumps(document), content_type="application/json", headers=given)


def get(api: Client, customer: Customer, address: str, **parameters: str) -> Any:
    return api.get(address, parameters, headers={"x-api-key": customer.api_key})


@pytest.mark.usefixtures("many")
def test_a_query_returns_what_max_credits_pays_for_and_says_so(api: Client, alice: Customer, word: str) -> None:
    response = ask(api, alice, {"filters": {"city": word}, "limit": 250, "max_credits": 2})
    metadata = response.json()["metadata"]
    assert (metadata["returned"], metadata["credits_used"], metadata["limit"], metadata["total_records"]) == (
        199,
        2,
        199,
        250,
    )


@pytest.mark.usefixtures("many")
def test_a_search_returns_what_max_credits_pays_for(api: Client, alice: Customer, word: str) -> None:
    response = get(api, alice, "/search", q=word, limit="250", max_credits="1")
    assert (response.json()["metadata"]["returned"], response["X-Credits-Used"]) == (99, "1")


@pytest.mark.usefixtures("many")
def test_a_download_delivers_what_max_credits_pays_for(api: Client, alice: Customer, word: str) -> None:
    response = get(api, alice, "/download", q=word, max_credits="2")
    assert (response.content.count(b"\n"), response["X-Credits-Used"]) == (1 + 199, "2")


def test_no_more_than_max_credits_is_held(api: Client, word: str) -> None:
    poor = make_customer(credits=2)
    assert ask(api, poor, {"filters": {"city": word}, "limit": 10_000}).status_code == 402
    assert ask(api, poor, {"filters": {"city": word}, "limit": 10_000, "max_credits": 2}).status_code == 200


def test_metadata_names_no_limit_without_max_credits(api: Client, alice: Customer, word: str) -> None:
    assert "limit" not in ask(api, alice, {"filters": {"city": word}}).json()["metadata"]


@pytest.mark.parametrize("given", ["0", "-1", "many"])
@pytest.mark.parametrize("address", ["/search?q=acme", "/download?q=acme", "/person/nobody?x=1"])
def test_max_credits_below_one_is_refused_at_no_charge(api: Client, alice: Customer, address: str, given: str) -> None:
    response = api.get(f"{address}&max_credits={given}", headers={"x-api-key": alice.api_key})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert "max_credits" in response.json()["error"]["details"]
    assert response["X-Credits-Used"] == "0"


def test_a_person_is_looked_up_within_max_credits(
    api: Client, alice: Customer, people: list[dict[str, Any]], word: str
) -> None:
    response = get(api, alice, f"/person/Ann-{word}", max_credits="1")
    assert (response.status_code, response["X-Credits-Used"]) == (200, "1")


def test_another_max_credits_is_another_request_to_an_idempotency_key(api: Client, alice: Customer, word: str) -> None:
    document = {"filters": {"city": word}}
    ask(api, alice, {**document, "max_credits": 3}, Idempotency_Key="order-1")
    response = ask(api, alice, {**document, "max_credits": 4}, Idempotency_Key="order-1")
    assert (response.status_code, response.json()["error"]["code"]) == (422, "IDEMPOTENCY_MISMATCH")
