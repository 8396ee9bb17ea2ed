"""ClickHouse's errors as its HTTP interface tells them: code, text and HTTP status."""

from __future__ import annotations

import re

_CODE = re.compile(r"Code: (\d+)\.")

BAD_ARGUMENTS = 36
NOT_IMPLEMENTED = 48
UNKNOWN_EXCEPTION = 1002
READONLY = 164
ACCESS_DENIED = 497
AUTHENTICATION_FAILED = 516
QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING = 216
SETTING_CONSTRAINT_VIOLATION = 452
TOO_MANY_SIMULTANEOUS_QUERIES = 202
NOT_ENOUGH_SPACE = 243
CANNOT_DECOMPRESS = 271

# The status that ClickHouse's HTTP interface gives these codes; every other code is a 500.
_STATUS = {
    **dict.fromkeys((6, 26, 27, 36, 38, 41, 43, 44, 50, 53, 62, 72, 117, 130, 321, 386, 457), 400),
    **dict.fromkeys((46, 47, 60, 73, 81, 82, 115), 404),
    **dict.fromkeys((192, 193, 497, 516), 403),
    48: 501,
    159: 408,
    164: 500,
    202: 503,
    203: 503,
}


class ClickHouseError(Exception):
    """An error of the engine, or of this server in the engine's words."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return _STATUS.get(self.code, 500)


def refusal(code: int, reason: str, name: str) -> ClickHouseError:
    """An error of our own, worded as the engine words its errors."""
    return ClickHouseError(code, f"Code: {code}. DB::Exception: {reason} ({name})")


def from_engine(error: Exception) -> ClickHouseError:
    """The engine's exception with its code read from its text."""
    text = str(error)
    start = max(text.find("Code: "), 0)
    match = _CODE.search(text, start)
    return ClickHouseError(int(match.group(1)) if match else UNKNOWN_EXCEPTION, text[start:].strip())
