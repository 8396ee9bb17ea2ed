"""Numbers and dates as a workbook keeps them, to the text that a CSV of it would hold. Pure."""

import re
from datetime import datetime, timedelta

# The numbers of formats that every workbook has without saying so.
_DATE_FORMATS = frozenset((*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)))
_NOT_A_CODE = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE)
_INTEGER = re.compile(r"-?\d+")
# Day 60 of the 1900 system is a 29 February that never was.
_DAY_THAT_NEVER_WAS = 60
_SERIAL_MAX = 2_958_466


def is_date_format(number: int, code: str | None) -> bool:
    """Whether a cell with this number format shows a date or a time."""
    if code is None:
        return number in _DATE_FORMATS
    plain = _NOT_A_CODE.sub("", code.split(";")[0]).lower()
    return plain != "general" and any(letter in plain for letter in "ymdhs")


def number_text(written: str) -> str:
    """A number without `.0`, digits that were written as an integer kept to the last one."""
    if _INTEGER.fullmatch(written):
        return written
    try:
        value = float(written)
    except ValueError:
        return written
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def date_text(written: str, *, since_1904: bool) -> str:
    """A day as `2024-03-05`, with its time when it has one; below one day the time alone. What is no day stays a number."""
    try:
        serial = float(written)
    except ValueError:
        return written
    if not 0 <= serial < _SERIAL_MAX:
        return number_text(written)
    seconds = round(serial * 86400)
    if seconds < 86400 and not (since_1904 and serial == int(serial)):
        return str(timedelta(seconds=seconds)).rjust(8, "0")
    if since_1904:
        base = datetime(1904, 1, 1)  # noqa: DTZ001 - a workbook knows no zones
    elif int(serial) == _DAY_THAT_NEVER_WAS:
        return "1900-02-29"
    else:
        base = datetime(1899, 12, 31 if serial < _DAY_THAT_NEVER_WAS else 30)  # noqa: DTZ001
    try:
        moment = base + timedelta(seconds=seconds)
    except OverflowError:
        return number_text(written)
    return moment.date().isoformat() if seconds % 86400 == 0 else moment.isoformat(" ")


def iso_text(written: str) -> str:
    """A date that is written as ISO text, midnight left out."""
    return written.removesuffix("Z").removesuffix("T00:00:00").replace("T", " ")
