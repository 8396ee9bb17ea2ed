"""Whatever is sent, the answer is one of the documented ones: never a 500, never a credit for a refusal."""

import ipaddress
import json
import os
import uuid
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credits.services import spendable
from search.query.fields import FIELDS, OPERATORS
from tests.factories import Customer, make_customer

# The long run sets its own number.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "50"))
fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

CREDITS = 10**9
REFUSALS = {400: "INVALID_REQUEST", 404: "NOT_FOUND", 413: "PAYLOAD_TOO_LARGE", 415: "UNSUPPORTED_MEDIA_TYPE"}

texts = st.text(max_size=20) | st.sampled_from(
    ["", "USA", "2024-01-01", "a\0b", "\ud800", "'", "\\", "{p0:String}", "x" * 1_025]
)
numbers = st.integers() | st.floats() | st.sampled_from([0, 1, -1, 10_000, 10_001, 10**30, 1e308, 5e-324, 2**63])
scalars = st.none() | st.booleans() | numbers | texts
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
field_names = st.sampled_from([*FIELDS, "metadata.zip", "metadata.a.b"]) | texts
operators = st.sampled_from(sorted({name for names in OPERATORS.values() for name in names})) | texts
conditions = (
    scalars | st.lists(scalars, max_size=4) | st.dictionaries(operators, scalars | st.lists(scalars), max_size=3)
)
sorts = st.fixed_dictionaries(
    {"field": field_names}, optional={"order": st.sampled_from(["asc", "desc"]) | scalars, "x": scalars}
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "filters": st.dictionaries(field_names, conditions, max_size=5) | anything,
        "fields": st.lists(field_names, max_size=6) | anything,
        "sort": sorts | st.lists(sorts, max_size=3) | anything,
        "limit": st.integers(-2, 12_000) | anything,
        "offset": st.integers(-2, 110_000) | anything,
        "include_total": st.booleans() | anything,
        "cursor": anything,
    },
)
valid_values = {
    "id": st.uuids().map(str),
    "created_date": st.dates().map(str),
    "ingested_at": st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    "data_quality_score": st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
}
nearly_valid = st.fixed_dictionaries(
    {
        "filters": st.fixed_dictionaries(
            {},
            optional={
                name: value | st.lists(value, min_size=1, max_size=3) | st.dictionaries(operators, value, min_size=1)
                for name, value in {
                    **{name: st.text(min_size=1, max_size=8) for name in FIELDS if name != "metadata"},
                    **valid_values,
                }.items()
            },
        )
    },
    optional={"limit": st.integers(1, 10_000), "offset": st.integers(0, 100_000), "sort": sorts},
)


@pytest.fixture(scope="module")
def rich(django_db_setup: None, django_db_blocker: Any, clickhouse_schema: None) -> Customer:
    with django_db_blocker.unblock():
        return make_customer(credits=CREDITS)


def check(response: Any, customer: Customer) -> None:
    """The answer is documented, and took the credits that it says."""
    left = spendable(customer.account)
    body = json.loads(response.content)
    if response.status_code == 200:
        assert body["status"] == "success"
        assert body["metadata"]["credits_remaining"] == left
        return
    assert body["error"]["code"] == REFUSALS[response.status_code]
    assert response["X-Credits-Used"] == "0"
    assert body["error"]["details"]


def post(customer: Customer, body: bytes) -> Any:
    client = Client(raise_request_exception=False)
    return client.post("/api/v1/query", body, content_type="application/json", headers={"x-api-key": customer.api_key})


@fuzzed
@given(document=anything | documents | nearly_valid)
def test_query_answers_any_json(committed_db: None, rich: Customer, document: Any) -> None:
    check(post(rich, json.dumps(document).encode()), rich)


@fuzzed
@given(body=st.binary(max_size=200) | st.text(alphabet='{}[]":,ae0.-\\ud ', max_size=60).map(str.encode))
def test_query_answers_any_bytes(committed_db: None, rich: Customer, body: bytes) -> None:
    check(post(rich, body), rich)


@fuzzed
@given(
    parameters=st.lists(
        st.tuples(st.sampled_from(["q", "limit", "offset", "include_total"]) | texts, texts | numbers.map(str)),
        max_size=4,
    ),
    address=st.sampled_from(["/search", "/api/v1/search"]),
)
def test_search_answers_any_parameters(
    committed_db: None, rich: Customer, parameters: list[tuple[str, str]], address: str
) -> None:
    query = "&".join(f"{quote(k, errors='replace')}={quote(v, errors='replace')}" for k, v in parameters)
    client = Client(raise_request_exception=False)
    check(client.get(f"{address}?{query}", headers={"x-api-key": rich.api_key}), rich)


@fuzzed
@given(person_id=st.text(min_size=1) | st.uuids().map(str) | st.binary(min_size=1).map(lambda raw: quote(raw)))
def test_person_answers_any_id(committed_db: None, rich: Customer, person_id: str) -> None:
    client = Client(raise_request_exception=False)
    address = "/api/v1/person/" + quote(person_id, safe="%", errors="replace")
    check(client.get(address, headers={"x-api-key": rich.api_key}), rich)


@fuzzed
@given(key=st.text(max_size=80) | st.text(alphabet="mh_livetsABC09", max_size=60).map("mh_live_".__add__))
def test_any_other_key_is_refused(committed_db: None, rich: Customer, key: str) -> None:
    client = Client(raise_request_exception=False)
    header = key.encode("utf-8", "replace").decode("latin-1")
    # An address of its own for each guess: guessing from one is limited.
    address = str(ipaddress.IPv6Address(uuid.uuid4().int))
    response = client.post(
        "/api/v1/query", b"{", content_type="application/json", headers={"x-api-key": header}, REMOTE_ADDR=address
    )
    assert response.status_code == 401
    assert json.loads(response.content)["error"]["code"] in ("MISSING_KEY", "INVALID_KEY")
