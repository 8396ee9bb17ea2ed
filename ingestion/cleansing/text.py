"""Plain text: trimmed, white space and control characters collapsed, composed to NFC. Vectorised."""

import polars as pl

# Cells that mean "nothing" in a master field. In the metadata they stay as they are.
BLANKS = ("NULL", "null", "N/A", "n/a", "NaN", "nan", "\\N", "#N/A", "None", "none", "-", "--")

_UNTIDY = r"^[\s\p{Cc}]|[\s\p{Cc}]$|[\s\p{Cc}]{2}|[\p{Cc}\p{Zl}\p{Zp}]|\u{a0}"


def tidy(values: pl.Series) -> pl.Series:
    """Each text trimmed, runs of white space and control characters made one space, NFC. Untouched ones cost one look."""
    untidy = values.str.contains(_UNTIDY)
    if untidy.any():
        mended = values.str.replace_all(r"[\s\p{Cc}]+", " ").str.strip_chars()
        values = values.zip_with(~untidy, mended)
    ascii_only = values.str.len_bytes().sum() == values.str.len_chars().sum()
    return values if ascii_only else values.str.normalize("NFC")


def blank_out(values: pl.Series) -> pl.Series:
    """Cells that only say that there is nothing, made ""."""
    nothing = values.is_in(BLANKS)
    return values.set(nothing, "") if nothing.any() else values
