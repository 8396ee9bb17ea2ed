"""Workbooks of Excel 97 to 2003. xlrd reads values alone: no formula is computed and no macro run."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import xlrd

from ingestion.formats.excel_numbers import date_text, number_text
from ingestion.formats.excel_xlsx import Sheet
from ingestion.formats.whole_files import BrokenFile, TooLarge

# The format ends at 65,536 rows a sheet; what is larger than this holds pictures, or means harm.
FILE_BYTES_MAX = 128 * 1024 * 1024


class Xls:
    """A workbook in an open file. Raises `BrokenFile`, `TooLarge`."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._path = path
        content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise TooLarge(f"{path} is larger than {FILE_BYTES_MAX:,} bytes. Save the sheet as xlsx or CSV.")
        try:
            self._book: Any = xlrd.open_workbook(
                file_contents=content, on_demand=True, ragged_rows=True, logfile=io.StringIO()
            )
            self.sheets = [
                Sheet(
                    name,
                    bool(self._book.sheet_by_index(place).visibility),
                    str(place),
                    self._book.sheet_by_index(place).nrows,
                )
                for place, name in enumerate(self._book.sheet_names())
            ]
        except Exception as exc:  # a damaged workbook makes xlrd raise nearly anything
            raise self._broken(exc) from exc

    def _broken(self, error: BaseException) -> BrokenFile:
        return BrokenFile(
            f"{self._path} is not a whole workbook ({str(error)[:100]}). Save it again in Excel, without a password."
        )

    def rows(self, sheet: Sheet) -> Iterator[list[str]]:
        """The rows of a sheet that hold anything, each as wide as its last cell. Raises `BrokenFile`."""
        try:
            found = self._book.sheet_by_index(int(sheet.part))
            for place in range(found.nrows):
                row = [self._text(cell) for cell in found.row(place)]
                if any(row):
                    yield row
        except Exception as exc:  # as above
            raise self._broken(exc) from exc

    def _text(self, cell: Any) -> str:
        if cell.ctype == xlrd.XL_CELL_NUMBER:
            return number_text(repr(cell.value))
        if cell.ctype == xlrd.XL_CELL_DATE:
            return date_text(repr(cell.value), since_1904=self._book.datemode == 1)
        if cell.ctype == xlrd.XL_CELL_BOOLEAN:
            return "true" if cell.value else "false"
        if cell.ctype == xlrd.XL_CELL_ERROR:
            return str(xlrd.error_text_from_code.get(cell.value, "#ERROR"))
        return str(cell.value)
