import json
import uuid
from typing import Any

import pytest
from django.test import Client

from accounts.revocation import revoke_key
from config.clickhouse.client import writer
from credits.services import spendable
from tests.factories import Customer, make_customer
from tests.search.conftest import insert_records

URL = "/api/v1/query"
People = list[dict[str, Any]]


def ask(api: Client, document: Any, key: str | None, **headers: str) -> Any:
    given = {"x-api-key": key, **headers} if key else headers
    return api.post(URL, json.dumps(document, ensure_ascii=False), content_type="application/json", headers=given)


def error(response: Any) -> tuple[int, str, dict[str, Any]]:
    body = json.loads(response.content)
    assert set(body) == {"status", "error"}
    assert body["status"] == "error"
    assert set(body["error"]) == {"code", "message", "details"}
    return response.status_code, body["error"]["code"], body["error"]["details"]


def names(response: Any) -> list[str]:
    assert response.status_code == 200, response.content
    return [row["user_id"].split("-")[0] for row in response.json()["data"]]


def test_query_answers_whole_records(api: Client, alice: Customer, people: People, word: str) -> None:
    response = ask(api, {"filters": {"user_id": f"Ann-{word}"}}, alice.api_key)
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    body = response.json()
    assert body["data"] == [
        {
            "id": str(people[0]["id"]),
            "user_id": f"Ann-{word}",
            "email": f"ann@{word}.example",
            "name": 'Ann "A" Müller',
            "phone": "+12025550101",
            "address": None,
            "city": word,
            "country": "USA",
            "created_date": "2024-01-05",
            "status": "active",
            "metadata": {"note": "a/b", "zip": "02458"},
            "data_quality_score": 0.9,
            "validation_errors": ["phone"],
            "source_file": "people.csv",
            "ingested_at": "2026-01-02T03:04:05.678Z",
        }
    ]
    took = body["metadata"].pop("query_time_ms")
    assert isinstance(took, int)
    assert body["metadata"] == {
        "total_records": 1,
        "returned": 1,
        "page": 1,
        "credits_used": 1,
        "credits_remaining": 999,
        "next_cursor": None,
    }


def test_query_keeps_the_order_of_fields(api: Client, alice: Customer, people: People, word: str) -> None:
    response = ask(api, {"filters": {"city": word}, "fields": ["name", "id"], "limit": 1}, alice.api_key)
    assert list(response.json()["data"][0]) == ["name", "id"]


def test_query_answers_null_for_what_is_not_given(api: Client, alice: Customer, people: People, word: str) -> None:
    document = {"filters": {"user_id": f"cid-{word}"}, "fields": ["email", "created_date", "metadata"]}
    assert ask(api, document, alice.api_key).json()["data"] == [{"email": None, "created_date": None, "metadata": {}}]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["Ann", "bob", "cid"]),
        ({"country": "USA"}, ["Ann", "cid"]),
        ({"country": "usa", "status": "ACTIVE"}, ["Ann"]),
        ({"status": ["active", "pending"]}, ["Ann", "bob"]),
        ({"status": {"in": ["closed"]}}, ["cid"]),
        ({"status": {"eq": "closed"}}, ["cid"]),
        ({"created_date": {"gte": "2024-01-05", "lt": "2024-03-01"}}, ["Ann"]),
        ({"created_date": {"gt": "2024-01-05"}}, ["bob"]),
        ({"created_date": "2024-03-01"}, ["bob"]),
        ({"created_date": ["2024-03-01", "2024-01-05"]}, ["Ann", "bob"]),
        ({"data_quality_score": 0.9}, ["Ann"]),
        ({"data_quality_score": [0.5, 0.9]}, ["Ann", "bob", "cid"]),
        ({"data_quality_score": {"lt": 0.9}}, ["bob", "cid"]),
        ({"ingested_at": {"gte": "2026-01-02T04:04:05.678+01:00"}}, ["Ann", "bob", "cid"]),
        ({"ingested_at": {"gt": "2026-01-02T03:04:05.678Z"}}, []),
        ({"phone": "+12025550101"}, ["Ann"]),
        ({"name": "Bob\nNewline"}, ["bob"]),
        ({"name": ["Bob\nNewline", "Cid, Jr.", "x'\\"]}, ["bob", "cid"]),
        ({"metadata.zip": "02458"}, ["Ann"]),
        ({"metadata.zip": "2458"}, []),
        ({"metadata.zip": ["1", "02458"]}, ["Ann"]),
        ({"metadata.address.zip": "1"}, ["bob"]),
        ({"metadata.flat.zip": "2"}, ["bob"]),
    ],
)
def test_query_filters(
    api: Client, alice: Customer, people: People, word: str, filters: dict[str, Any], found: list[str]
) -> None:
    document = {"filters": {"city": word, **filters}, "fields": ["user_id"], "sort": {"field": "user_id"}}
    assert names(ask(api, document, alice.api_key)) == found


def test_query_finds_an_email_whatever_its_case(api: Client, alice: Customer, people: People, word: str) -> None:
    assert names(ask(api, {"filters": {"email": f"ANN@{word}.Example"}}, alice.api_key)) == ["Ann"]


def test_query_finds_by_id(api: Client, alice: Customer, people: People) -> None:
    assert names(ask(api, {"filters": {"id": [str(row["id"]).upper() for row in people[1:2]]}}, alice.api_key)) == [
        "bob"
    ]


@pytest.mark.parametrize(
    ("sort", "found"),
    [
        ({"field": "created_date", "order": "desc"}, ["bob", "Ann", "cid"]),
        ({"field": "created_date"}, ["Ann", "bob", "cid"]),
        ([{"field": "country", "order": "desc"}, {"field": "name", "order": "desc"}], ["cid", "Ann", "bob"]),
    ],
)
def test_query_sorts(api: Client, alice: Customer, people: People, word: str, sort: Any, found: list[str]) -> None:
    assert names(ask(api, {"filters": {"city": word}, "sort": sort}, alice.api_key)) == found


def test_query_pages_do_not_overlap_without_a_sort(api: Client, alice: Customer, word: str) -> None:
    insert_records([{"user_id": f"{number:02d}-{word}", "city": word} for number in range(25)])
    seen = []
    for offset in range(0, 30, 10):
        body = ask(api, {"filters": {"city": word}, "limit": 10, "offset": offset}, alice.api_key).json()
        assert body["metadata"]["total_records"] == 25
        assert body["metadata"]["page"] == offset // 10 + 1
        seen += [row["user_id"] for row in body["data"]]
    assert sorted(seen) == [f"{number:02d}-{word}" for number in range(25)]


def test_query_knows_the_total_past_the_last_page(api: Client, alice: Customer, people: People, word: str) -> None:
    metadata = ask(api, {"filters": {"city": word}, "limit": 2, "offset": 50}, alice.api_key).json()["metadata"]
    assert (metadata["total_records"], metadata["returned"], metadata["page"]) == (3, 0, 26)


def test_query_leaves_the_total_out_when_told(api: Client, alice: Customer, people: People, word: str) -> None:
    document = {"filters": {"city": word}, "limit": 2, "include_total": False}
    assert ask(api, document, alice.api_key).json()["metadata"]["total_records"] is None


@pytest.mark.parametrize(("rows", "price"), [(0, 1), (99, 1), (100, 2), (250, 3)])
def test_query_costs_one_and_one_more_for_each_full_hundred(
    api: Client, alice: Customer, word: str, rows: int, price: int
) -> None:
    if rows:
        insert_records([{"user_id": str(number), "city": word} for number in range(rows)])
    response = ask(api, {"filters": {"city": word}, "limit": 1_000, "fields": ["id"]}, alice.api_key)
    metadata = response.json()["metadata"]
    assert (metadata["returned"], metadata["credits_used"], metadata["credits_remaining"]) == (
        rows,
        price,
        1_000 - price,
    )
    assert (response["X-Credits-Used"], response["X-Credits-Remaining"]) == (str(price), str(1_000 - price))
    assert spendable(alice.account) == 1_000 - price


def test_query_tells_the_rate_window(api: Client, people: People, word: str) -> None:
    limited = make_customer(credits=10, rpm=5)
    response = ask(api, {"filters": {"city": word}, "limit": 1}, limited.api_key)
    assert (response["X-RateLimit-Limit"], response["X-RateLimit-Remaining"]) == ("5", "4")
    assert response["RateLimit-Policy"] == '"minute";q=5;w=60'
    assert response["RateLimit"].startswith('"minute";r=4;t=')
    assert int(response["X-RateLimit-Reset"]) > 1_700_000_000


def test_query_refuses_the_call_past_the_rate_limit(api: Client, word: str) -> None:
    limited = make_customer(credits=10, rpm=2)
    for _ in range(2):
        assert ask(api, {"filters": {"city": word}, "limit": 1}, limited.api_key).status_code == 200
    response = ask(api, {"filters": {"city": word}, "limit": 1}, limited.api_key)
    status, code, details = error(response)
    assert (status, code, details["limit"]) == (429, "RATE_LIMITED", 2)
    assert 1 <= int(response["Retry-After"]) <= 60
    assert spendable(limited.account) == 8


def test_query_refuses_what_the_balance_cannot_cover(api: Client) -> None:
    poor = make_customer(credits=5)
    response = ask(api, {"limit": 900}, poor.api_key)
    assert error(response) == (
        402,
        "INSUFFICIENT_CREDITS",
        {"required": 10, "available": 5, "limit_source": "account"},
    )
    assert response.json()["error"]["message"] == "Insufficient credits. Required: 10, Available: 5"
    assert (response["X-Credits-Used"], response["X-Credits-Remaining"]) == ("0", "5")
    assert spendable(poor.account) == 5


def test_query_echoes_a_sane_request_id(api: Client, alice: Customer) -> None:
    response = ask(api, {"limit": 1}, alice.api_key, **{"X-Request-ID": "order-17:a.b_c"})
    assert response["X-Request-ID"] == "order-17:a.b_c"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "é", "<script>"])
def test_query_makes_a_request_id_when_the_given_one_is_not_sane(api: Client, alice: Customer, given: str) -> None:
    response = ask(api, {"limit": 1}, alice.api_key, **{"X-Request-ID": given})
    assert str(uuid.UUID(response["X-Request-ID"])) == response["X-Request-ID"]


def test_query_without_a_key_says_so_before_it_reads_the_body(api: Client, stores: None) -> None:
    response = api.post(URL, "{", content_type="application/json")
    assert error(response) == (401, "MISSING_KEY", {})


@pytest.mark.parametrize("key", ["x", "mh_live_abc_def", "mh_live_" + "a" * 500, "\u00e9"])
def test_query_with_a_malformed_key_gives_no_hints(api: Client, stores: None, key: str) -> None:
    assert error(ask(api, {"filtres": 1}, key)) == (401, "INVALID_KEY", {})


def test_query_with_a_revoked_key_is_refused(api: Client, alice: Customer) -> None:
    from django.utils import timezone

    revoke_key(public_id=alice.key_id, now=timezone.now())
    assert error(ask(api, {}, alice.api_key))[:2] == (401, "KEY_REVOKED")


def test_query_refuses_an_invalid_body_at_no_charge(api: Client, alice: Customer) -> None:
    response = ask(api, {"limit": 0}, alice.api_key)
    assert error(response) == (400, "INVALID_REQUEST", {"limit": "must be from 1 to 10,000"})
    assert response["X-Credits-Used"] == "0"
    assert spendable(alice.account) == 1_000


def test_an_invalid_body_counts_in_the_rate_window(api: Client, stores: None) -> None:
    limited = make_customer(credits=10, rpm=5)
    assert ask(api, {"limit": 0}, limited.api_key)["X-RateLimit-Remaining"] == "4"


def test_query_refuses_malformed_json(api: Client, alice: Customer) -> None:
    response = api.post(URL, "{", content_type="application/json", headers={"x-api-key": alice.api_key})
    assert error(response) == (
        400,
        "INVALID_REQUEST",
        {"body": "Expecting property name enclosed in double quotes at line 1, column 2"},
    )


def test_query_refuses_another_content_type(api: Client, alice: Customer) -> None:
    response = api.post(
        URL, "a=1", content_type="application/x-www-form-urlencoded", headers={"x-api-key": alice.api_key}
    )
    assert error(response) == (415, "UNSUPPORTED_MEDIA_TYPE", {"content_type": "must be application/json"})


@pytest.mark.parametrize("size", [300_000, 2_000_000])
def test_query_refuses_a_body_that_is_too_large(api: Client, alice: Customer, size: int) -> None:
    response = api.post(URL, " " * size, content_type="application/json", headers={"x-api-key": alice.api_key})
    assert error(response) == (413, "PAYLOAD_TOO_LARGE", {"body": "at most 262144 bytes"})


@pytest.mark.parametrize("method", ["get", "put", "delete", "patch", "options", "head"])
def test_query_refuses_other_methods(api: Client, alice: Customer, method: str) -> None:
    response = getattr(api, method)(URL, headers={"x-api-key": alice.api_key})
    assert (response.status_code, response["Allow"]) == (405, "POST")


def test_query_with_a_very_long_list_is_answered(api: Client, alice: Customer, people: People, word: str) -> None:
    wanted = [f"{number}-{'é' * 100}" for number in range(998)] + [f"Ann-{word}"]
    assert names(ask(api, {"filters": {"user_id": wanted}}, alice.api_key)) == ["Ann"]


HOSTILE = ["' OR 1=1 --", "\\' OR 1=1", "{p0:String}", "a\tb\n\r\\N", "$$", "\u2028\u202e", "%s %(x)s", "\\0", "`"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_query_takes_hostile_text_for_what_it_is(api: Client, alice: Customer, word: str, hostile: str) -> None:
    insert_records([{"user_id": f"Eve-{word}", "city": word, "name": hostile}, {"user_id": f"x-{word}", "city": word}])
    for wanted in (hostile, [hostile, "other"]):
        response = ask(api, {"filters": {"city": word, "name": wanted}}, alice.api_key)
        assert [row["name"] for row in response.json()["data"]] == [hostile]


def test_a_search_that_takes_too_long_is_stopped_at_no_charge(
    api: Client, alice: Customer, people: People, word: str, settings: Any
) -> None:
    settings.QUERY_TIMEOUT_S = 0.001
    response = ask(api, {"filters": {"city": word}, "sort": {"field": "name"}}, alice.api_key)
    assert error(response) == (504, "QUERY_TIMEOUT", {"timeout_s": 0.001})
    assert (response["X-Credits-Used"], response["X-Credits-Remaining"]) == ("0", "1000")
    assert spendable(alice.account) == 1_000


def test_the_reader_cannot_write(stores: None) -> None:
    from clickhouse_connect.driver.exceptions import DatabaseError

    from config.clickhouse.client import reader

    with pytest.raises(DatabaseError):
        reader().command("TRUNCATE TABLE records")
    assert writer().query("EXISTS TABLE records").result_rows == [(1,)]
