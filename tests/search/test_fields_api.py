from django.test import Client

from credits.services import spendable
from search.query.fields import FIELDS
from tests.factories import Customer, make_customer


def test_fields_lists_every_field_and_metadata(api: Client, alice: Customer) -> None:
    response = api.get("/api/v1/fields", headers={"x-api-key": alice.api_key})
    assert response.status_code == 200
    assert [field["name"] for field in response.json()["data"]] == [*FIELDS, "metadata.<path>"]


def test_fields_tells_type_operators_and_what_is_fast(api: Client, alice: Customer) -> None:
    fields = {
        field["name"]: field for field in api.get("/api/v1/fields", headers={"x-api-key": alice.api_key}).json()["data"]
    }
    assert fields["created_date"] == {
        "name": "created_date",
        "type": "date",
        "operators": ["eq", "in", "gt", "gte", "lt", "lte"],
        "sortable": True,
        "fast": True,
        "description": "The day the source created the record.",
    }
    assert fields["metadata"]["operators"] == []


def test_fields_is_free(api: Client, alice: Customer) -> None:
    assert api.get("/api/v1/fields", headers={"x-api-key": alice.api_key})["X-Credits-Used"] == "0"
    assert spendable(alice.account) == 1_000


def test_fields_works_without_credits_and_counts_in_the_rate_window(api: Client, stores: None) -> None:
    poor = make_customer(credits=0, rpm=5)
    assert api.get("/api/v1/fields", headers={"x-api-key": poor.api_key})["X-RateLimit-Remaining"] == "4"


def test_fields_needs_a_key(api: Client) -> None:
    response = api.get("/api/v1/fields")
    assert (response.status_code, response.json()["error"]["code"]) == (401, "MISSING_KEY")
