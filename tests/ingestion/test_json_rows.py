"""JSON arrays and JSON Lines as they should be, and as they should not."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.formats import json_rows, limits
from ingestion.formats.batches import is_list_member
from ingestion.formats.json_flatten import UnusableRow, flatten, list_members
from ingestion.formats.json_rows import JsonLinesReader, JsonReader
from ingestion.formats.limits import DEPTH_MAX, ROW_BYTES_MAX
from tests.ingestion.files import batches, rejects, rows, written


def test_numbers_keep_the_text_they_were_written_with(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", '[{"id": 12345678901234567890, "price": 1.10, "tiny": 1e-7, "zip": "02458"}]')
    assert rows(path) == [{"id": "12345678901234567890", "price": "1.10", "tiny": "1e-7", "zip": "02458"}]


def test_nested_objects_become_paths_and_lists_stay_json(tmp_path: Path) -> None:
    path = written(
        tmp_path, "a.jsonl", '{"id": {"x": 1}, "tags": ["a", 2, {"b": null, "c": true}], "no": null, "e": ""}\n'
    )
    batch = batches(path)[0]
    assert batch.rows.to_pylist() == [{"id.x": "1", "tags": '["a","2",{"c":"true"}]'}]
    assert batch.rows.schema.field("tags").metadata == {b"json": b"array"}


def test_a_path_that_is_a_list_in_some_rows_gives_two_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", '{"id": 1, "t": "x"}\n{"id": 2, "t": [["y"]]}\n')
    batch = batches(path)[0]
    assert batch.rows.schema.names == ["id", "t", "t"]
    assert batch.rows.column(1).to_pylist() == ["x", ""]
    assert batch.rows.column(2).to_pylist() == ["", '[["y"]]']


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": NaN}', "INVALID_JSON"),
        ('{"id": Infinity}', "INVALID_JSON"),
        ('{"id": 1', "INVALID_JSON"),
        ("not json", "INVALID_JSON"),
        ('{"id": 1} trailing', "INVALID_JSON"),
        ('{"id": 1, "id": 2}', "DUPLICATE_KEY"),
        ("[1, 2]", "NOT_AN_OBJECT"),
        ('"text"', "NOT_AN_OBJECT"),
        ('{"id": "\\ud800"}', "INVALID_TEXT"),
        ('{"id": 2, "tags": ["\\uDC00"]}', "INVALID_TEXT"),
        ('{"id": 2, "\\uD83D": 1}', "INVALID_TEXT"),
        ('{"id": ' + '{"a":' * 40 + "1" + "}" * 41, "TOO_DEEP"),
        ("[" * 100_000, "TOO_DEEP"),
        ('{"a":' * 100_000, "TOO_DEEP"),
        ('{"id": "' + "x" * 300_000 + '"}', "FIELD_TOO_LONG"),
        ("{" + ",".join(f'"k{number}": 1' for number in range(1100)) + "}", "TOO_MANY_FIELDS"),
    ],
    ids=lambda value: value[:24],
)
def test_a_bad_line_costs_itself_alone(tmp_path: Path, line: str, reason: str) -> None:
    path = written(tmp_path, "a.jsonl", '{"id": 1}\n' + line + '\n\n{"id": 3}\n')
    assert [reject[:2] for reject in rejects(path, wanted="jsonl")] == [(2, reason)]
    assert rows(path, wanted="jsonl") == [{"id": "1"}, {"id": "3"}]


def test_half_a_last_line_is_rejected_with_its_text(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", '{"id": 1}\n{"id": 2, "na')
    assert rejects(path) == [(2, "INVALID_JSON", '{"id": 2, "na')]


def test_a_line_without_end_is_rejected_and_skipped(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", '{"id": 1}\n{"id": "' + "x" * (20 * ROW_BYTES_MAX) + '"}\n{"id": 3}\n')
    found = rejects(path)
    assert [reject[:2] for reject in found] == [(2, "ROW_TOO_LONG")]
    assert rows(path) == [{"id": "1"}, {"id": "3"}]


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        ('{"id": NaN, "list": [{"id": "inner"}, {"id": "inner"}]}', "INVALID_JSON"),
        ('{"id": 2, "id": 3}', "DUPLICATE_KEY"),
        ('{"id": 2,, "list": [{"id": "inner"}]}', "INVALID_JSON"),
        ("17", "NOT_AN_OBJECT"),
        ("[" * 5000 + "]" * 5000, "TOO_DEEP"),
    ],
)
def test_a_bad_element_of_an_array_costs_itself_alone(tmp_path: Path, element: str, reason: str) -> None:
    path = written(tmp_path, "a.json", '[{"id": 1},\n' + element + ',\n {"id": 3}]')
    assert [reject[:2] for reject in rejects(path)] == [(2, reason)]
    assert rows(path) == [{"id": "1"}, {"id": "3"}]


def test_an_array_that_ends_early_keeps_what_came_before(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", '[{"id": 1}, {"id": 2}, {"id": 3, "name": "An')
    assert rejects(path) == [(3, "INVALID_JSON", '{"id": 3, "name": "An')]
    assert rows(path) == [{"id": "1"}, {"id": "2"}]


def test_objects_one_after_another_are_read(tmp_path: Path) -> None:
    assert rows(written(tmp_path, "a.json", '{\n"id": 1\n}\n{\n"id": 2\n}')) == [{"id": "1"}, {"id": "2"}]


def test_an_array_of_nothing_has_no_rows(tmp_path: Path) -> None:
    assert batches(written(tmp_path, "a.json", "[]")) == []


def test_flatten_keeps_two_values_of_one_path() -> None:
    assert flatten({"a.b": "1", "a": {"b": "2"}}) == ({"a.b": "1", "a.b_2": "2"}, {})


def test_a_list_of_objects_offers_its_last_one_and_stays_whole(tmp_path: Path) -> None:
    path = written(
        tmp_path, "a.jsonl", '{"terms": [{"tel": "1", "old": "x"}, {"tel": "2", "at": {"city": "Rome"}, "no": []}]}\n'
    )
    batch = batches(path, wanted="jsonl")[0]
    assert batch.rows.to_pylist() == [
        {
            "terms": '[{"old":"x","tel":"1"},{"at":{"city":"Rome"},"no":[],"tel":"2"}]',
            "terms[-1].tel": "2",
            "terms[-1].at.city": "Rome",
        }
    ]
    assert [is_list_member(column) for column in batch.rows.schema] == [False, True, True]


@pytest.mark.parametrize(
    ("value", "members"),
    [
        ({"emails": ["a", "b"]}, {"emails[0]": "a"}),
        ({"x": {"emails": ["a"]}}, {"x.emails[0]": "a"}),
        ({"mixed": ["a", {"b": "c"}], "lists": [["a"]], "none": [], "empty": [{}]}, {}),
        ({"outer": [{"inner": [{"tel": "1"}]}]}, {}),
    ],
)
def test_what_a_list_offers(value: dict[str, Any], members: dict[str, str]) -> None:
    assert list_members(value) == members


def test_a_list_offers_a_bounded_number_of_members() -> None:
    members = list_members({"wide": [{f"k{number}": "v" for number in range(2000)}]})
    assert len(members) == limits.LIST_MEMBERS_MAX


def test_flatten_limits_the_depth() -> None:
    deep: dict[str, Any] = {"x": "y"}
    for _ in range(DEPTH_MAX):
        deep = {"a": deep}
    with pytest.raises(UnusableRow, match="32 levels"):
        flatten(deep)


_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_OBJECT = st.dictionaries(st.text(max_size=4), _VALUE, max_size=4)


@given(objects=st.lists(_OBJECT, min_size=1, max_size=12), block=st.integers(5, 200))
def test_array_and_lines_give_the_same_rows_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, objects: list[dict[str, Any]], block: int
) -> None:
    folder = tmp_path_factory.mktemp("json")
    array = written(folder, "a.json", json.dumps(objects, indent=1))
    lines = written(folder, "a.jsonl", "\n".join(json.dumps(item) for item in objects))
    before = limits.BLOCK_BYTES
    limits.BLOCK_BYTES = block
    try:
        outcomes = []
        for reader in (JsonReader(array, encoding="utf-8"), JsonLinesReader(lines, encoding="utf-8")):
            found: list[Any] = []
            for batch in reader:
                kept = [{k: v for k, v in row.items() if v} for row in _rows_of(batch)]
                found += [*zip(batch.numbers.to_pylist(), kept, strict=True)]
                found += [(reject.row, reject.reason) for reject in batch.rejects]
            outcomes.append(sorted(found, key=lambda pair: pair[0]))
    finally:
        limits.BLOCK_BYTES = before
    assert outcomes[0] == outcomes[1]
    assert [pair[0] for pair in outcomes[0]] == list(range(1, len(objects) + 1))


def _rows_of(batch: Any) -> list[dict[str, str]]:
    names = [field.name + ("[]" if field.metadata else "") for field in batch.rows.schema]
    columns = [column.to_pylist() for column in batch.rows.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def test_batches_of_an_array_end_by_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(json_rows, "BATCH_BYTES", 1000)
    path = written(tmp_path, "a.json", json.dumps([{"id": str(n), "name": "x" * 300} for n in range(20)]))
    found = batches(path)
    assert [row["id"] for batch in found for row in batch.rows.to_pylist()] == [str(n) for n in range(20)]
    assert len(found) > 2
    assert max(batch.rows.num_rows for batch in found) <= 7
