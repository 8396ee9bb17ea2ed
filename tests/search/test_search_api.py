import json
from typing import Any

import pytest
from django.test import Client

from credits.services import spendable
from tests.factories import Customer
from tests.search.conftest import insert_records

People = list[dict[str, Any]]
ADDRESSES = pytest.mark.parametrize("address", ["/api/v1/search", "/search"])


def found(api: Client, customer: Customer, address: str = "/search", **parameters: str) -> list[str]:
    response = api.get(address, parameters, headers={"X-API-Key": customer.api_key})
    assert response.status_code == 200, response.content
    return sorted(row["user_id"].split("-")[0] for row in response.json()["data"])


@ADDRESSES
def test_search_finds_a_word_whatever_its_case(
    api: Client, alice: Customer, people: People, word: str, address: str
) -> None:
    assert found(api, alice, address, q=word.upper()) == ["Ann", "bob", "cid"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("müller", ["Ann"]),
        ("MÜLLER", ["Ann"]),
        ("cid jr", ["cid"]),
        ("ann@", ["Ann"]),
        ("nobody", []),
        ("ann bob", []),
    ],
)
def test_search_wants_every_word(
    api: Client, alice: Customer, people: People, word: str, more: str, expected: list[str]
) -> None:
    assert found(api, alice, q=f"{word} {more}") == expected


@pytest.mark.parametrize("given", ["+12025550101", "1 (202) 555-0101", "12025550101"])
def test_search_finds_a_phone_however_written(api: Client, alice: Customer, people: People, given: str) -> None:
    assert "Ann" in found(api, alice, q=given, limit="1000")


def test_search_finds_a_record_by_its_sources_id(api: Client, alice: Customer, stores: None, word: str) -> None:
    insert_records([{"user_id": f"7{word}"}, {"user_id": f"8{word}"}])
    response = api.get("/search", {"q": f"7{word}"}, headers={"x-api-key": alice.api_key})
    assert [row["user_id"] for row in response.json()["data"]] == [f"7{word}"]


def test_search_returns_twenty_records_unless_told_otherwise(api: Client, alice: Customer, word: str) -> None:
    insert_records([{"user_id": str(number), "city": word} for number in range(30)])
    response = api.get("/search", {"q": word}, headers={"x-api-key": alice.api_key})
    metadata = response.json()["metadata"]
    assert (metadata["returned"], metadata["total_records"], metadata["page"]) == (20, 30, 1)
    assert len(found(api, alice, q=word, limit="25", offset="10")) == 20


def test_search_costs_one_credit(api: Client, alice: Customer, people: People, word: str) -> None:
    response = api.get("/search", {"q": word}, headers={"x-api-key": alice.api_key})
    assert response.json()["metadata"]["credits_used"] == 1
    assert response["X-Credits-Used"] == "1"
    assert spendable(alice.account) == 999


def test_search_without_words_is_refused_at_no_charge(api: Client, alice: Customer) -> None:
    response = api.get("/search", headers={"x-api-key": alice.api_key})
    assert response.status_code == 400
    assert response.json() == {
        "status": "error",
        "error": {
            "code": "INVALID_REQUEST",
            "message": "q: is required: the words to look for, e.g. ?q=Acme.",
            "details": {"q": "is required: the words to look for, e.g. ?q=Acme"},
        },
    }
    assert spendable(alice.account) == 1_000


@pytest.mark.parametrize("accept", ["application/json", "text/html", "text/csv", "image/png", "nonsense"])
def test_search_answers_json_whatever_is_accepted(api: Client, alice: Customer, accept: str) -> None:
    response = api.get("/search", {"q": "nobody"}, headers={"x-api-key": alice.api_key, "accept": accept})
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")


@pytest.mark.parametrize(
    "raw", [b"q=%ff", b"q=%00a", b"q=\xc3\xa4", b"q=a&" * 1_200, b"&&&", b"q", b"q[]=1", b"q=%ud800"]
)
def test_search_answers_any_query_string(api: Client, alice: Customer, raw: bytes) -> None:
    response = api.get("/search", QUERY_STRING=raw.decode("latin-1"), headers={"x-api-key": alice.api_key})
    assert response.status_code in (200, 400)
    assert json.loads(response.content)["status"] in ("success", "error")


@pytest.mark.parametrize("method", ["post", "put", "delete", "head", "options"])
def test_search_refuses_other_methods(api: Client, alice: Customer, method: str) -> None:
    response = getattr(api, method)("/search?q=a", headers={"x-api-key": alice.api_key})
    assert (response.status_code, response["Allow"]) == (405, "GET")
    assert spendable(alice.account) == 1_000
