"""Parts of one file, read at the same time in different places, with the very rows and rejects that one reader would give.

A `Place` is all that a reader knows between two of its steps. Whoever begins at the place where the one before has ended goes
on exactly as a single reader would: the bytes come in the same blocks and meet the same rules. Only the place itself must be
true, and it is never taken on trust: `presumed_place` guesses it from the block before, and the guess counts only when the
part before has ended there.
"""

import codecs
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from ingestion.formats import limits
from ingestion.formats.batches import Batch, RefusedFile
from ingestion.formats.compression import open_binary
from ingestion.formats.delimited import DelimitedReader, Dialect, rest_after_line
from ingestion.formats.delimited_blocks import last_line_end, line_after, scan
from ingestion.formats.detect import DetectedFormat
from ingestion.formats.json_rows import Rows, line_raw, line_reader
from ingestion.formats.parquet_rows import group_batches, opened
from ingestion.formats.whole_files import open_whole

# How hard `presumed_place` tries.
_LINES_TRIED, _LOOKED_AT_BYTES = 50, 128 * 1024


class OtherFile(RefusedFile):
    """The file that lies here has another size than the one that the job is about."""

    code = "OTHER_FILE"


@dataclass(frozen=True)
class Place:
    """Where a reader stands: the next block (of Parquet: row group) it reads, and what it holds of those before.

    `at`: offset of the first byte that is not used up (of Parquet: batches done of the row group); `in_line`: inside a line
    that is already rejected; `in_header`: before the first row; `more`: the bytes in hand are not looked through yet.
    """

    at: int
    block: int
    in_line: bool = False
    in_header: bool = False
    more: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Blocks:
    """How a file is cut: `first` is where a reader of the whole file begins, `stops` the blocks at which parts end."""

    size: int
    first: Place
    stops: tuple[int, ...]
    block_bytes: int = 0

    def bytes_before(self, place: Place) -> int:
        """How much of a file of lines is read when its reader stands there; of it its byte order mark is read as the first."""
        return min(self.size, self.first.at + place.block * self.block_bytes) if place.block else 0


class RangeReader(Protocol):
    """Reads from its `place` until it stands at block `until`; after each batch `place` is where the next one begins.

    Row numbers begin with 1, as if the part were a file, and bytes are not counted; but of Parquet both are as in the file.
    """

    place: Place

    def __iter__(self) -> Iterator[Batch]: ...


def can_be_split(detected: DetectedFormat) -> bool:
    """Whether parts of such a file can be read alone: plain UTF-8 lines, and the row groups of plain Parquet."""
    if detected.compression is not None:
        return False
    lines = detected.dialect is not None or detected.format == "jsonl"
    return detected.format == "parquet" or (lines and detected.encoding == "utf-8")


def blocks_of(path: Path, detected: DetectedFormat, *, part_bytes: int, block_bytes: int, part_rows: int) -> Blocks:
    """How to cut a file that `can_be_split` into parts of about `part_bytes`, of Parquet `part_rows`, each of whole blocks."""
    if detected.format == "parquet":
        return _row_groups(path, part_rows)
    step = max(1, part_bytes // block_bytes)
    with open_binary(path) as file:
        size, base = _size(file), _base(file)
    last = -(-(size - base) // block_bytes)
    # The read that finds the end of the file is a block of its own, the last.
    stops = (*range(step, last, step), last + 1)
    in_header = detected.dialect is not None and detected.dialect.has_header
    return Blocks(size, Place(base, 0, in_header=in_header), stops, block_bytes)


def _row_groups(path: Path, part_rows: int) -> Blocks:
    with open_whole(path) as file:
        metadata = opened(file, path).metadata
        size = _size(file)
    stops, rows = [], 0
    for group in range(metadata.num_row_groups):
        rows += metadata.row_group(group).num_rows
        if rows >= part_rows or group == metadata.num_row_groups - 1:
            stops.append(group + 1)
            rows = 0
    return Blocks(size, Place(0, 0), tuple(stops))


def range_reader(path: Path, detected: DetectedFormat, *, place: Place, until: int, block_bytes: int) -> RangeReader:
    """The reader of a part."""
    if detected.format == "parquet":
        return ParquetRange(path, place, until)
    if detected.dialect is not None:
        return DelimitedRange(path, detected.dialect, place, until, block_bytes)
    return JsonLinesRange(path, place, until, block_bytes)


def presumed_place(path: Path, detected: DetectedFormat, *, block: int, block_bytes: int) -> Place:
    """Where the reader of the whole file most likely stands when it is about to read `block`, which is not the first."""
    if detected.format == "parquet":
        return Place(0, block)
    with open_binary(path) as file:
        start = _base(file) + (block - 1) * block_bytes
        file.seek(start)
        before = file.read(block_bytes)
    first = 0 if block == 1 else _record_start(before, detected.dialect)
    in_header = block == 1 and detected.dialect is not None and detected.dialect.has_header
    place = Place(start, 0, in_header=in_header) if block == 1 else Place(start + first, block, more=True)
    reader = range_reader(path, detected, place=place, until=block, block_bytes=block_bytes)
    for _ in reader:
        pass
    return reader.place


def _record_start(block: bytes, dialect: Dialect | None) -> int:
    """Where a record presumably begins in a block that begins anywhere: a line from which on the quotes make sense."""
    first = start = line_after(block, 0)
    if dialect is None:
        return first
    delimiter, quote = dialect.delimiter.encode(), dialect.quote.encode()
    for _ in range(_LINES_TRIED):
        if scan(block[start : start + _LOOKED_AT_BYTES], delimiter=delimiter, quote=quote, final=False).clean:
            return start
        start = line_after(block, start)
    return first


class _BlockRange:
    """Hands the bytes to `_use` in the blocks in which a reader of the whole file gets them."""

    def __init__(self, path: Path, place: Place, until: int, block_bytes: int) -> None:
        self._path, self.place, self._until, self._block_bytes = path, place, until, block_bytes

    def __iter__(self) -> Iterator[Batch]:
        with open_binary(self._path) as file:
            size, base = _size(file), _base(file)
            last = -(-(size - base) // self._block_bytes)
            end = min(size, base + self.place.block * self._block_bytes)
            file.seek(self.place.at)
            self._buffer = file.read(end - self.place.at)
            if self.place.more:
                yield from self._use(final=self.place.block > last)
            while self.place.block < self._until:
                data = file.read(self._block_bytes)
                self._buffer += data
                self.place = replace(self.place, block=self.place.block + 1)
                yield from self._use(final=self.place.block > last)

    def _use(self, *, final: bool) -> Iterator[Batch]:
        """Batches of what is in the buffer; takes what is used up out of it and keeps `place` up to date."""
        raise NotImplementedError

    def _used(self, count: int, *, more: bool, in_line: bool) -> None:
        self._buffer = self._buffer[count:]
        self.place = Place(self.place.at + count, self.place.block, in_line, in_header=False, more=more)


class DelimitedRange(_BlockRange, DelimitedReader):
    """Part of a delimited file: the steps of `DelimitedReader`, one by one."""

    def __init__(self, path: Path, dialect: Dialect, place: Place, until: int, block_bytes: int) -> None:
        DelimitedReader.__init__(self, path, encoding="utf-8", dialect=dialect)
        _BlockRange.__init__(self, path, place, until, block_bytes)
        self._number = 0

    def _use(self, *, final: bool) -> Iterator[Batch]:
        if self.place.in_header and self._buffer:
            start = self._after_header(self._buffer, final=final)
            if start is None:
                return
            in_line = start == len(self._buffer) and not final and self._buffer[-1] not in b"\r\n"
            self._used(start, more=True, in_line=in_line)
        if self.place.in_line:
            rest, in_line = rest_after_line(self._buffer, final=final)
            self._used(len(self._buffer) - len(rest), more=True, in_line=in_line)
        more = bool(self._buffer)
        while more:
            batch, used, more = self._take(self._buffer, self._number, final=final)
            in_line = not final and used == len(self._buffer) and self._buffer[-1] not in b"\r\n"
            more = more and used < len(self._buffer)
            self._number += batch.rows_read
            self._used(used, more=more, in_line=in_line)
            if batch.rows_read:
                yield batch
        self.place = replace(self.place, more=False)


class JsonLinesRange(_BlockRange):
    """Part of a file of JSON lines: the steps of `JsonLinesReader`, one by one."""

    def __init__(self, path: Path, place: Place, until: int, block_bytes: int) -> None:
        super().__init__(path, place, until, block_bytes)
        self._rows_before = 0

    def _use(self, *, final: bool) -> Iterator[Batch]:
        buffer, skipping = self._buffer, self.place.in_line
        end = len(buffer) if final else last_line_end(buffer)
        lines = buffer[:end].splitlines(keepends=True)
        if skipping and end:
            self._used(len(lines[0]), more=True, in_line=False)
            lines, skipping = lines[1:], False
        rest = len(buffer) - end
        too_long = rest > limits.ROW_BYTES_MAX and not final
        if too_long and not skipping:
            lines.append(buffer[end:])
        rows, used = Rows(self._rows_before), 0
        for line in lines:
            used += len(line)
            text = line.rstrip(b"\r\n")
            if text.strip():
                rows.add(line_reader(text), line_raw(text), escapes=b"\\u" in text)
            if rows.full:
                batch, self._rows_before = rows.batch(), rows.number
                self._used(used, more=True, in_line=False)
                rows, used = Rows(self._rows_before), 0
                yield batch
        self._used(len(self._buffer) if too_long else used, more=False, in_line=too_long or skipping)
        self._rows_before = rows.number
        if len(rows):
            yield rows.batch()


class ParquetRange:
    """Some row groups of a Parquet file; `place.at` counts the batches of the row group that are done."""

    def __init__(self, path: Path, place: Place, until: int) -> None:
        self._path, self.place, self._until = path, place, until

    def __iter__(self) -> Iterator[Batch]:
        with open_whole(self._path) as file:
            source = opened(file, self._path)
            number = sum(source.metadata.row_group(group).num_rows for group in range(self.place.block))
            while self.place.block < self._until:
                group = self.place.block
                for done, batch in enumerate(group_batches(source, group, number=number), 1):
                    if done > self.place.at:
                        self.place = replace(self.place, at=done)
                        yield batch
                number += source.metadata.row_group(group).num_rows
                self.place = Place(0, group + 1)


def check_size(path: Path, size: int) -> None:
    """Raises `OtherFile` when the file has not this size, `UnreadableFile` when it cannot be opened."""
    with open_binary(path) as file:
        found = _size(file)
    if found != size:
        raise OtherFile(f"{path} has {found:,} bytes here and {size:,} where the job was begun. Share one file.")


def _size(file: IO[bytes]) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def _base(file: IO[bytes]) -> int:
    """Where the content begins: behind a byte order mark."""
    return 3 if file.read(3) == codecs.BOM_UTF8 else 0
