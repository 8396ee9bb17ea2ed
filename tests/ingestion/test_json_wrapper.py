"""Documents that wrap their records: which list is taken, when none is, and that reading it is as reading the list alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.formats import limits
from ingestion.formats.json_wrapper import find_records
from tests.ingestion.files import batches, detected, rejects, rows, written

PEOPLE = [{"id": "1", "name": "Ann"}, {"id": "2", "name": "Bo"}]


def path_of(folder: Path, value: Any, **options: Any) -> str | None:
    found = find_records(written(folder, "a.json", json.dumps(value, **options)), "utf-8")
    return found.path if found is not None else None


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"data": PEOPLE}, "data"),
        ({"status": "ok", "id": "r1", "results": PEOPLE, "links": {"next": None}}, "results"),
        ({"response": {"page": 1, "items": PEOPLE}}, "response.items"),
        ({"a": {"b": {"c": {"d": PEOPLE}}}}, "a.b.c.d"),
        ({"a": {"b": {"c": {"d": {"e": PEOPLE}}}}}, None),
        ({"small": PEOPLE[:1], "large": PEOPLE, "numbers": [1, 2, 3]}, "large"),
        ({"data": PEOPLE, "included": PEOPLE}, "data"),
        ({"data": [{"id": "1", "orders": PEOPLE * 5}]}, "data"),
        ({"name": "export", "data": PEOPLE}, "data"),
        ({"name": "Ann", "terms": PEOPLE}, None),
        ({"name": {"first": "Ann"}, "data": PEOPLE}, None),
        ({"email": "a@b.de", "items": PEOPLE}, None),
        ({"data": []}, None),
        ({"data": [1, 2]}, None),
        ({"data": "[{}]"}, None),
        (PEOPLE, None),
    ],
)
def test_the_largest_list_of_objects_is_taken(tmp_path: Path, document: Any, path: str | None) -> None:
    assert path_of(tmp_path, document) == path
    assert path_of(tmp_path, document, indent=1) == path


@pytest.mark.parametrize(
    "text",
    [
        '{"data": [{"id": 1}]}\n{"data": [{"id": 2}]}',
        '{"data" [{"id": 1}]}',
        '{"data": [{"id": 1}}]',
        '{"a": ' * 2000,
        "[" * 100_000,
        '{"data": "' + "x" * 12_000_000,
        "",
    ],
    ids=["two documents", "no colon", "wrong bracket", "deep objects", "deep lists", "endless string", "nothing"],
)
def test_what_is_no_single_object_has_no_wrapper(tmp_path: Path, text: str) -> None:
    assert find_records(written(tmp_path, "a.json", text), "utf-8") is None


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_records_of_a_wrapper_are_read(tmp_path: Path, indent: int | None, encoding: str) -> None:
    document = {"meta": {"title": "Zoë [{"}, "data": PEOPLE, "more": {"x": [1]}, "end": "}]"}
    path = written(tmp_path, "a.json", json.dumps(document, indent=indent, ensure_ascii=False).encode(encoding))
    found = detected(path)
    assert (found.format, found.records.path if found.records else None) == ("json", "data")
    assert type(found).from_json(json.loads(json.dumps(found.as_json()))) == found
    assert rows(path) == PEOPLE
    assert sum(batch.bytes_read for batch in batches(path)) == path.stat().st_size


def test_a_wrapper_that_ends_early_keeps_what_came_before(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", '{"page": 1,\n "data": [\n{"id": 1},\n{"id": 2, "na')
    assert rows(path) == [{"id": "1"}]
    assert rejects(path) == [(2, "INVALID_JSON", '{"id": 2, "na')]


def test_a_bad_record_of_a_wrapper_costs_itself_alone(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", '{"data": [{"id": 1}, {"id": NaN}, {"id": 3}], "end": 1}')
    assert rows(path) == [{"id": "1"}, {"id": "3"}]
    assert [reject[:2] for reject in rejects(path)] == [(2, "INVALID_JSON")]


def test_one_line_that_is_a_record_stays_one(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", json.dumps({"id": {"a": 1}, "name": {"first": "Ann"}, "terms": PEOPLE}))
    assert detected(path).format == "jsonl"
    assert rows(path)[0]["name.first"] == "Ann"


_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(records=st.lists(st.fixed_dictionaries({"id": st.integers(0, 9), "x": _JSON}), min_size=9, max_size=15),
       before=_JSON, after=_JSON, block=st.integers(1, 90), indent=st.sampled_from([None, 1]))  # fmt: skip
def test_wrapped_or_not_the_records_are_the_same_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[Any],
    before: Any,
    after: Any,
    block: int,
    indent: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("wrapped")
    document = {"before": before, "data": records, "after": after}
    wrapped = written(folder, "a.json", json.dumps(document, indent=indent, ensure_ascii=False))
    plain = written(folder, "b.json", json.dumps(records, ensure_ascii=False))
    size = limits.BLOCK_BYTES
    limits.BLOCK_BYTES = block
    try:
        found = find_records(wrapped, "utf-8")
        assert found is not None
        assert found.path == "data"
        assert wrapped.read_bytes()[found.at :].startswith(b"[")
        assert rows(wrapped) == rows(plain)
    finally:
        limits.BLOCK_BYTES = size
