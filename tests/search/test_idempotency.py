"""An Idempotency-Key makes a search safe to repeat: charged once, answered again."""

import json
from typing import Any

import pytest
from django.test import Client

from credits.services import spendable
from tests.factories import Customer, make_customer

People = list[dict[str, Any]]


def ask(api: Client, customer: Customer, document: Any, idempotency_key: str) -> Any:
    headers = {"x-api-key": customer.api_key, "Idempotency-Key": idempotency_key}
    return api.post("/api/v1/query", json.dumps(document), content_type="application/json", headers=headers)


def test_a_repeated_query_is_answered_again_and_charged_once(
    api: Client, alice: Customer, people: People, word: str
) -> None:
    document = {"filters": {"city": word}, "limit": 200}
    first, second = ask(api, alice, document, "order-1"), ask(api, alice, document, "order-1")
    assert (first["X-Credits-Used"], first.headers.get("Idempotent-Replayed")) == ("1", None)
    assert (second["X-Credits-Used"], second["Idempotent-Replayed"]) == ("0", "true")
    assert second.json()["data"] == first.json()["data"]
    assert spendable(alice.account) == 999


def test_the_same_key_with_another_request_is_a_mismatch(
    api: Client, alice: Customer, people: People, word: str
) -> None:
    ask(api, alice, {"filters": {"city": word}}, "order-1")
    response = ask(api, alice, {"filters": {"city": "other"}}, "order-1")
    assert (response.status_code, response.json()["error"]["code"]) == (422, "IDEMPOTENCY_MISMATCH")
    assert spendable(alice.account) == 999


def test_another_account_may_use_the_same_key(api: Client, alice: Customer, people: People, word: str) -> None:
    bob = make_customer(credits=10)
    for customer in (alice, bob):
        assert ask(api, customer, {"filters": {"city": word}}, "order-1")["X-Credits-Used"] == "1"


def test_a_search_and_a_person_lookup_are_idempotent_too(
    api: Client, alice: Customer, people: People, word: str
) -> None:
    headers = {"x-api-key": alice.api_key, "Idempotency-Key": "order-1"}
    for address in (f"/search?q={word}", f"/person/Ann-{word}"):
        assert [api.get(address, headers=headers)["X-Credits-Used"] for _ in range(2)] == ["1", "0"]
    assert spendable(alice.account) == 998


def test_a_repeated_download_is_delivered_again_and_charged_once(
    api: Client, alice: Customer, people: People, word: str
) -> None:
    headers = {"x-api-key": alice.api_key, "Idempotency-Key": "order-1"}
    first, second = (api.get(f"/download?q={word}", headers=headers) for _ in range(2))
    assert first.content == second.content
    assert (first["X-Credits-Used"], second["X-Credits-Used"]) == ("1", "0")
    assert spendable(alice.account) == 999


@pytest.mark.parametrize("key", ["x" * 129])
def test_a_key_that_is_too_long_is_refused(api: Client, alice: Customer, key: str) -> None:
    response = ask(api, alice, {}, key)
    assert response.status_code == 400
    assert response.json()["error"]["details"] == {"Idempotency-Key": "at most 128 characters"}
