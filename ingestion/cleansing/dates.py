"""Dates, however written, to calendar days. Vectorised."""

from datetime import date

import polars as pl

EARLIEST, LATEST = date(1900, 1, 1), date(2199, 12, 31)
_YEAR_FIRST = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d")
_DAY_FIRST = ("%d/%m/%Y", "%d-%m-%Y", "%d.%m.%Y")
_MONTH_FIRST = ("%m/%d/%Y", "%m-%d-%Y", "%d.%m.%Y")
_SPELLED = ("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%d-%b-%Y")
_EPOCH_SECONDS, _EPOCH_MILLIS = r"^1?\d{9}$", r"^1?\d{12}$"


def parse_dates(given: pl.Series, *, day_first: bool) -> pl.Series:
    """Tidied texts to dates, null where there is none; a time of day after the date is left out.

    `day_first` decides what 03/04/2024 means. Seconds and milliseconds since 1970 are dates in UTC. Days before 1900 or after
    2199 are none: no record was created then.
    """
    days = given.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    missed = days.is_null() & (given != "")
    if missed.any():
        rest = given.filter(missed)
        days = days.scatter(missed.arg_true(), _other_forms(rest, day_first=day_first))
    outside = ~days.is_between(EARLIEST, LATEST)
    return days.set(outside, None) if outside.any() else days


def _other_forms(given: pl.Series, *, day_first: bool) -> pl.Series:
    text = given.str.replace(r"[T ]\d{1,2}:\d\d.*$", "")
    days = pl.Series([None], dtype=pl.Date).new_from_index(0, len(text))
    for form in (*_YEAR_FIRST, *(_DAY_FIRST if day_first else _MONTH_FIRST), *_SPELLED):
        if not days.is_null().any():
            break
        days = days.zip_with(days.is_not_null(), text.str.to_date(form, strict=False))
    seconds = text.str.contains(_EPOCH_SECONDS)
    millis = text.str.contains(_EPOCH_MILLIS)
    if (seconds | millis).any():
        number = text.zip_with(seconds | millis, text.clear(len(text))).cast(pl.Int64, strict=False)
        number = number.zip_with(~millis, number // 1000)
        days = days.zip_with(~(seconds | millis), (number * 1000).cast(pl.Datetime("ms")).cast(pl.Date))
    return days
