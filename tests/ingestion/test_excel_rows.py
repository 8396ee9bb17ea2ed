"""Workbooks, new and old: values as a CSV of the sheet would hold them, hostile ones refused."""
# ruff: noqa: DTZ001 - a workbook knows no zones

import io
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter
import xlwt

from ingestion.formats import excel_xlsx, limits
from ingestion.formats.batches import RefusedFile, UnknownFormat
from ingestion.formats.detect import detect
from ingestion.formats.excel_numbers import date_text, is_date_format, number_text
from ingestion.formats.whole_files import BrokenFile, TooLarge
from ingestion.formats.xml_guard import UnsafeXml
from ingestion.mapping import KNOWN_HEADER
from tests.ingestion.files import batches, detected, rejects, rows, written


def xlsx(folder: Path, fill: Callable[[Any], None], **options: Any) -> Path:
    path = folder / "people.dat"
    with xlsxwriter.Workbook(path, options) as book:
        fill(book)
    return path


def sheet(book: Any, name: str, lines: list[list[Any]]) -> Any:
    made = book.add_worksheet(name)
    for place, line in enumerate(lines):
        made.write_row(place, 0, line)
    return made


def repacked(path: Path, change: Callable[[str, bytes], bytes | None], **more: bytes) -> bytes:
    """The workbook with parts changed, left out (None) or added."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
        for name, data in more.items():
            new.writestr(name, data)
    return out.getvalue()


def test_values_are_the_text_of_a_csv(tmp_path: Path) -> None:
    def fill(book: Any) -> None:
        made = sheet(book, "People", [["id", "zip", "n", "big", "half", "yes", "day", "moment", "sum", "none"]])
        made.write_string(1, 0, "007")
        made.write_string(1, 1, "02458")
        made.write_number(1, 2, 41)
        made.write_number(1, 3, 12345678901)
        made.write_number(1, 4, 0.1)
        made.write_boolean(1, 5, True)
        made.write_datetime(1, 6, datetime(2024, 3, 5), book.add_format({"num_format": "dd/mm/yyyy"}))
        made.write_datetime(1, 7, datetime(2024, 3, 5, 13, 4, 5), book.add_format({"num_format": 22}))
        made.write_formula(1, 8, "=1+1", None, 2)

    path = xlsx(tmp_path, fill)
    assert detected(path).format == "xlsx"
    assert rows(path) == [
        {
            "id": "007",
            "zip": "02458",
            "n": "41",
            "big": "12345678901",
            "half": "0.1",
            "yes": "true",
            "day": "2024-03-05",
            "moment": "2024-03-05 13:04:05",
            "sum": "2",
        }
    ]


def test_dates_of_the_1904_system_are_the_same_days(tmp_path: Path) -> None:
    def fill(book: Any) -> None:
        made = sheet(book, "People", [["id", "day"]])
        made.write_number(1, 0, 1)
        made.write_datetime(1, 1, datetime(2024, 3, 5), book.add_format({"num_format": "yyyy-mm-dd"}))

    assert rows(xlsx(tmp_path, fill, date_1904=True)) == [{"id": "1", "day": "2024-03-05"}]


@pytest.mark.parametrize(
    ("serial", "since_1904", "text"),
    [
        ("1", False, "1900-01-01"),
        ("59", False, "1900-02-28"),
        ("60", False, "1900-02-29"),
        ("61", False, "1900-03-01"),
        ("45356", False, "2024-03-05"),
        ("45356.5", False, "2024-03-05 12:00:00"),
        ("0.25", False, "06:00:00"),
        ("0", True, "1904-01-01"),
        ("43894", True, "2024-03-05"),
        ("-1", False, "-1"),
        ("99999999", False, "99999999"),
        ("x", False, "x"),
    ],
)
def test_a_serial_number_is_a_day(serial: str, since_1904: bool, text: str) -> None:
    assert date_text(serial, since_1904=since_1904) == text


@pytest.mark.parametrize(
    ("code", "is_date"),
    [
        ("yyyy-mm-dd", True),
        ("[h]:mm", True),
        ("General", False),
        ("0.00E+00", False),
        ('0 "days"', False),
        ("[Red]0", False),
    ],
)
def test_a_format_that_shows_days_is_told_from_others(code: str, is_date: bool) -> None:
    assert is_date_format(200, code) is is_date


def test_digits_that_were_written_are_kept() -> None:
    assert number_text("12345678901234567890") == "12345678901234567890"
    assert number_text("0.10000000000000001") == "0.1"
    assert number_text("7.0") == "7"


def test_the_sheet_with_the_best_header_is_read_and_hidden_ones_are_not(tmp_path: Path) -> None:
    def fill(book: Any) -> None:
        sheet(book, "Notes", [["Figures", "of"]] + [["x", "y"]] * 50)
        sheet(book, "Old", [["id", "name", "email", "phone"], ["1", "Zed", "z@b.de", "2"]]).hide()
        sheet(book, "People", [["id", "name", "email"], ["1", "Ann", "a@b.de"]])

    path = xlsx(tmp_path, fill)
    assert detected(path).choice == "People"
    assert rows(path) == [{"id": "1", "name": "Ann", "email": "a@b.de"}]


def test_a_sheet_that_is_wanted_is_read_though_it_is_hidden(tmp_path: Path) -> None:
    def fill(book: Any) -> None:
        sheet(book, "People", [["id", "name"], ["1", "Ann"]])
        sheet(book, "Old", [["id", "name"], ["2", "Bob"]]).hide()

    path = xlsx(tmp_path, fill)
    found = detect(path, not_utf8_at=None, known_header=KNOWN_HEADER, sheet="old")
    assert [batch.rows.to_pylist() for batch in found.reader(path)] == [[{"id": "2", "name": "Bob"}]]
    with pytest.raises(UnknownFormat, match=r"no sheet 'New'\. It has: 'People', 'Old'"):
        detect(path, not_utf8_at=None, known_header=KNOWN_HEADER, sheet="New")


def test_a_sheet_of_a_file_that_has_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormat, match="has no sheets"):
        detect(written(tmp_path, "a.csv", "id\n1\n"), not_utf8_at=None, known_header=KNOWN_HEADER, sheet="A")


def test_titles_above_the_header_are_left_out(tmp_path: Path) -> None:
    path = xlsx(
        tmp_path, lambda book: sheet(book, "A", [["Our customers"], [], ["id", "name"], [1, "Ann"], [], [2, "Bob"]])
    )
    found = batches(path)[0]
    assert found.rows.to_pylist() == [{"id": "1", "name": "Ann"}, {"id": "2", "name": "Bob"}]
    assert found.numbers.to_pylist() == [1, 2]


def test_a_sheet_without_a_header_gets_numbered_columns(tmp_path: Path) -> None:
    path = xlsx(tmp_path, lambda book: sheet(book, "A", [["a@b.de", 7], ["c@d.de", 8]]))
    assert rows(path)[0] == {"column_1": "a@b.de", "column_2": "7"}


def test_a_merged_cell_has_its_value_in_the_first_row(tmp_path: Path) -> None:
    def fill(book: Any) -> None:
        made = sheet(book, "A", [["id", "city"], [1, ""], [2, ""]])
        made.merge_range(1, 1, 2, 1, "Berlin")

    assert rows(xlsx(tmp_path, fill)) == [{"id": "1", "city": "Berlin"}, {"id": "2"}]


def test_an_old_workbook_gives_the_same(tmp_path: Path) -> None:
    book = xlwt.Workbook()
    made = book.add_sheet("People")
    day = xlwt.easyxf(num_format_str="YYYY-MM-DD")
    lines: list[list[Any]] = [
        ["id", "zip", "n", "day"],
        ["007", "02458", 41, datetime(2024, 3, 5)],
        ["8", "", 0.5, ""],
    ]
    for place, line in enumerate(lines):
        for column, value in enumerate(line):
            if isinstance(value, datetime):
                made.write(place, column, value, day)
            else:
                made.write(place, column, value)
    path = tmp_path / "people.dat"
    book.save(str(path))
    assert (detected(path).format, detected(path).choice) == ("xls", "People")
    assert rows(path) == [{"id": "007", "zip": "02458", "n": "41", "day": "2024-03-05"}, {"id": "8", "n": "0.5"}]


@pytest.mark.parametrize(
    "damage", [lambda d: d[: len(d) // 2], lambda d: d[:8], lambda d: d[:600] + bytes(len(d) - 600)]
)
def test_a_damaged_old_workbook_is_refused(tmp_path: Path, damage: Any) -> None:
    book = xlwt.Workbook()
    book.add_sheet("A").write(0, 0, "id")
    book.save(str(tmp_path / "a.xls"))
    with pytest.raises(RefusedFile):
        batches(written(tmp_path, "b.xls", damage((tmp_path / "a.xls").read_bytes())))


def people(tmp_path: Path) -> Path:
    return xlsx(tmp_path, lambda book: sheet(book, "A", [["id", "name"], [1, "Ann"], [2, "Bob"]]))


@pytest.mark.parametrize("damage", [lambda d: d[:-40], lambda d: d[: len(d) // 2], lambda d: d[:4] + bytes(len(d) - 4)])
def test_a_damaged_workbook_is_refused(tmp_path: Path, damage: Any) -> None:
    with pytest.raises(RefusedFile):
        batches(written(tmp_path, "a.xlsx", damage(people(tmp_path).read_bytes())))


def test_entities_in_a_workbook_are_refused(tmp_path: Path) -> None:
    def change(name: str, data: bytes) -> bytes:
        doctype = b'<!DOCTYPE x [<!ENTITY a "aaaa">]>'
        return data.replace(b"<worksheet", doctype + b"<worksheet") if "sheet1" in name else data

    with pytest.raises(UnsafeXml):
        batches(written(tmp_path, "a.xlsx", repacked(people(tmp_path), change)))


def test_macros_are_never_looked_at(tmp_path: Path) -> None:
    data = repacked(people(tmp_path), lambda name, data: data, **{"xl/vbaProject.bin": b"\xd0\xcf\x11\xe0 Auto_Open"})
    assert rows(written(tmp_path, "a.xlsm", data))[0] == {"id": "1", "name": "Ann"}


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATIO_FREE_BYTES", 1_000_000)
    data = repacked(people(tmp_path), lambda name, data: data + b" " * 5_000_000 if "sheet1" in name else data)
    with pytest.raises(TooLarge, match="unpacks to"):
        batches(written(tmp_path, "a.xlsx", data))


def test_too_many_texts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excel_xlsx, "TEXTS_MAX", 3)
    with pytest.raises(TooLarge, match="more texts"):
        batches(people(tmp_path))


def test_a_sheet_that_breaks_off_keeps_what_came_before(tmp_path: Path) -> None:
    lines: list[list[Any]] = [["id", "name"], *([number, "Ann"] for number in range(5000))]
    path = xlsx(tmp_path, lambda book: sheet(book, "A", lines))
    broken = written(
        tmp_path,
        "a.xlsx",
        repacked(path, lambda name, data: data.replace(b'<row r="4000"', b"<row &") if "sheet1" in name else data),
    )
    assert 0 < sum(batch.bytes_read for batch in batches(path)) <= path.stat().st_size
    assert [reject[1] for reject in rejects(broken)] == ["BROKEN_SHEET"]
    assert 3000 < len(rows(broken)) < 4000


def test_a_cell_far_away_costs_its_row_and_no_memory(tmp_path: Path) -> None:
    path = xlsx(tmp_path, lambda book: sheet(book, "A", [["id"], [1]]).write(1_048_575, 16_383, "far"))
    assert [reject[:2] for reject in rejects(path)] == [(2, "TOO_MANY_FIELDS")]
    assert rows(path) == [{"id": "1"}]


def test_too_long_a_field_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = xlsx(tmp_path, lambda book: sheet(book, "A", [["id", "name"], [1, "x" * 300], [2, "Bob"]]))
    monkeypatch.setattr(limits, "FIELD_BYTES_MAX", 200)
    assert [reject[:2] for reject in rejects(path)] == [(1, "FIELD_TOO_LONG")]
    assert rows(path) == [{"id": "2", "name": "Bob"}]


def test_another_office_document_and_no_workbook_are_refused(tmp_path: Path) -> None:
    data = repacked(people(tmp_path), lambda name, data: None if name == "xl/workbook.xml" else data)
    with pytest.raises(UnknownFormat, match="xlsx"):
        detected(written(tmp_path, "a.docx", data))
    with pytest.raises(BrokenFile, match="without a password"):
        detected(written(tmp_path, "a.xls", b"\xd0\xcf\x11\xe0" + bytes(600)))
