"""What is refused, and the reason that the customer reads."""

from typing import Any

import pytest

from config.errors import InvalidRequest
from search.query.fields import DEFAULT_FIELDS, FIELDS, FILTERABLE, SORTABLE
from search.query.request import parse_person, parse_query, parse_search, words_of

KEYS = "filters, fields, limit, offset, sort, include_total, max_credits"
FILTER_NAMES = ", ".join((*FILTERABLE, "metadata.<path>"))


def reasons(document: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        parse_query(document)
    assert caught.value.code == "INVALID_REQUEST"
    return caught.value.details


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"filtres": {}}, {"filtres": f'unknown field "filtres"; did you mean "filters"? Allowed: {KEYS}'}),
        ({"zzz": {}}, {"zzz": f'unknown field "zzz"; allowed: {KEYS}'}),
        ({"cursor": "x"}, {"cursor": "is not available yet; page with offset and limit"}),
        ({"max_credits": 0}, {"max_credits": "must be from 1 to 1,000,000,000"}),
        ({"max_credits": -3}, {"max_credits": "must be from 1 to 1,000,000,000"}),
        ({"max_credits": "3"}, {"max_credits": "must be a whole number from 1 to 1,000,000,000"}),
        ({"max_credits": 1.5}, {"max_credits": "must be a whole number from 1 to 1,000,000,000"}),
        ({"max_credits": True}, {"max_credits": "must be a whole number from 1 to 1,000,000,000"}),
        ({"limit": 0}, {"limit": "must be from 1 to 10,000"}),
        ({"limit": 10_001}, {"limit": "must be from 1 to 10,000"}),
        ({"limit": True}, {"limit": "must be a whole number from 1 to 10,000"}),
        ({"limit": "5"}, {"limit": "must be a whole number from 1 to 10,000"}),
        ({"limit": 5.0}, {"limit": "must be a whole number from 1 to 10,000"}),
        ({"limit": None}, {"limit": "must be a whole number from 1 to 10,000"}),
        ({"offset": -1}, {"offset": "must be from 0 to 100,000"}),
        ({"offset": 100_001}, {"offset": "must be from 0 to 100,000"}),
        ({"include_total": 1}, {"include_total": "must be true or false"}),
        ({"fields": []}, {"fields": "must be a list of at least one field name"}),
        ({"fields": "email"}, {"fields": "must be a list of at least one field name"}),
        ({"fields": [1]}, {"fields[0]": "must be a field name, not a number"}),
        (
            {"fields": ["id", "emial"]},
            {"fields[1]": f'unknown field "emial"; did you mean "email"? Allowed: {", ".join(FIELDS)}'},
        ),
        ({"fields": ["id", "id"]}, {"fields[1]": 'names "id" a second time'}),
        ({"fields": ["id"] * 16}, {"fields": "must name at most 15 fields"}),
        ({"sort": "id"}, {"sort": 'must be {"field", "order"} or a list of 1 to 5 of them'}),
        ({"sort": []}, {"sort": 'must be {"field", "order"} or a list of 1 to 5 of them'}),
        (
            {"sort": ["id"]},
            {"sort[0]": 'must be an object such as {"field": "created_date", "order": "desc"}'},
        ),
        ({"sort": {"field": "id", "order": "up"}}, {"sort.order": 'must be "asc" or "desc"'}),
        ({"sort": {"field": "id", "order": []}}, {"sort.order": 'must be "asc" or "desc"'}),
        ({"sort": {}}, {"sort.field": f"must be a field name; allowed: {', '.join(SORTABLE)}"}),
        (
            {"sort": {"field": "metadata"}},
            {"sort.field": f'unknown sort field "metadata"; allowed: {", ".join(SORTABLE)}'},
        ),
        ({"sort": [{"field": "id"}, {"field": "id"}]}, {"sort[1].field": 'names "id" a second time'}),
        (
            {"sort": {"field": "id", "ordr": "asc"}},
            {"sort.ordr": 'unknown key "ordr"; did you mean "order"? Allowed: field, order'},
        ),
        ({"filters": []}, {"filters": "must be an object of field names and values, not a list"}),
        (
            {"filters": {"contry": "USA"}},
            {"filters.contry": f'unknown field "contry"; did you mean "country"? Allowed: {FILTER_NAMES}'},
        ),
        (
            {"filters": {"metadata": {}}},
            {"filters.metadata": 'filter one value of it: "metadata.<path>", e.g. "metadata.zip"'},
        ),
        ({"filters": {"city": 5}}, {"filters.city": "must be a string, not a number"}),
        ({"filters": {"city": None}}, {"filters.city": "must be a string, not null"}),
        ({"filters": {"city": True}}, {"filters.city": "must be a string, not a boolean"}),
        ({"filters": {"city": ""}}, {"filters.city": "must not be an empty string"}),
        ({"filters": {"city": []}}, {"filters.city": "must be a list of 1 to 1,000 values"}),
        ({"filters": {"city": ["x"] * 1_001}}, {"filters.city": "must be a list of 1 to 1,000 values"}),
        ({"filters": {"city": ["x", ["y"]]}}, {"filters.city[1]": "must be a string, not a list"}),
        ({"filters": {"city": "x" * 1_025}}, {"filters.city": "must have at most 1024 characters, it has 1025"}),
        ({"filters": {"city": "a\0b"}}, {"filters.city": "must not contain the NUL character"}),
        ({"filters": {"city": "\ud800"}}, {"filters.city": "must not contain a lone surrogate"}),
        ({"filters": {"city": {}}}, {"filters.city": "must name an operator; allowed: eq, in"}),
        (
            {"filters": {"city": {"gte": "a"}}},
            {"filters.city.gte": '"gte" does not work on a string; allowed: eq, in'},
        ),
        (
            {"filters": {"created_date": {"gth": "2024-01-01"}}},
            {
                "filters.created_date.gth": 'unknown operator "gth"; did you mean "gt"? Allowed: eq, in, gt, gte, lt, lte'
            },
        ),
        ({"filters": {"created_date": "2024-02-30"}}, {"filters.created_date": "must be a date such as 2024-12-31"}),
        ({"filters": {"created_date": "20240101"}}, {"filters.created_date": "must be a date such as 2024-12-31"}),
        (
            {"filters": {"created_date": {"gte": "1899-12-31"}}},
            {"filters.created_date.gte": "must lie between 1900-01-01 and 2299-12-31"},
        ),
        (
            {"filters": {"ingested_at": {"lt": "yesterday"}}},
            {"filters.ingested_at.lt": "must be a time such as 2024-12-31T23:59:59Z, or a date"},
        ),
        (
            {"filters": {"ingested_at": {"lt": "9999-12-31T23:59:59-23:59"}}},
            {"filters.ingested_at.lt": "must be a time such as 2024-12-31T23:59:59Z, or a date"},
        ),
        ({"filters": {"data_quality_score": "0.5"}}, {"filters.data_quality_score": "must be a number, not a string"}),
        ({"filters": {"data_quality_score": True}}, {"filters.data_quality_score": "must be a number, not a boolean"}),
        (
            {"filters": {"data_quality_score": 10**400}},
            {"filters.data_quality_score": "must be a number that fits into 64 bits"},
        ),
        (
            {"filters": {"data_quality_score": float("inf")}},
            {"filters.data_quality_score": "must be a number that fits into 64 bits"},
        ),
        (
            {"filters": {"id": "1"}},
            {"filters.id": "must be a UUID such as 0b7e9f0a-5c1d-4e2f-8a3b-9c4d5e6f7a8b"},
        ),
        (
            {"filters": {"metadata.zip": 2458}},
            {"filters.metadata.zip": 'must be a string: metadata keeps every value as it was written, e.g. "02458"'},
        ),
        ({"filters": {"metadata.zip": None}}, {"filters.metadata.zip": "must be a string, not null"}),
        (
            {"filters": {"metadata.zip": {"gte": "1"}}},
            {"filters.metadata.zip": "metadata has the operators eq and in, one at a time"},
        ),
        (
            {"filters": {"metadata.": "1"}},
            {"filters.metadata.": "must name a path of 1 to 8 parts, e.g. metadata.address.zip"},
        ),
        (
            {"filters": {"metadata.a.b.c.d.e.f.g.h.i": "1"}},
            {"filters.metadata.a.b.c.d.e.f.g.h.i": "must name a path of 1 to 8 parts, e.g. metadata.address.zip"},
        ),
        (
            {"filters": {f"metadata.k{number}": "1" for number in range(51)}},
            {"filters": "must have at most 50 conditions"},
        ),
    ],
)
def test_parse_query_refuses_with_this_reason(document: dict[str, Any], expected: dict[str, str]) -> None:
    assert reasons(document) == expected


def test_parse_query_names_every_mistake_and_counts_them_in_the_message() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_query({"limit": 0, "offset": -1, "include_total": "no"})
    assert list(caught.value.details) == ["limit", "offset", "include_total"]
    assert caught.value.message == "limit: must be from 1 to 10,000. (2 more in details.)"


def test_parse_query_reports_at_most_twenty_mistakes() -> None:
    assert len(reasons({f"key{number}": 1 for number in range(100)})) == 20


def test_parse_query_shows_a_hostile_name_in_a_form_that_can_be_sent() -> None:
    assert list(reasons({"a\ud800\x1b" + "x" * 200: 1})) == ["a??" + "x" * 117 + "…"]


def test_parse_query_has_the_documented_defaults() -> None:
    query = parse_query({})
    assert (query.limit, query.offset, query.include_total, query.sort, query.fields) == (
        100,
        0,
        True,
        (),
        DEFAULT_FIELDS,
    )


def test_parse_query_takes_null_for_filters_fields_and_sort_as_left_out() -> None:
    assert parse_query({"filters": None, "fields": None, "sort": None}) == parse_query({})


@pytest.mark.parametrize(("offset", "page"), [(0, 1), (99, 1), (100, 2), (250, 3)])
def test_page_counts_from_one(offset: int, page: int) -> None:
    assert parse_query({"offset": offset}).page == page


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, {"q": "is required: the words to look for, e.g. ?q=Acme"}),
        ({"q": [""]}, {"q": "must contain at least one letter or digit"}),
        ({"q": ["-- ,"]}, {"q": "must contain at least one letter or digit"}),
        ({"q": ["x" * 257]}, {"q": "must have at most 256 characters, it has 257"}),
        ({"q": ["a\0b"]}, {"q": "must not contain the NUL character"}),
        ({"q": [" ".join(f"w{n}" for n in range(17))]}, {"q": "must have at most 16 different words, it has 17"}),
        ({"q": ["a", "b"]}, {"q": "is given more than once"}),
        ({"q": ["a"], "limit": ["0"]}, {"limit": "must be from 1 to 10,000"}),
        ({"q": ["a"], "limit": ["5x"]}, {"limit": "must be a whole number from 1 to 10,000"}),
        ({"q": ["a"], "limit": ["٣"]}, {"limit": "must be a whole number from 1 to 10,000"}),
        ({"q": ["a"], "offset": ["-1"]}, {"offset": "must be from 0 to 100,000"}),
        ({"q": ["a"], "include_total": ["maybe"]}, {"include_total": "must be true or false"}),
        (
            {"q": ["a"], "limt": ["5"]},
            {
                "limt": 'unknown parameter "limt"; did you mean "limit"? Allowed: q, limit, offset, include_total, max_credits'
            },
        ),
    ],
)
def test_parse_search_refuses_with_this_reason(parameters: dict[str, list[str]], expected: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_search(parameters)
    assert caught.value.details == expected


def test_parse_search_has_a_default_limit_of_20() -> None:
    assert parse_search({"q": ["Acme"]}).limit == 20


def test_parse_search_of_a_download_has_a_default_limit_of_1000() -> None:
    assert parse_search({"q": ["Acme"]}, download=True).limit == 1_000


def test_parse_search_of_a_download_takes_up_to_a_million() -> None:
    assert parse_search({"q": ["Acme"], "limit": ["1000000"]}, download=True).limit == 1_000_000


def test_parse_search_of_a_download_refuses_more_than_a_million() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_search({"q": ["Acme"], "limit": ["1000001"]}, download=True)
    assert caught.value.details == {"limit": "must be from 1 to 1,000,000"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Acme", ("acme",)),
        ("ann@Acme.com", ("ann", "acme", "com")),
        ("+1 (212) 555", ("1", "212", "555")),
        ("ÄRGER\u00a0Müller", ("ärger", "müller")),
        ("e\u0301clair", ("éclair",)),
        ("a A a", ("a",)),
        ("1852–1911", ("1852–1911",)),
    ],
)
def test_words_of_cuts_as_the_text_index_does(text: str, words: tuple[str, ...]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("asked", "max_credits", "limit"),
    [(1_000, 5, 499), (499, 5, 499), (500, 5, 499), (100, 1, 99), (10, 1, 10), (10_000, 1_000_000_000, 10_000)],
)
def test_max_credits_lowers_the_limit_to_what_it_pays_for(asked: int, max_credits: int, limit: int) -> None:
    assert parse_query({"limit": asked, "max_credits": max_credits}).limit == limit
    search = parse_search({"q": ["Acme"], "limit": [str(asked)], "max_credits": [str(max_credits)]})
    assert search.limit == limit


def test_max_credits_lowers_the_limit_of_a_download() -> None:
    assert parse_search({"q": ["Acme"], "max_credits": ["3"]}, download=True).limit == 299


def test_parse_person_keeps_case() -> None:
    assert parse_person("AbC/d e", {}) == ("AbC/d e", None)


def test_parse_person_reads_max_credits() -> None:
    assert parse_person("a", {"max_credits": ["7"]}) == ("a", 7)


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "x", ""])
def test_parse_person_refuses_max_credits_below_one(given: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_person("a", {"max_credits": [given]})
    assert list(caught.value.details) == ["max_credits"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("x" * 257, "must have at most 256 characters, it has 257"),
        ("a\0", "must not contain the NUL character"),
    ],
)
def test_parse_person_refuses_with_this_reason(given: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_person(given, {})
    assert caught.value.details == {"id": reason}
