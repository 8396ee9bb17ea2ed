"""Plain text: trimmed, white space and control characters collapsed, composed to NFC. Vectorised."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

# Cells that mean "nothing" in a master field. In the metadata they stay as they are.
BLANKS = ("NULL", "null", "N/A", "n/a", "NaN", "nan", "\\N", "#N/A", "None", "none", "-", "--")

_UNTIDY = r"^[\s\p{Cc}]|[\s\p{Cc}]$|[\s\p{Cc}]{2}|[\p{Cc}\p{Zl}\p{Zp}]|\u{a0}"
_SPACE, _DELETE = 0x20, 0x7F


def tidy(column: Any) -> pl.Series:
    """An Arrow column of texts: each trimmed, runs of white space and control characters made one space, NFC; null is ""."""
    values = pl.Series(pl.from_arrow(column.fill_null("") if column.null_count else column)).cast(pl.String)
    if _is_plain_and_tidy(column):
        return values
    untidy = values.str.contains(_UNTIDY)
    if untidy.any():
        mended = values.str.replace_all(r"[\s\p{Cc}]+", " ").str.strip_chars()
        values = values.zip_with(~untidy, mended)
    # Few texts are anything but ASCII, and composing takes longer than all the rest.
    wide = values.str.len_bytes() != values.str.len_chars()
    return values.scatter(wide.arg_true(), values.filter(wide).str.normalize("NFC")) if wide.any() else values


def _is_plain_and_tidy(column: Any) -> bool:
    """Whether all cells are ASCII with nothing to mend: seen on the column's bytes, without looking at single cells."""
    if column.null_count or column.type != pa.string() or len(column) == 0:
        return False
    _, offset_buffer, data_buffer = column.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    if first == last:
        return True
    data = np.frombuffer(data_buffer, dtype=np.uint8)[first:last]
    if data.max() >= _DELETE or data.min() < _SPACE:
        return False
    spaces = data == _SPACE
    if not spaces.any():
        return True
    if (spaces[1:] & spaces[:-1]).any():
        # Two in a row, even if the first ends one cell and the second begins the next: then both cells are untidy anyway.
        return False
    filled = offsets[1:] > offsets[:-1]
    starts, ends = offsets[:-1][filled] - first, offsets[1:][filled] - first - 1
    return not (spaces[starts].any() or spaces[ends].any())


def blank_out(values: pl.Series) -> pl.Series:
    """Cells that only say that there is nothing, made ""."""
    nothing = values.is_in(BLANKS)
    return values.set(nothing, "") if nothing.any() else values
