"""What values look like, whatever their column is called. Pure."""

import re
from collections.abc import Sequence

from ingestion.countries import alpha_3

_EMAIL = re.compile(r"[^\s@,;]+@[^\s@,;]+\.[^\s@.,;]{2,}")
_PHONE = re.compile(r"(?:\+|00)?[\d(][\d\s().\-/]{5,22}(?:\s*(?:x|ext\.?)\s*\d+)?", re.IGNORECASE)
_PHONE_PUNCTUATION = re.compile(r"^\+|^00\d|\d[\s().\-/]+\d")
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}([T ].*)?|\d{8}|\d{10}|\d{13}")
_ISO_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}.*")
_SLASH_DATE = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.]\d{4}.*")

US_STATES = frozenset(
    re.findall(
        "..",
        "ALAKAZARCACOCTDEDCFLGAHIIDILINIAKSKYLAMEMDMAMIMNMSMOMTNENVNHNJNMNYNCNDOHOKORPARISCSDTNTXUTVTVAWAWVWIWYASGUMPPRVI",
    )
)


def looks_like(target: str, values: Sequence[str], share: float, *, by_shape_alone: bool = False) -> bool:
    """Whether at least `share` of the values have the shape of `target`: email, phone, country or created_date."""
    return bool(values) and share_of(target, values, by_shape_alone=by_shape_alone) >= share


def share_of(target: str, values: Sequence[str], *, by_shape_alone: bool = False) -> float:
    """The share of the values (some) that have the shape of `target`: email, phone, country or created_date.

    `by_shape_alone`: the header said nothing, so shapes that other things share (bare numbers, two-letter codes) do not count.
    """
    if target == "email":
        hits = sum(_EMAIL.fullmatch(value) is not None for value in values)
    elif target == "phone":
        hits = sum(_is_phone(value, by_shape_alone=by_shape_alone) for value in values)
    elif target == "country":
        hits = sum((not by_shape_alone or len(value) > 2) and alpha_3(value) is not None for value in values)
    else:
        hits = sum(_DATE.fullmatch(value) is not None for value in values)
    return hits / len(values)


def _is_phone(value: str, *, by_shape_alone: bool) -> bool:
    if _PHONE.fullmatch(value) is None or not 7 <= sum(map(str.isdigit, value)) <= 20:
        return False
    if not by_shape_alone:
        return True
    return (
        _PHONE_PUNCTUATION.search(value) is not None
        and _DATE.fullmatch(value) is None
        and _ISO_DATE.match(value) is None
    )


def share_of_us_states(values: Sequence[str]) -> float:
    """The share of values that are postal codes of US states and territories."""
    return sum(value in US_STATES for value in values) / max(1, len(values))


def slash_dates_are_day_first(values: Sequence[str]) -> bool:
    """Whether dates like 25/12/2024 put the day first: some first part is above 12 and no second part is."""
    parts = [(int(match[1]), int(match[2])) for value in values if (match := _SLASH_DATE.fullmatch(value))]
    return any(first > 12 for first, _ in parts) and not any(second > 12 for _, second in parts)
