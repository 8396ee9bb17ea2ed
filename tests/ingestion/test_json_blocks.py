"""Plain JSON lines read many at once give what they give one by one, whatever is wrong with some of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingestion.formats import json_blocks
from ingestion.formats.json_blocks import PlainObjects
from ingestion.formats.json_rows import JsonLinesReader

_SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=6)
    | st.sampled_from(["2024-01-02 03:04:05", "2024-01-02", "-0", "é", '"', "\\"])
)
_OBJECT = st.dictionaries(
    st.sampled_from(["id", "name", "a.b", "a", "é", ""]),
    _SCALAR | st.dictionaries(st.sampled_from(["b", "c"]), _SCALAR, max_size=2),
    max_size=4,
)
_LINE = st.builds(lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only).encode(), _OBJECT, st.booleans())
_ODD_LINES = [
    b"", b"  ", b"\t{}", b"{}", b"5", b"[]", b"{", b"}", b'{"id":1,"id":2}', b'{"id":NaN}', b'{"id":-0}', b'{"id":1.10}',
    b'{"id":"\\ud800"}', b'{"id":"\\u0000"}', b'{"id":"\xff"}', b'{"id":1} {"id":2}', b'{"id":"x\ty"}', b'{"id":1}\r',
    b'{"id":["x"]}', b'{"id":1e5}', b"{'id':1}", b'{"id":"a"}x', b'\xef\xbb\xbf{"id":1}', b'{"id":"\x00"}',
]  # fmt: skip


def _outcome(path: Path) -> list[Any]:
    found: list[Any] = []
    for batch in JsonLinesReader(path, encoding="utf-8"):
        names = [field.name + ("[]" if field.metadata else "") for field in batch.rows.schema]
        columns = [column.to_pylist() for column in batch.rows.columns]
        for place, number in enumerate(batch.numbers.to_pylist()):
            kept = {name: column[place] for name, column in zip(names, columns, strict=True) if column[place]}
            found.append((number, kept, batch.raw(place)))
        found += [(reject.row, reject.reason, reject.message, reject.raw) for reject in batch.rejects]
    return sorted(found, key=lambda entry: entry[0])


@given(
    lines=st.lists(_LINE | st.sampled_from(_ODD_LINES), min_size=1, max_size=12), end=st.sampled_from([b"\n", b"\r\n"])
)
@example(lines=[b'{"id":1}', b'{"id":"\xff"}', b'{"id":2}', b'{"id":"\xfe"}'], end=b"\n")
@example(lines=[b'{"id":"2024-01-02 03:04:05"}', b'{"id":null}', b'{"name":"x"}'], end=b"\n")
def test_lines_give_the_same_together_and_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], end: bytes
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(end.join(lines))
    together = _outcome(path)
    before = json_blocks.FAILURES_MAX
    json_blocks.FAILURES_MAX = 0
    try:
        one_by_one = _outcome(path)
    finally:
        json_blocks.FAILURES_MAX = before
    assert together == one_by_one


def test_plain_lines_are_read_together_and_broken_ones_left_over() -> None:
    found = PlainObjects().read(b'{"id":1,"a":{"b":true}}\n{"id":2,}\n{"id":3,"t":"2024-01-02 03:04:05"}\n')
    assert found is not None
    assert found.rows.to_pylist() == [
        {"id": "1", "a.b": "true", "t": ""},
        {"id": "3", "a.b": "", "t": "2024-01-02 03:04:05"},
    ]
    assert found.odd == [1]


@pytest.mark.parametrize("value", ["1.10", '["x"]', "NaN"])
def test_what_is_not_plain_is_left_to_be_read_one_by_one(value: str) -> None:
    assert PlainObjects().read(f'{{"id":{value}}}\n'.encode()) is None


def test_a_file_that_is_not_plain_is_soon_no_longer_tried() -> None:
    objects = PlainObjects()
    for _ in range(json_blocks.FAILURES_MAX):
        assert objects.read(b'{"id":1.5}\n') is None
    assert objects.read(b'{"id":1}\n') is None
