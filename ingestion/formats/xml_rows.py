"""XML: each element of one path is a row; what it holds is flattened by path, as nested JSON is.

Attributes and elements are fields alike. An element's own text beside attributes or elements keeps the element's path. What
stands outside the records is not read. After a record that is broken, reading goes on at the next start of one.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from ingestion.formats import limits
from ingestion.formats.batches import Batch, clip_bytes
from ingestion.formats.encoding import Utf8Source
from ingestion.formats.json_flatten import UnusableRow
from ingestion.formats.json_rows import Rows
from ingestion.formats.xml_guard import guarded_parser, local_name, stuck

PIECE_BYTES = 64 * 1024
# Until the first record is seen: a document that expands entities would be caught before there is anything to expand.
FIRST_PIECE_BYTES = 4096
NESTING_MAX = 256
# How often reading may go back to just behind the start of a broken record: each time costs as much as a row may be long.
RETURNS_MAX = 10_000
_TEXT = "#text"
_NO_DATA = ("xmlns", "xsi:")

_Read = Callable[[], Any]
_Raw = Callable[[], str]


class XmlReader:
    """Batches of the elements at `record`, a path as `root/people/person`."""

    def __init__(self, path: Path, *, encoding: str, record: str) -> None:
        self._path, self._encoding, self._record = path, encoding, record

    def __iter__(self) -> Iterator[Batch]:
        seen = 0
        rows = Rows(0)
        with Utf8Source(self._path, self._encoding) as source:
            for read, raw in _Records(source, self._record):
                rows.add(read, raw, escapes=False)
                if rows.full or source.bytes_read - seen >= limits.BLOCK_BYTES:
                    batch, rows = rows.batch(), Rows(rows.number)
                    batch.bytes_read, seen = source.bytes_read - seen, source.bytes_read
                    yield batch
            if len(rows):
                batch = rows.batch()
                batch.bytes_read = source.bytes_read - seen
                yield batch


class _Records:
    """The records of a source, one after another: what reads each (or raises why it cannot be read), and its raw text.

    `_buffer` holds the source's bytes from offset `_buffer_at` on: those that may still be wanted as a record's raw text or as
    the place to go on from.
    """

    def __init__(self, source: Utf8Source, record: str) -> None:
        self._source = source
        self._record = record.split("/")
        tag = re.escape(self._record[-1].encode())
        self._next_record = re.compile(rb"<(?:[^\s<>/:=\"'&;]{1,200}:)?" + tag + rb"(?=[\s/>])")
        self._ancestors = self._record[:-1]
        self._buffer, self._buffer_at = b"", 0
        self._returns = 0
        self._begin(at=0, inside=[])

    def _begin(self, *, at: int, inside: list[str]) -> None:
        """A new parser for the bytes from offset `at` on, which stand inside the elements that are named."""
        self._open: list[str] = []  # the tags that are open outside a record, as written
        self._nodes: list[tuple[str, dict[str, Any], list[str]]] = []  # those that are open inside one
        self._done: list[tuple[_Read, int, int]] = []
        self._start = self._fed = self._begun = at
        self._mixed = False
        self._problem: UnusableRow | None = None
        self._fault: int | None = None
        self._parser = guarded_parser()
        self._parser.StartElementHandler = self._on_start
        self._parser.EndElementHandler = self._on_end
        self._parser.SkippedEntityHandler = self._on_unknown_entity
        primer = "".join(f"<{name}>" for name in inside).encode()
        self._base = at - len(primer)
        if primer:
            self._parser.Parse(primer, False)

    def __iter__(self) -> Iterator[tuple[_Read, _Raw]]:
        final = False
        while not final:
            data = self._source.read(PIECE_BYTES if self._fed > FIRST_PIECE_BYTES else FIRST_PIECE_BYTES)
            final = not data
            self._buffer += data
            again = True
            while again:
                try:
                    self._feed(final=final)
                    again = False
                    error = None
                except expat.ExpatError as exc:
                    error = UnusableRow("INVALID_XML", f"line {exc.lineno}: {expat.ErrorString(exc.code)}")
                except UnusableRow as exc:
                    error = exc
                for read, start, end in self._done:
                    yield read, self._raw(start, end)
                self._done = []
                if error is not None:
                    start, at = self._where()
                    kept, kept_at = self._buffer[max(0, start - self._buffer_at) :][: 4 * limits.RAW_TEXT_MAX], start
                    again = self._go_on(at)
                    if again and self._begun > kept_at:
                        kept = kept[: self._begun - kept_at]
                    yield _raiser(error), _raw(kept)
                    final = not again
            self._drop_read()

    def _feed(self, *, final: bool) -> None:
        while self._fed < self._buffer_at + len(self._buffer):
            at = self._fed - self._buffer_at
            piece = self._buffer[at : at + PIECE_BYTES]
            self._fed += len(piece)
            self._parser.Parse(piece, False)
            if self._nodes and self._fed - self._start > limits.ROW_BYTES_MAX + PIECE_BYTES:
                raise UnusableRow("ROW_TOO_LONG", f"the record is longer than {limits.ROW_BYTES_MAX} bytes")
            if stuck(self._parser, self._fed - self._base):
                self._fault = self._begun = self._base + max(0, self._parser.CurrentByteIndex)
                raise UnusableRow("ROW_TOO_LONG", f"a tag or comment is longer than {limits.ROW_BYTES_MAX} bytes")
        if final:
            self._parser.Parse(b"", True)

    def _where(self) -> tuple[int, int]:
        """Where the broken record begins, and where its fault was seen."""
        at = self._fault
        if at is None:
            index = self._parser.ErrorByteIndex if self._parser.ErrorCode else self._parser.CurrentByteIndex
            at = max(self._buffer_at, self._base + max(0, index))
        if not self._nodes:
            return at, max(at, self._begun + 1)
        # The record may have lost its end and have swallowed others: they come back, unless that has happened too often.
        self._returns += 1
        return self._start, self._start + 1 if self._returns <= RETURNS_MAX else max(at, self._start + 1)

    def _go_on(self, at: int) -> bool:
        """Begins anew at the next record's start from `at` on; False when there is none in the rest of the source."""
        inside = self._ancestors
        while True:
            found = self._next_record.search(self._buffer, max(0, at - self._buffer_at))
            if found is not None:
                self._begin(at=self._buffer_at + found.start(), inside=inside)
                return True
            keep = min(len(self._buffer), 512)
            at = max(at, self._buffer_at + len(self._buffer) - keep)
            data = self._source.read(PIECE_BYTES)
            if not data:
                return False
            self._buffer_at += len(self._buffer) - keep
            self._buffer = self._buffer[len(self._buffer) - keep :] + data

    def _drop_read(self) -> None:
        """Forgets the bytes that no record under way needs."""
        index = self._base + max(0, self._parser.CurrentByteIndex)
        wanted = self._start if self._nodes else max(self._buffer_at, min(index, self._fed))
        self._buffer = self._buffer[wanted - self._buffer_at :]
        self._buffer_at = wanted

    def _raw(self, start: int, end: int) -> _Raw:
        return _raw(self._buffer[max(0, start - self._buffer_at) : end - self._buffer_at][: 4 * limits.RAW_TEXT_MAX])

    def _on_start(self, name: str, attributes: dict[str, str]) -> None:
        nodes = self._nodes
        if len(nodes) + len(self._open) >= NESTING_MAX:
            self._fault = self._base + self._parser.CurrentByteIndex
            raise UnusableRow("TOO_DEEP", f"nested deeper than {NESTING_MAX} levels")
        if not nodes:
            self._open.append(name)
            if len(self._open) != len(self._record) or [local_name(tag) for tag in self._open] != self._record:
                return
            self._ancestors = self._open[:-1]
            self._start = self._base + self._parser.CurrentByteIndex
            self._mixed = False
        elif nodes[-1][2]:
            nodes[-1][2].append(" ")
        fields: dict[str, Any] = {}
        for key, value in attributes.items():
            if not key.startswith(_NO_DATA):
                _put(fields, local_name(key), value)
        texts: list[str] = []
        nodes.append((local_name(name), fields, texts))
        self._parser.CharacterDataHandler = texts.append

    def _on_end(self, name: str) -> None:
        nodes = self._nodes
        if not nodes:
            self._open.pop()
            return
        name, fields, texts = nodes.pop()
        text = "".join(texts).strip() if texts else ""
        if nodes:
            value: Any = fields or text
            if fields and text:
                fields[_TEXT] = text
                self._mixed = True
            _put(nodes[-1][1], name, value)
            self._parser.CharacterDataHandler = nodes[-1][2].append
            return
        if text:
            _put(fields, name, text)
        self._parser.CharacterDataHandler = None
        self._open.pop()
        end = self._base + self._parser.CurrentByteIndex
        close = self._buffer.find(b">", end - self._buffer_at) + 1
        end = self._buffer_at + close if close else end
        read: _Read
        if self._problem is not None:
            read, self._problem = _raiser(self._problem), None
        elif end - self._start > limits.ROW_BYTES_MAX:
            read = _raiser(UnusableRow("ROW_TOO_LONG", f"the record is longer than {limits.ROW_BYTES_MAX} bytes"))
        else:
            read = _giver(_settled(fields) if self._mixed else fields)
        self._done.append((read, self._start, end))

    def _on_unknown_entity(self, name: str, is_parameter: bool) -> None:
        self._problem = UnusableRow("UNKNOWN_ENTITY", f"&{name[:100]}; is not declared, and entities are not expanded")


def _put(fields: dict[str, Any], name: str, value: Any) -> None:
    """Adds a field; several of one name become a list."""
    if name not in fields:
        fields[name] = value
    elif isinstance(fields[name], list):
        fields[name].append(value)
    else:
        fields[name] = [fields[name], value]


def _settled(fields: dict[str, Any]) -> dict[str, Any]:
    """Elements with text beside other things as `name` and `name.thing`; members of lists stay as they are."""
    result: dict[str, Any] = {}
    for name, value in fields.items():
        if not isinstance(value, dict):
            result[name] = value
            continue
        inner = _settled(value)
        if _TEXT not in inner:
            result[name] = inner
            continue
        result[name] = inner.pop(_TEXT)
        for key, item in inner.items():
            result[f"{name}.{key}"] = item
    return result


def _raw(kept: bytes) -> _Raw:
    return lambda: clip_bytes(kept.rstrip())


def _raiser(error: UnusableRow) -> _Read:
    def read() -> Any:
        raise error

    return read


def _giver(value: Any) -> _Read:
    return lambda: value
