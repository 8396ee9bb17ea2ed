"""Checks one filter value against its field's kind and gives the text that is bound in its place."""

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from search.query.fields import Field, Kind

TEXT_CHARACTERS_MAX = 1_024
# What Date32 and DateTime64 hold; outside of it ClickHouse would clamp in silence.
YEAR_MIN, YEAR_MAX = 1900, 2299

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DATETIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


class Refused(ValueError):
    """The value does not fit; the text says what would."""


def bound_value(field: Field, value: Any) -> str | float:
    """`value` as it is bound for `field`: a float for numbers, else text; raises Refused."""
    return _READERS[field.kind](field, value)


def text_of(value: Any, *, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """`value` when it is a string that a store can hold; raises Refused."""
    if not isinstance(value, str):
        raise Refused(f"must be a string, not {json_type(value)}")
    if len(value) > characters_max:
        raise Refused(f"must have at most {characters_max} characters, it has {len(value)}")
    if "\0" in value:
        raise Refused("must not contain the NUL character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Refused("must not contain a lone surrogate") from None
    return value


def number_of(value: Any) -> float:
    """`value` when it is a finite JSON number (true and false are none); raises Refused."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"must be a number, not {json_type(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Refused("must be a number that fits into 64 bits")
    return number


def is_uuid(text: str) -> bool:
    """Whether `text` has the usual form of a UUID, with its four hyphens."""
    return _UUID.fullmatch(text) is not None


def json_type(value: Any) -> str:
    """What JSON calls the type of `value`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    return {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}[type(value)]


def _text(field: Field, value: Any) -> str:
    text = text_of(value)
    if text == "":
        raise Refused("must not be an empty string")
    return text.lower() if field.fold == "lower" else text.upper() if field.fold == "upper" else text


def _uuid(field: Field, value: Any) -> str:
    text = text_of(value)
    if not is_uuid(text):
        raise Refused("must be a UUID such as 0b7e9f0a-5c1d-4e2f-8a3b-9c4d5e6f7a8b")
    return str(UUID(text))


def _date(field: Field, value: Any) -> str:
    text = text_of(value)
    try:
        day = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        raise Refused("must be a date such as 2024-12-31")
    if not YEAR_MIN <= day.year <= YEAR_MAX:
        raise Refused(f"must lie between {YEAR_MIN}-01-01 and {YEAR_MAX}-12-31")
    return text


def _datetime(field: Field, value: Any) -> str:
    text = text_of(value)
    moment = None
    try:
        if _DATE.fullmatch(text):
            moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
        elif _DATETIME.fullmatch(text):
            moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise Refused("must be a time such as 2024-12-31T23:59:59Z, or a date")
    if not YEAR_MIN <= moment.year <= YEAR_MAX:
        raise Refused(f"must lie between the years {YEAR_MIN} and {YEAR_MAX}")
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"


def _number(field: Field, value: Any) -> float:
    return number_of(value)


_READERS: dict[Kind, Callable[[Field, Any], str | float]] = {
    Kind.TEXT: _text,
    Kind.UUID: _uuid,
    Kind.DATE: _date,
    Kind.DATETIME: _datetime,
    Kind.NUMBER: _number,
}
