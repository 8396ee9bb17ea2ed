"""Arrow columns of any type as the texts that the other formats would give. Pure."""

import uuid
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute

compute: Any = pa.compute
types: Any = pa.types


def leaves(name: str, column: Any) -> Iterator[tuple[str, Any]]:
    """A column itself, or for a struct the columns in it by path; lists and maps stay whole."""
    if not types.is_struct(column.type):
        yield name, column
        return
    # flatten() puts the struct's own nulls into its fields.
    for field, inner in zip(column.type, column.flatten(), strict=True):
        yield from leaves(f"{name}.{field.name}", inner)


def holds_many(kind: Any) -> bool:
    """Whether one cell of this type holds several values."""
    return bool(types.is_nested(kind)) and not types.is_struct(kind)


def texts(column: Any) -> Any:
    """A column of single values as a string array, "" for null and for what is no number. Raises `ArrowInvalid` for text
    that is not UTF-8.
    """
    return compute.fill_null(_texts(column), "")


def _texts(column: Any) -> Any:
    kind = column.type
    if types.is_dictionary(kind):
        return _texts(column.dictionary).take(column.indices)
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.uuid":
            return _each(column.storage, lambda value: str(uuid.UUID(bytes=value)))
        return _texts(column.storage)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        column.validate(full=True)
        return column.cast(pa.string())
    if types.is_floating(kind):
        column = column.cast(pa.float32()) if types.is_float16(kind) else column
        return compute.if_else(compute.is_nan(column), None, column.cast(pa.string()))
    if types.is_timestamp(kind):
        text = _without_zeros(column.cast(pa.timestamp(kind.unit)).cast(pa.string()))
        return compute.binary_join_element_wise(text, "Z", "") if kind.tz else text
    if types.is_date(kind):
        return column.cast(pa.date32()).cast(pa.string())
    if types.is_time(kind):
        return _without_zeros(column.cast(pa.string()))
    if types.is_duration(kind):
        return column.cast(pa.int64()).cast(pa.string())
    if types.is_integer(kind) or types.is_boolean(kind):
        return column.cast(pa.string())
    if types.is_null(kind):
        return pa.nulls(len(column), pa.string())
    return _each(column, value_text)


def _each(column: Any, text: Any) -> Any:
    return pa.array([None if value is None else text(value) for value in column.to_pylist()], pa.string())


def _without_zeros(column: Any) -> Any:
    """Times without a fraction of a second that says nothing."""
    column = compute.replace_substring_regex(column, r"(\.\d*?)0+$", r"\1")
    return compute.replace_substring_regex(column, r"\.$", "")


def value_text(value: Any) -> str:
    """One value, as `texts` would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, float):
        if value != value:
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime):
        zone = "Z" if value.tzinfo is not None else ""
        if zone:
            value = value.replace(tzinfo=None) - (value.utcoffset() or timedelta())
        return str(value.isoformat(" ")) + zone
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)


def plain(value: Any) -> Any:
    """A list or map as JSON would hold it: values as texts, maps and structs as objects; a map's later key wins."""
    if value is None:
        return None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value_text(value)
