import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client

from credits.services import spendable
from tests.factories import Customer, make_customer
from tests.search.conftest import insert_records

People = list[dict[str, Any]]


def person(api: Client, customer: Customer, person_id: str, address: str = "/person/") -> Any:
    return api.get(address + quote(person_id, safe=""), headers={"x-api-key": customer.api_key})


@pytest.mark.parametrize("address", ["/person/", "/api/v1/person/"])
def test_person_is_found_by_its_source_id(
    api: Client, alice: Customer, people: People, word: str, address: str
) -> None:
    response = person(api, alice, f"Ann-{word}", address)
    assert response.status_code == 200
    assert [row["id"] for row in response.json()["data"]] == [str(people[0]["id"])]
    assert response.json()["metadata"]["credits_used"] == 1
    assert spendable(alice.account) == 999


def test_person_is_found_by_its_own_id(api: Client, alice: Customer, people: People) -> None:
    response = person(api, alice, str(people[1]["id"]).upper())
    assert [row["name"] for row in response.json()["data"]] == ["Bob\nNewline"]


def test_person_is_found_by_a_source_id_that_looks_like_a_uuid(api: Client, alice: Customer, word: str) -> None:
    source_id = str(uuid.uuid4())
    insert_records([{"user_id": source_id, "name": word}])
    assert [row["name"] for row in person(api, alice, source_id).json()["data"]] == [word]


def test_person_ids_are_case_sensitive(api: Client, alice: Customer, people: People, word: str) -> None:
    assert person(api, alice, f"ann-{word}").status_code == 404


def test_person_without_a_match_is_not_found_and_free(api: Client, alice: Customer) -> None:
    response = person(api, alice, "nobody")
    assert response.status_code == 404
    assert response.json()["error"] == {
        "code": "NOT_FOUND",
        "message": "No person has this id. Ids are case-sensitive; give the record's id or the id it had in its source.",
        "details": {"id": "no match"},
    }
    assert (response["X-Credits-Used"], response["X-Credits-Remaining"]) == ("0", "1000")
    assert spendable(alice.account) == 1_000


def test_person_needs_one_credit(api: Client, people: People, word: str) -> None:
    assert person(api, make_customer(credits=0), f"Ann-{word}").status_code == 402


def test_person_of_several_is_the_best_and_newest(api: Client, alice: Customer, word: str) -> None:
    old, new = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    insert_records(
        [
            {"user_id": word, "name": "worse", "data_quality_score": 0.4, "ingested_at": new},
            {"user_id": word, "name": "older", "data_quality_score": 0.8, "ingested_at": old},
            {"user_id": word, "name": "newer", "data_quality_score": 0.8, "ingested_at": new},
        ]
    )
    body = person(api, alice, word).json()
    assert [row["name"] for row in body["data"]] == ["newer"]
    assert (body["metadata"]["total_records"], body["metadata"]["returned"]) == (1, 1)


@pytest.mark.parametrize("source_id", ["a/b", "a b", "ä", "%41", "a'b", "..", "a?b#c", "/", "a/", "\\"])
def test_person_ids_may_hold_any_character(api: Client, alice: Customer, word: str, source_id: str) -> None:
    insert_records([{"user_id": f"{word}{source_id}", "name": word}])
    response = person(api, alice, f"{word}{source_id}")
    assert [row["name"] for row in response.json()["data"]] == [word]


@pytest.mark.parametrize(
    ("person_id", "reason"),
    [("x" * 257, "must have at most 256 characters, it has 257"), ("a\0b", "must not contain the NUL character")],
)
def test_person_refuses_an_id_that_cannot_be_one(api: Client, alice: Customer, person_id: str, reason: str) -> None:
    response = person(api, alice, person_id)
    assert response.status_code == 400
    assert response.json()["error"]["details"] == {"id": reason}
