"""Workbooks of Excel 2007 and later, read as a stream: values only, formulas as they were last computed, macros never."""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from xml.parsers import expat

from ingestion.formats import limits
from ingestion.formats.batches import UnknownFormat
from ingestion.formats.excel_numbers import date_text, is_date_format, iso_text, number_text
from ingestion.formats.whole_files import BrokenFile, TooLarge
from ingestion.formats.xml_guard import guarded_parser, local_name, stuck

PARTS_MAX = 10_000
PART_BYTES_MAX = 8 * 1024**3
TEXTS_MAX, TEXT_BYTES_MAX = 4_000_000, 192 * 1024 * 1024
STYLES_MAX = 100_000
_PIECE = 64 * 1024
_BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError, KeyError,
    expat.ExpatError,
)  # fmt: skip
_COLUMN = re.compile(r"([A-Z]{1,3})\d*")

Start = Callable[[str, dict[str, str]], None]
End = Callable[[str], None]


@dataclass(frozen=True)
class Sheet:
    """A sheet of a workbook: its name, whether people see it, about how much is in it."""

    name: str
    hidden: bool
    part: str
    size: int


class Xlsx:
    """A workbook in an open file. Raises `BrokenFile`, `TooLarge`, `UnknownFormat`, `UnsafeXml`."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(file)
        except _BROKEN as exc:
            raise self._broken(exc) from exc
        self._parts = self._checked()
        self._since_1904 = False
        self._texts: list[str] | None = None
        try:
            self.sheets = self._read_sheets()
            self._dates = self._read_styles()
        except _BROKEN as exc:
            raise self._broken(exc) from exc

    def _broken(self, error: BaseException) -> BrokenFile:
        return BrokenFile(
            f"{self._path} is not a whole workbook ({str(error)[:100]}). Save it again in Excel, without a password."
        )

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        parts = self._archive.infolist()
        if len(parts) > PARTS_MAX:
            raise TooLarge(f"{self._path} has {len(parts):,} parts; at most {PARTS_MAX:,} are read.")
        for part in parts:
            bomb = part.file_size > max(limits.RATIO_FREE_BYTES, limits.UNPACKED_RATIO_MAX * part.compress_size)
            if bomb or part.file_size > PART_BYTES_MAX:
                raise TooLarge(
                    f"{self._path}: {part.filename[:100]} unpacks to {part.file_size:,} bytes, which is not read."
                )
        found = {part.filename: part for part in parts}
        if "xl/workbook.xml" not in found:
            raise UnknownFormat(
                f"{self._path} is an Office document, and no workbook of the kind xlsx. Save it as xlsx or CSV."
            )
        return found

    def _parse(
        self, part: str, start: Start, end: End | None = None, text: Callable[[str], None] | None = None
    ) -> Iterator[None]:
        """Parses a part piece by piece; what the handlers gathered is the caller's after each."""
        parser = guarded_parser()
        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.CharacterDataHandler = text
        fed = 0
        with self._archive.open(self._parts[part]) as content:
            while data := content.read(_PIECE if fed else 4096):
                fed += len(data)
                parser.Parse(data, False)
                if stuck(parser, fed):
                    raise ValueError("a tag without end")
                yield
        parser.Parse(b"", True)
        yield

    def _whole(
        self, part: str, start: Start, end: End | None = None, text: Callable[[str], None] | None = None
    ) -> None:
        for _ in self._parse(part, start, end, text):
            pass

    def _read_sheets(self) -> list[Sheet]:
        targets: dict[str, str] = {}
        found: list[Sheet] = []

        def relation(name: str, values: dict[str, str]) -> None:
            if local_name(name) == "Relationship" and values.get("TargetMode") != "External":
                target = values.get("Target", "")
                targets[values.get("Id", "")] = (
                    target.lstrip("/") if target.startswith("/") else str(PurePosixPath("xl", target))
                )

        def workbook(name: str, values: dict[str, str]) -> None:
            tag = local_name(name)
            if tag == "workbookPr":
                self._since_1904 = values.get("date1904", "0") in ("1", "true")
            elif tag == "sheet" and len(found) < PARTS_MAX:
                part = targets.get(next((value for key, value in values.items() if key.endswith(":id")), ""), "")
                if part in self._parts:
                    hidden = values.get("state", "visible") != "visible"
                    found.append(Sheet(values.get("name", ""), hidden, part, self._parts[part].file_size))

        self._whole("xl/_rels/workbook.xml.rels", relation)
        self._whole("xl/workbook.xml", workbook)
        return found

    def _read_styles(self) -> list[bool]:
        codes: dict[int, str] = {}
        dates: list[bool] = []
        inside = ""

        def start(name: str, values: dict[str, str]) -> None:
            nonlocal inside
            tag = local_name(name)
            if tag in ("cellXfs", "cellStyleXfs", "dxfs"):
                inside = tag
            elif tag == "numFmt" and len(codes) < STYLES_MAX:
                codes[int(values.get("numFmtId", "0"))] = values.get("formatCode", "")
            elif tag == "xf" and inside == "cellXfs" and len(dates) < STYLES_MAX:
                number = int(values.get("numFmtId", "0"))
                dates.append(is_date_format(number, codes.get(number)))

        if "xl/styles.xml" in self._parts:
            self._whole("xl/styles.xml", start)
        return dates

    def _shared_texts(self) -> list[str]:
        if self._texts is not None:
            return self._texts
        texts: list[str] = []
        gathered: list[str] = []
        size = 0
        take = phonetic = False

        def start(name: str, values: dict[str, str]) -> None:
            nonlocal take, phonetic
            tag = local_name(name)
            if tag == "si":
                gathered.clear()
            elif tag == "rPh":
                phonetic = True
            take = tag == "t" and not phonetic

        def end(name: str) -> None:
            nonlocal take, phonetic, size
            tag = local_name(name)
            take = False
            if tag == "rPh":
                phonetic = False
            elif tag == "si":
                texts.append("".join(gathered))

        def text(data: str) -> None:
            nonlocal size
            if take:
                gathered.append(data)
                size += len(data)

        if "xl/sharedStrings.xml" in self._parts:
            for _ in self._parse("xl/sharedStrings.xml", start, end, text):
                if len(texts) > TEXTS_MAX or size > TEXT_BYTES_MAX:
                    raise TooLarge(
                        f"{self._path} holds more texts than are read from a workbook. Save the sheet as CSV."
                    )
        self._texts = texts
        return texts

    def rows(self, sheet: Sheet) -> Iterator[list[str]]:
        """The rows of a sheet that hold anything, each as wide as its last cell. Raises `BrokenFile`."""
        try:
            cells = _Cells(self._shared_texts(), self._dates, since_1904=self._since_1904)
            for _ in self._parse(sheet.part, cells.start, cells.end, cells.text):
                yield from cells.rows
                cells.rows = []
        except _BROKEN as exc:
            raise self._broken(exc) from exc


class _Cells:
    """Gathers the rows of a sheet's XML. A merged cell's value stands in its first cell alone, as in the file."""

    def __init__(self, texts: list[str], dates: list[bool], *, since_1904: bool) -> None:
        self.rows: list[list[str]] = []
        self._texts, self._dates, self._since_1904 = texts, dates, since_1904
        self._row: list[str] = []
        self._column = -1
        self._kind, self._is_date = "n", False
        self._value: list[str] = []
        self._take = self._phonetic = False
        self._held = 0

    def start(self, name: str, values: dict[str, Any]) -> None:
        tag = local_name(name)
        if tag == "c":
            place = _COLUMN.fullmatch(values.get("r", ""))
            self._column = _place(place[1]) if place else self._column + 1
            self._kind = values.get("t", "n")
            style = values.get("s", "0")
            number = int(style) if style.isdigit() and len(style) < 7 else 0
            self._is_date = number < len(self._dates) and self._dates[number]
            self._value, self._held = [], 0
        elif tag == "row":
            self._row, self._column = [], -1
        elif tag == "rPh":
            self._phonetic = True
        self._take = tag == "v" or (tag == "t" and not self._phonetic)

    def text(self, data: str) -> None:
        if self._take and self._held <= 2 * limits.FIELD_BYTES_MAX:
            self._value.append(data)
            self._held += len(data)

    def end(self, name: str) -> None:
        tag = local_name(name)
        self._take = False
        if tag == "c":
            text = self._cell("".join(self._value))
            if text:
                # A cell far out makes the row one column too wide, which rejects it, and no wider.
                column = min(self._column, limits.COLUMNS_MAX)
                self._row += [""] * (column + 1 - len(self._row))
                self._row[column] = text
        elif tag == "row":
            if any(self._row):
                self.rows.append(self._row)
            self._row = []
        elif tag == "rPh":
            self._phonetic = False

    def _cell(self, value: str) -> str:
        kind = self._kind
        if kind == "s":
            place = int(value) if value.isdigit() and len(value) < 10 else len(self._texts)
            return self._texts[place] if place < len(self._texts) else ""
        if kind == "n":
            value = value.strip()
            if not value:
                return ""
            return date_text(value, since_1904=self._since_1904) if self._is_date else number_text(value)
        if kind == "b":
            return "true" if value.strip() == "1" else "false"
        return iso_text(value) if kind == "d" else value


def _place(letters: str) -> int:
    place = 0
    for letter in letters:
        place = place * 26 + ord(letter) - 64
    return place - 1
