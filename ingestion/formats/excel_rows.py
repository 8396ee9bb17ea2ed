"""Excel: the sheet that looks most like records, its header found below titles, its cells as text."""

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa

from ingestion.formats import limits
from ingestion.formats.batches import Batch, Reject, UnknownFormat, clip, unique_names
from ingestion.formats.excel_xls import Xls
from ingestion.formats.excel_xlsx import Sheet, Xlsx
from ingestion.formats.whole_files import BrokenFile, open_whole

BATCH_ROWS = 20_000
BATCH_CHARACTERS_MAX = 16 * 1024 * 1024
SAMPLE_ROWS = 40
HEADER_ROWS = 20
SHEETS_LOOKED_AT = 50
_VALUE = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+|[+(]?\d[\d\s().,/:+-]*")


@dataclass(frozen=True)
class ChosenSheet:
    """Which sheet is read, and which of its filled rows is the header; 0: none is."""

    name: str
    header: int


def choose_sheet(path: Path, *, known_header: frozenset[str], wanted: str) -> ChosenSheet:
    """The sheet `wanted`, or the visible one with most known names in its header, of several the largest.

    Hidden sheets are read when they are wanted or when there is no other. Raises `UnknownFormat` when there is no such sheet,
    `BrokenFile`, `TooLarge`.
    """
    with _opened(path) as (book, _):
        sheets = book.sheets
        if wanted:
            sheets = [sheet for sheet in sheets if sheet.name.strip().lower() == wanted.strip().lower()]
            if not sheets:
                names = ", ".join(repr(sheet.name) for sheet in book.sheets[:20])
                raise UnknownFormat(f"{path} has no sheet {wanted!r}. It has: {names}.")
        elif not all(sheet.hidden for sheet in sheets):
            sheets = [sheet for sheet in sheets if not sheet.hidden]
        best: tuple[int, int, int] | None = None
        chosen = ChosenSheet("", 0)
        for place, sheet in enumerate(sheets[:SHEETS_LOOKED_AT]):
            header, known, filled = _header(list(itertools.islice(book.rows(sheet), SAMPLE_ROWS)), known_header)
            worth = (known, sheet.size if filled else -1, -place)
            if best is None or worth > best:
                best, chosen = worth, ChosenSheet(sheet.name, header)
        if best is None:
            raise UnknownFormat(f"{path} has no sheet of cells: there is nothing to load.")
        return chosen


def sheet_names(path: Path) -> list[str]:
    """The sheets of a workbook in their order, hidden ones too, SHEETS_LOOKED_AT at most. Raises `BrokenFile`, `TooLarge`."""
    with _opened(path) as (book, _):
        return [sheet.name for sheet in book.sheets[:SHEETS_LOOKED_AT]]


def _header(rows: list[list[str]], known_header: frozenset[str]) -> tuple[int, int, bool]:
    """The header's place among the filled rows (1 for the first, 0 for none), its known names, whether there are rows."""
    best, place = 0, 0
    for number, row in enumerate(rows[:HEADER_ROWS], 1):
        known = len({re.sub(r"[\W_]+", "", cell.lower()) for cell in row} & known_header)
        if known > best:
            best, place = known, number
    if best:
        return place, best, len(rows) > place
    width = max((sum(map(bool, row)) for row in rows), default=0)
    for number, row in enumerate(rows[:HEADER_ROWS], 1):
        filled = [cell for cell in row if cell]
        if len(filled) >= 0.8 * width:
            is_header = number < len(rows) and not any(_VALUE.fullmatch(cell.strip()) for cell in filled)
            return (number if is_header else 0), 0, True
    return 0, 0, bool(rows)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Xlsx | Xls, IO[bytes]]]:
    with open_whole(path) as file:
        is_zip = file.read(2) == b"PK"
        file.seek(0)
        yield (Xlsx(file, path) if is_zip else Xls(file, path)), file


class ExcelReader:
    """Batches of one sheet. A sheet that breaks off costs what is behind the break, told in one reject."""

    def __init__(self, path: Path, *, sheet: ChosenSheet) -> None:
        self._path, self._sheet = path, sheet

    def __iter__(self) -> Iterator[Batch]:
        with _opened(self._path) as (book, file):
            sheet: Sheet | None = next((found for found in book.sheets if found.name == self._sheet.name), None)
            if sheet is None:
                raise BrokenFile(f"{self._path} has no sheet {self._sheet.name!r} any more.")
            rows = book.rows(sheet)
            header: list[str] = []
            for _ in range(self._sheet.header):
                header = next(rows, [])
            number = seen = 0
            rest, problem = True, ""
            while rest:
                taken: list[list[str]] = []
                characters = 0
                try:
                    for row in rows:
                        taken.append(row)
                        characters += sum(map(len, row))
                        if len(taken) >= BATCH_ROWS or characters >= BATCH_CHARACTERS_MAX:
                            break
                    else:
                        rest = False
                except BrokenFile as exc:
                    rest, problem = False, exc.message
                batch = _batch(taken, header, number)
                number += len(taken)
                if problem:
                    batch.rejects.append(Reject(number + 1, "", "BROKEN_SHEET", f"the sheet breaks off: {problem}", ""))
                # Parts are read where they lie in the archive: the furthest place is how far this is.
                now = max(seen, file.tell())
                batch.bytes_read, seen = now - seen, now
                if batch.rows_read:
                    yield batch


def _batch(taken: list[list[str]], header: list[str], number: int) -> Batch:
    good: list[list[str]] = []
    numbers: list[int] = []
    rejects: list[Reject] = []
    for place, row in enumerate(taken, number + 1):
        if len(row) > limits.COLUMNS_MAX:
            message = f"more than {limits.COLUMNS_MAX} columns"
            rejects.append(Reject(place, "", "TOO_MANY_FIELDS", message, clip("\t".join(row[:100]))))
        elif any(len(cell) > limits.FIELD_BYTES_MAX for cell in row):
            message = f"a field is longer than {limits.FIELD_BYTES_MAX} characters"
            rejects.append(Reject(place, "", "FIELD_TOO_LONG", message, clip("\t".join(cell[:200] for cell in row))))
        else:
            good.append(row)
            numbers.append(place)
    width = max([min(len(header), limits.COLUMNS_MAX), 1, *map(len, good)])
    names = unique_names([header[place] if place < len(header) else "" for place in range(width)])
    columns = itertools.zip_longest(*good, fillvalue="") if good else iter(())
    arrays = [pa.array(column, pa.string()) for column in columns]
    arrays += [pa.array([""] * len(good), pa.string())] * (width - len(arrays))
    rows = pa.RecordBatch.from_arrays(arrays, names=names)

    def raw(place: int) -> str:
        cells = {name: text for name, text in zip(names, good[place], strict=False) if text}
        return clip(json.dumps(cells, ensure_ascii=False))

    return Batch(rows, pa.array(numbers, pa.int64()), raw, rejects)
