"""What the server must know of output formats: content types, which ones stream, and how their blocks join.

chDB formats every block of a streamed result by itself, with its own header (and end mark), so the pieces need joining.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

CONTENT_TYPES = {
    "csv": "text/csv; charset=UTF-8",
    "csvwithnames": "text/csv; charset=UTF-8; header=present",
    "json": "application/json; charset=UTF-8",
    "jsoncompact": "application/json; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "native": "application/octet-stream",
    "arrow": "application/octet-stream",
    "arrowstream": "application/octet-stream",
    "parquet": "application/octet-stream",
    "rowbinary": "application/octet-stream",
}
TEXT_TYPE = "text/plain; charset=UTF-8"
_FORMAT_CLAUSE = re.compile(r"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b[^']*)?;?\s*\Z", re.IGNORECASE)
_ARROW_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def format_clause(statement: str) -> str | None:
    """The format that the statement's own FORMAT clause names."""
    match = _FORMAT_CLAUSE.search(statement)
    return match.group(1) if match else None


def without_format(statement: str) -> str:
    """The statement without its FORMAT clause."""
    return _FORMAT_CLAUSE.sub("", statement).rstrip().rstrip(";")


def _plain(blocks: Iterable[memoryview]) -> Iterator[memoryview]:
    yield from blocks


def _skipping_header(lines: int) -> Callable[[Iterable[memoryview]], Iterator[memoryview]]:
    def join(blocks: Iterable[memoryview]) -> Iterator[memoryview]:
        header_bytes = 0
        for index, block in enumerate(blocks):
            if index == 0:
                for _ in range(lines):
                    header_bytes = bytes(block[: 1 << 20]).index(b"\n", header_bytes) + 1
                yield block
            else:
                yield block[header_bytes:]

    return join


def _arrow_stream(blocks: Iterable[memoryview]) -> Iterator[memoryview]:
    """Leave out every schema message but the first, and every end mark but the last."""
    for index, block in enumerate(blocks):
        schema_bytes = 8 + int.from_bytes(block[4:8], "little") if index else 0
        yield block[schema_bytes : len(block) - len(_ARROW_END)]
    yield memoryview(_ARROW_END)


_JOINS: dict[str, Callable[[Iterable[memoryview]], Iterator[memoryview]]] = {
    **dict.fromkeys(("native", "tabseparated", "tsv", "csv", "rowbinary", "jsoneachrow", "jsoncompacteachrow"), _plain),
    **dict.fromkeys(
        ("csvwithnames", "tabseparatedwithnames", "tsvwithnames", "jsoncompacteachrowwithnames"), _skipping_header(1)
    ),
    **dict.fromkeys(
        (
            "csvwithnamesandtypes",
            "tabseparatedwithnamesandtypes",
            "tsvwithnamesandtypes",
            "jsoncompacteachrowwithnamesandtypes",
        ),
        _skipping_header(2),
    ),
    "arrowstream": _arrow_stream,
}


def can_stream(output_format: str) -> bool:
    """Whether the format's blocks can be joined into one answer."""
    return output_format.lower() in _JOINS


def joined(output_format: str, blocks: Iterable[memoryview]) -> Iterator[memoryview]:
    """The blocks of a streamed result as one answer in the format."""
    return _JOINS[output_format.lower()](blocks)


def content_type(output_format: str) -> str:
    """The Content-Type of an answer in the format."""
    return CONTENT_TYPES.get(output_format.lower(), TEXT_TYPE)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def empty_native_block(columns: Iterable[tuple[str, str]]) -> bytes:
    """A Native block of these (name, type) columns without rows: how a server tells the columns of an empty result."""
    pairs = [(name.encode(), kind.encode()) for name, kind in columns]
    body = b"".join(_varint(len(name)) + name + _varint(len(kind)) + kind for name, kind in pairs)
    return _varint(len(pairs)) + _varint(0) + body
