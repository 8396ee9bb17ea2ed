"""JSON arrays, JSON Lines and objects one after another: each object is a row, nested ones flattened by path.

Numbers keep the text they were written with, so that 1.10 stays 1.10 and an id of twenty digits stays what it is.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from ingestion.formats import limits
from ingestion.formats.batches import JSON_COLUMN, LIST_MEMBER, Batch, Reject, clip, clip_bytes
from ingestion.formats.delimited_blocks import last_line_end
from ingestion.formats.encoding import Utf8Source
from ingestion.formats.json_blocks import PlainObjects, PlainRows
from ingestion.formats.json_flatten import UnusableRow, flatten, list_members

BATCH_ROWS = 50_000
BATCH_BYTES = limits.BLOCK_BYTES
_SPACE = re.compile(r"[\s,]*")
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*("|\\?\Z)|[\[\]{}]', re.DOTALL)
_NEXT_OBJECT = re.compile(r"\}\s*,?\s*(?=\{)")


def _no_constant(name: str) -> NoReturn:
    raise UnusableRow("INVALID_JSON", f"{name} is not JSON")


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UnusableRow("DUPLICATE_KEY", f"the key {twice[:100]!r} appears twice in one object")
    return found


_DECODER = json.JSONDecoder(
    parse_float=str, parse_int=str, parse_constant=_no_constant, object_pairs_hook=_unique_pairs, strict=False
)


class Rows:
    """Collects flattened rows and rejects, and makes them a `Batch`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.texts: list[dict[str, str]] = []
        self.lists: list[dict[str, str]] = []
        self.members: list[dict[str, str]] = []
        self.numbers: list[int] = []
        self.raws: list[Callable[[], str]] = []
        self.rejects: list[Reject] = []
        self.columns: dict[str, None] = {}
        self.list_columns: dict[str, None] = {}
        self.member_columns: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self.texts) + len(self.rejects)

    @property
    def full(self) -> bool:
        rows, columns = len(self), len(self.columns) + len(self.list_columns) + len(self.member_columns)
        return rows >= BATCH_ROWS or columns >= limits.COLUMNS_MAX or rows * columns >= limits.BATCH_CELLS_MAX

    def add(self, read: Callable[[], Any], raw: Callable[[], str], *, escapes: bool) -> None:
        """Adds the row that `read` gives, or a reject that says why it cannot. `escapes`: its text holds \\u escapes."""
        self.number += 1
        try:
            value = read()
            texts, lists = flatten(value)
            if escapes:
                # A lone surrogate is no text: it cannot be stored nor shown.
                "".join([*texts, *texts.values(), *lists, *lists.values()]).encode()
        except UnusableRow as exc:
            self.reject(exc.reason, str(exc), raw())
        except RecursionError:
            self.reject("TOO_DEEP", f"nested deeper than {limits.DEPTH_MAX} levels", raw())
        except UnicodeEncodeError:
            self.reject("INVALID_TEXT", "the row holds half of a surrogate pair", raw())
        except ValueError as exc:
            self.reject("INVALID_JSON", str(exc)[:200], raw())
        else:
            self.texts.append(texts)
            self.lists.append(lists)
            self.numbers.append(self.number)
            self.raws.append(raw)
            if not texts.keys() <= self.columns.keys():
                self.columns.update(dict.fromkeys(texts))
            members = list_members(value) if lists else {}
            self.members.append(members)
            if lists:
                self.list_columns.update(dict.fromkeys(lists))
                self.member_columns.update(dict.fromkeys(members))

    def reject(self, reason: str, message: str, raw: str) -> None:
        self.rejects.append(Reject(self.number, "", reason, message, raw))

    def batch(self) -> Batch:
        arrays, fields = [], []
        for names, cells, mark in (
            (self.columns, self.texts, None),
            (self.list_columns, self.lists, JSON_COLUMN),
            (self.member_columns, self.members, LIST_MEMBER),
        ):
            for name in names:
                arrays.append(pa.array([row.get(name, "") for row in cells], pa.string()))
                fields.append(pa.field(name, pa.string(), metadata=mark))
        if not arrays:
            arrays, fields = [pa.array([""] * len(self.texts), pa.string())], [pa.field("column_1", pa.string())]
        rows = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
        raws = self.raws
        return Batch(rows, pa.array(self.numbers, pa.int64()), lambda position: raws[position](), self.rejects)


class JsonLinesReader:
    """One JSON object a line. A line that is not one costs itself alone."""

    def __init__(self, path: Path, *, encoding: str) -> None:
        self._path, self._encoding = path, encoding

    def __iter__(self) -> Iterator[Batch]:
        buffer, number, seen, final = b"", 0, 0, False
        skipping = False  # inside a line that is too long and already told
        plain = PlainObjects()
        with Utf8Source(self._path, self._encoding) as source:
            while not final:
                data = source.read(limits.BLOCK_BYTES)
                final = not data
                buffer += data
                end = len(buffer) if final else last_line_end(buffer)
                block, buffer = buffer[:end], buffer[end:]
                found = plain.read(block) if block and not skipping else None
                for batch in _plain_batches(block, found, number) if found else ():
                    batch.bytes_read, seen = source.bytes_read - seen, source.bytes_read
                    number += batch.rows_read
                    block = b""
                    yield batch
                lines = block.splitlines()
                if skipping and end:
                    lines, skipping = lines[1:], False
                if len(buffer) > limits.ROW_BYTES_MAX and not final:
                    # No line end in sight: the whole line is rejected now, and its rest skipped.
                    if not skipping:
                        lines.append(buffer)
                    buffer, skipping = b"", True
                rows = Rows(number)
                for line in lines:
                    if line.strip():
                        rows.add(line_reader(line), line_raw(line), escapes=b"\\u" in line)
                    if rows.full:
                        batch, number = self._done(rows, source, seen)
                        seen, rows = source.bytes_read, Rows(number)
                        yield batch
                if len(rows):
                    batch, number = self._done(rows, source, seen)
                    seen = source.bytes_read
                    yield batch

    @staticmethod
    def _done(rows: Rows, source: Utf8Source, seen: int) -> tuple[Batch, int]:
        batch = rows.batch()
        batch.bytes_read = source.bytes_read - seen
        return batch, rows.number


def _plain_batches(block: bytes, found: PlainRows, number: int) -> list[Batch]:
    """The rows of a block of lines, then those of its odd lines that are rows after all. `number` rows came before.

    None at all when an odd line holds lists: what lists offer is decided with the rows around them.
    """
    odd = Rows(number)
    for place, (start, end) in zip(found.odd, found.spans[found.odd].tolist(), strict=True):
        odd.number = number + place
        odd.add(line_reader(block[start:end]), line_raw(block[start:end]), escapes=True)
    if odd.list_columns:
        return []
    numbers = np.delete(np.arange(number + 1, number + 1 + len(found.spans), dtype=np.int64), found.odd)

    def raw(position: int) -> str:
        start, end = found.spans[int(numbers[position]) - number - 1]
        return clip_bytes(block[start:end])

    rejects, odd.rejects = odd.rejects, []
    batches = [Batch(found.rows, pa.array(numbers, pa.int64()), raw, rejects)]
    return [*batches, odd.batch()] if odd.texts else batches


def line_reader(line: bytes) -> Callable[[], Any]:
    def read() -> Any:
        if len(line) > limits.ROW_BYTES_MAX:
            raise UnusableRow("ROW_TOO_LONG", f"the row is longer than {limits.ROW_BYTES_MAX} bytes")
        return _DECODER.decode(line.decode())

    return read


def line_raw(line: bytes) -> Callable[[], str]:
    return lambda: clip_bytes(line)


class JsonReader:
    """A JSON array of objects, or objects one after another. After a broken object it goes on at the next one it can find.

    `array_at`: the place in the UTF-8 content of the array that holds the records; what is around it is left out.
    """

    def __init__(self, path: Path, *, encoding: str, array_at: int | None = None) -> None:
        self._path, self._encoding, self._array_at = path, encoding, array_at

    def __iter__(self) -> Iterator[Batch]:
        number, seen = 0, 0
        rows = Rows(0)
        with Utf8Source(self._path, self._encoding) as source:
            for read, raw in _documents(source, self._array_at):
                rows.add(read, raw, escapes=True)
                # Long values fill the memory before their rows are many: two blocks of text are enough.
                if rows.full or source.bytes_read - seen > BATCH_BYTES:
                    number, batch = rows.number, rows.batch()
                    batch.bytes_read, seen = source.bytes_read - seen, source.bytes_read
                    rows = Rows(number)
                    yield batch
            if len(rows):
                batch = rows.batch()
                batch.bytes_read = source.bytes_read - seen
                yield batch


class _Text:
    """A sliding window of a source's text. Bytes that are not UTF-8 become backslash escapes, which no JSON parser takes."""

    def __init__(self, source: Utf8Source, skip: int = 0) -> None:
        self._source, self._rest = source, b""
        while skip > 0 and (data := source.read(min(skip, limits.BLOCK_BYTES))):
            self._rest, skip = data[skip:], skip - len(data)
        self.text, self.at, self.final = "", 0, False

    def more(self) -> None:
        data = self._source.read(limits.BLOCK_BYTES)
        self.final = not data
        body = self._rest + data
        cut = len(body)
        if not self.final:
            for back in range(1, min(4, cut) + 1):
                if body[-back] >= 0xC0:
                    cut -= back
                    break
        self._rest = body[cut:]
        self.text, self.at = self.text[self.at :] + body[:cut].decode("utf-8", "backslashreplace"), 0

    def skip_space(self) -> bool:
        """Moves to the next thing that is neither space nor comma; False at the end of the file."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text):
                return True
            if self.final:
                return False
            self.more()


def _documents(
    source: Utf8Source, array_at: int | None = None
) -> Iterator[tuple[Callable[[], Any], Callable[[], str]]]:
    """For each element: what reads it (or raises why it cannot be read) and what gives its raw text."""
    window = _Text(source, array_at or 0)
    if not window.skip_space():
        return
    in_array = window.text[window.at] == "["
    if in_array:
        window.at += 1
    while window.skip_space():
        if in_array and window.text[window.at] == "]":
            if array_at is not None:
                while source.read(limits.BLOCK_BYTES):
                    pass  # the rest of the wrapper, read to count its bytes
                return
            window.at += 1
            in_array = False
            continue
        while True:
            start = window.at
            try:
                value, window.at = _DECODER.raw_decode(window.text, start)
            except (ValueError, UnusableRow, RecursionError) as exc:
                window.at = start
                end = _balanced_end(window.text, start)
                if end is None:
                    if not window.final and len(window.text) - start <= limits.ROW_BYTES_MAX:
                        window.more()
                        continue
                    end = _resume(window, start)
                yield _raiser(exc), _text_raw(window.text[start : min(end, start + limits.ROW_BYTES_MAX)])
                window.at = end
            else:
                yield _giver(value), _text_raw_lazily(window, start)
            break


def _balanced_end(text: str, start: int) -> int | None:
    """Where the broken object or array at `start` ends by its brackets, those in strings aside; None when it does not."""
    if text[start] not in "{[":
        return None
    depth = 0
    for match in _BRACKETS.finditer(text, start):
        mark = match[0]
        if mark[0] == '"':
            if match[1] != '"':
                return None  # a string that the text ends in
            continue
        depth += (mark in "{[") - (mark in "}]")
        if depth == 0:
            return match.end()
    return None


def _resume(window: _Text, start: int) -> int:
    """Where to go on after a broken element: after the next `}` that an object follows, else at the end of the file."""
    while True:
        match = _NEXT_OBJECT.search(window.text, start + 1)
        if match:
            return match.end()
        if window.final:
            return len(window.text)
        if len(window.text) - start > 4 * limits.ROW_BYTES_MAX:
            # Keep only the beginning, which the dead letter shows, and the tail, where the next object may begin.
            window.text = window.text[: start + 4096] + window.text[-64:]
        window.at = 0
        window.more()


def _raiser(error: Exception) -> Callable[[], Any]:
    def read() -> Any:
        raise error

    return read


def _giver(value: Any) -> Callable[[], Any]:
    return lambda: value


def _text_raw(text: str) -> Callable[[], str]:
    return lambda: clip(text)


def _text_raw_lazily(window: _Text, start: int) -> Callable[[], str]:
    text, end = window.text, window.at
    return lambda: clip(text[start:end])
