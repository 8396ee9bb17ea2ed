"""What every reader yields, and the refusals of a whole file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from config.errors import DomainError
from ingestion.formats import limits

# Marks a column whose cells are JSON arrays: it goes into the metadata as JSON, not as text.
JSON_COLUMN = {b"json": b"array"}


def holds_json(column: "pa.Field[pa.DataType]") -> bool:
    """Whether a batch's column is marked JSON_COLUMN."""
    return bool(column.metadata and JSON_COLUMN.keys() <= column.metadata.keys())


# Marks a column that repeats a member of a list which the batch also holds whole: a field may take it, the metadata does not.
LIST_MEMBER = {b"member": b"list"}


def is_list_member(column: "pa.Field[pa.DataType]") -> bool:
    """Whether a batch's column is marked LIST_MEMBER."""
    return bool(column.metadata and LIST_MEMBER.keys() <= column.metadata.keys())


class RefusedFile(DomainError):
    """A file that cannot be loaded at all: nothing was loaded, `code` and message say why and what to do."""

    status = 422
    code = "REFUSED_FILE"


class EmptyFile(RefusedFile):
    code = "EMPTY_FILE"


class UnknownFormat(RefusedFile):
    code = "UNKNOWN_FORMAT"


class UnreadableFile(RefusedFile):
    code = "UNREADABLE_FILE"


class FileChanged(RefusedFile):
    """The file of a job is not what it was: its rows cannot be told by their numbers."""

    code = "FILE_CHANGED"


@dataclass(frozen=True)
class Reject:
    """A row that could not be used: its number (1 for the first record), the column or "", a reason code, words, raw text."""

    row: int
    column: str
    reason: str
    message: str
    raw: str


@dataclass
class Batch:
    """Rows of a file in order: text columns under their source names, each row's number, and what was rejected.

    `raw` gives a row's raw text by its position in `rows`; it is asked for rejected rows only.
    """

    rows: pa.RecordBatch
    numbers: pa.Int64Array
    raw: Callable[[int], str]
    rejects: list[Reject] = field(default_factory=list)
    bytes_read: int = 0

    @property
    def rows_read(self) -> int:
        return self.rows.num_rows + len(self.rejects)


class Reader(Protocol):
    """Opens a file again for each iteration; the batches are the same every time, for the same file and version."""

    def __iter__(self) -> Iterator[Batch]: ...


def clip(raw: str) -> str:
    """Raw text as dead letters keep it: at most RAW_TEXT_MAX characters, without NUL, which Postgres cannot store."""
    return raw.replace("\x00", "\N{SYMBOL FOR NULL}")[: limits.RAW_TEXT_MAX]


def clip_bytes(raw: bytes) -> str:
    """As `clip`, for bytes that may not be UTF-8: those that are not are shown as `\\xNN`."""
    return clip(raw[: 4 * limits.RAW_TEXT_MAX].decode("utf-8", "backslashreplace"))


def unique_names(names: list[str]) -> list[str]:
    """Column names made usable: an empty one becomes `column_N`, a repeated one gets `_2`, `_3`, …"""
    taken: set[str] = set()
    result = []
    for position, name in enumerate(names, 1):
        base = " ".join(name.replace("\x00", " ").split()) or f"column_{position}"
        candidate, turn = base, 1
        while candidate in taken:
            turn += 1
            candidate = f"{base}_{turn}"
        taken.add(candidate)
        result.append(candidate)
    return result
