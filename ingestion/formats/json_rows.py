"""JSON arrays, JSON Lines and objects one after another: each object is a row, nested ones flattened by path.

Numbers keep the text they were written with, so that 1.10 stays 1.10 and an id of twenty digits stays what it is.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from ingestion.formats import limits
from ingestion.formats.batches import JSON_COLUMN, Batch, Reject, clip, clip_bytes
from ingestion.formats.delimited_blocks import last_line_end
from ingestion.formats.encoding import Utf8Source

BATCH_ROWS = 50_000
_SPACE = re.compile(r"[\s,]*")
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*("|\\?\Z)|[\[\]{}]', re.DOTALL)
_NEXT_OBJECT = re.compile(r"\}\s*,?\s*(?=\{)")


class UnusableRow(Exception):
    """A value that cannot become a row: `reason` is a code, the text explains it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


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


def flatten(value: Any) -> dict[str, Any]:
    """One object as {path: text or list}; paths joined with dots. Empty and null values are left out.

    Raises `UnusableRow` for what is not an object, is nested too deep or has too many fields.
    """
    if not isinstance(value, dict):
        raise UnusableRow("NOT_AN_OBJECT", "the value is not an object")
    flat: dict[str, Any] = {}
    stack: list[tuple[str, dict[str, Any], int]] = [("", value, 1)]
    while stack:
        prefix, current, depth = stack.pop()
        if depth > limits.DEPTH_MAX:
            raise UnusableRow("TOO_DEEP", f"nested deeper than {limits.DEPTH_MAX} levels")
        for key, item in current.items():
            path = prefix + key
            if "\x00" in path:  # no store takes it in a name
                path = path.replace("\x00", " ")
            if isinstance(item, dict):
                stack.append((path + ".", item, depth + 1))
            elif item is not None and item != "" and item != []:
                flat[path if path not in flat else f"{path}_2"] = _cell(item, depth)
    if len(flat) > limits.COLUMNS_MAX:
        raise UnusableRow("TOO_MANY_FIELDS", f"more than {limits.COLUMNS_MAX} fields")
    return flat


def _cell(item: Any, depth: int) -> Any:
    if isinstance(item, str):
        if len(item) > limits.FIELD_BYTES_MAX:
            raise UnusableRow("FIELD_TOO_LONG", f"a value is longer than {limits.FIELD_BYTES_MAX} characters")
        return item
    if isinstance(item, bool):
        return "true" if item else "false"
    _check_depth(item, depth)
    return [_plain(part) for part in item]


def _plain(item: Any) -> Any:
    """A list's member as it is kept: scalars as text, like every other value."""
    if isinstance(item, dict):
        return {key: _plain(part) for key, part in item.items() if part is not None}
    if isinstance(item, list):
        return [_plain(part) for part in item]
    if isinstance(item, bool):
        return "true" if item else "false"
    return item


def _check_depth(item: Any, depth: int) -> None:
    level = [item]
    while level:
        depth += 1
        if depth > limits.DEPTH_MAX:
            raise UnusableRow("TOO_DEEP", f"nested deeper than {limits.DEPTH_MAX} levels")
        level = [
            part
            for outer in level
            for part in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(part, dict | list)
        ]


class _Rows:
    """Collects flattened rows and rejects, and makes them a `Batch`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.flat: list[dict[str, Any]] = []
        self.numbers: list[int] = []
        self.raws: list[Callable[[], str]] = []
        self.rejects: list[Reject] = []
        self.columns: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self.flat) + len(self.rejects)

    @property
    def full(self) -> bool:
        return (
            len(self) >= BATCH_ROWS
            or len(self.columns) >= limits.COLUMNS_MAX
            or len(self) * len(self.columns) >= limits.BATCH_CELLS_MAX
        )

    def add(self, read: Callable[[], Any], raw: Callable[[], str]) -> None:
        """Adds the row that `read` gives, or a reject that says why it cannot."""
        self.number += 1
        try:
            row = flatten(read())
            # A lone surrogate is no text: it cannot be stored nor shown.
            "".join(value for value in row.values() if isinstance(value, str)).encode()
            "".join(row).encode()
        except UnusableRow as exc:
            self.reject(exc.reason, str(exc), raw())
        except RecursionError:
            self.reject("TOO_DEEP", f"nested deeper than {limits.DEPTH_MAX} levels", raw())
        except UnicodeEncodeError:
            self.reject("INVALID_TEXT", "the row holds half of a surrogate pair", raw())
        except ValueError as exc:
            self.reject("INVALID_JSON", str(exc)[:200], raw())
        else:
            self.flat.append(row)
            self.numbers.append(self.number)
            self.raws.append(raw)
            self.columns.update(dict.fromkeys(row))

    def reject(self, reason: str, message: str, raw: str) -> None:
        self.rejects.append(Reject(self.number, "", reason, message, raw))

    def batch(self) -> Batch:
        arrays, fields = [], []
        for name in self.columns:
            cells = [row.get(name, "") for row in self.flat]
            lists = [isinstance(cell, list) for cell in cells]
            if not all(lists):
                texts = ["" if is_list else cell for cell, is_list in zip(cells, lists, strict=True)]
                if any(texts):
                    arrays.append(pa.array(texts, pa.string()))
                    fields.append(pa.field(name, pa.string()))
            if any(lists):
                encoded = [_compact(cell) if is_list else "" for cell, is_list in zip(cells, lists, strict=True)]
                arrays.append(pa.array(encoded, pa.string()))
                fields.append(pa.field(name, pa.string(), metadata=JSON_COLUMN))
        if not arrays:
            arrays, fields = [pa.array([""] * len(self.flat), pa.string())], [pa.field("column_1", pa.string())]
        rows = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
        raws = self.raws
        return Batch(rows, pa.array(self.numbers, pa.int64()), lambda position: raws[position](), self.rejects)


def _compact(value: list[Any]) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode("utf-8", "replace").decode()


class JsonLinesReader:
    """One JSON object a line. A line that is not one costs itself alone."""

    def __init__(self, path: Path, *, encoding: str) -> None:
        self._path, self._encoding = path, encoding

    def __iter__(self) -> Iterator[Batch]:
        buffer, number, seen, final = b"", 0, 0, False
        skipping = False  # inside a line that is too long and already told
        with Utf8Source(self._path, self._encoding) as source:
            while not final:
                data = source.read(limits.BLOCK_BYTES)
                final = not data
                buffer += data
                end = len(buffer) if final else last_line_end(buffer)
                lines = buffer[:end].splitlines()
                buffer = buffer[end:]
                if skipping and end:
                    lines, skipping = lines[1:], False
                if len(buffer) > limits.ROW_BYTES_MAX and not final:
                    # No line end in sight: the whole line is rejected now, and its rest skipped.
                    if not skipping:
                        lines.append(buffer)
                    buffer, skipping = b"", True
                rows = _Rows(number)
                for line in lines:
                    if line.strip():
                        rows.add(_line_reader(line), _line_raw(line))
                    if rows.full:
                        batch, number = self._done(rows, source, seen)
                        seen, rows = source.bytes_read, _Rows(number)
                        yield batch
                if len(rows):
                    batch, number = self._done(rows, source, seen)
                    seen = source.bytes_read
                    yield batch

    @staticmethod
    def _done(rows: _Rows, source: Utf8Source, seen: int) -> tuple[Batch, int]:
        batch = rows.batch()
        batch.bytes_read = source.bytes_read - seen
        return batch, rows.number


def _line_reader(line: bytes) -> Callable[[], Any]:
    def read() -> Any:
        if len(line) > limits.ROW_BYTES_MAX:
            raise UnusableRow("ROW_TOO_LONG", f"the row is longer than {limits.ROW_BYTES_MAX} bytes")
        return _DECODER.decode(line.decode())

    return read


def _line_raw(line: bytes) -> Callable[[], str]:
    return lambda: clip_bytes(line)


class JsonReader:
    """A JSON array of objects, or objects one after another. After a broken object it goes on at the next one it can find."""

    def __init__(self, path: Path, *, encoding: str) -> None:
        self._path, self._encoding = path, encoding

    def __iter__(self) -> Iterator[Batch]:
        number, seen = 0, 0
        rows = _Rows(0)
        with Utf8Source(self._path, self._encoding) as source:
            for read, raw in _documents(source):
                rows.add(read, raw)
                if rows.full:
                    number, batch = rows.number, rows.batch()
                    batch.bytes_read, seen = source.bytes_read - seen, source.bytes_read
                    rows = _Rows(number)
                    yield batch
            if len(rows):
                batch = rows.batch()
                batch.bytes_read = source.bytes_read - seen
                yield batch


class _Text:
    """A sliding window of a source's text. Bytes that are not UTF-8 become backslash escapes, which no JSON parser takes."""

    def __init__(self, source: Utf8Source) -> None:
        self._source, self._rest = source, b""
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


def _documents(source: Utf8Source) -> Iterator[tuple[Callable[[], Any], Callable[[], str]]]:
    """For each element: what reads it (or raises why it cannot be read) and what gives its raw text."""
    window = _Text(source)
    if not window.skip_space():
        return
    in_array = window.text[window.at] == "["
    if in_array:
        window.at += 1
    while window.skip_space():
        if in_array and window.text[window.at] == "]":
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
