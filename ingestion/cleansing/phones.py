"""Telephone numbers to E.164 where the country is known. Vectorised by region, with the rules of phonenumbers."""

from dataclasses import dataclass
from functools import lru_cache

import phonenumbers
import polars as pl

from ingestion.countries import regions

_EXTENSION = r"(?i)\s*(?:ext\.?|extension|x|#)\s*\d{1,6}\s*$"
_WRITTEN_LIKE_ONE = r"^[+(]?[\d\s().\-/+]{5,40}$"
_DIGITS_MIN, _DIGITS_MAX = 5, 15


@dataclass(frozen=True)
class _Region:
    """How one region writes its numbers, as far as text matching goes."""

    code: str
    national_prefix: str | None
    pattern: str
    simple: bool


@lru_cache(maxsize=300)
def _region(alpha_2: str) -> _Region | None:
    found = phonenumbers.PhoneMetadata.metadata_for_region(alpha_2, None)
    if found is None or found.general_desc is None or not found.general_desc.national_number_pattern:
        return None
    pattern = "^(?:" + found.general_desc.national_number_pattern + ")$"
    simple = found.national_prefix_transform_rule is None
    return _Region(str(found.country_code), found.national_prefix_for_parsing, pattern, simple)


@lru_cache(maxsize=1)
def _international() -> str:
    codes = sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE, key=lambda code: (-len(str(code)), code))
    return r"^\+(?:" + "|".join(map(str, codes)) + r")\d{4,13}$"


@lru_cache(maxsize=200_000)
def _by_library(number: str, alpha_2: str) -> str:
    try:
        parsed = phonenumbers.parse(number, alpha_2)
    except phonenumbers.NumberParseException:
        return ""
    if not phonenumbers.is_possible_number(parsed):
        return ""
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


@dataclass(frozen=True)
class Phones:
    """`values`: E.164, or as given where no country is known, "" if bad. `bad` and `cut` (an extension went) are masks."""

    values: pl.Series
    bad: pl.Series
    cut: pl.Series


def normalise_phones(given: pl.Series, countries: pl.Series) -> Phones:
    """Tidied texts and their countries (alpha-3 or "") to numbers. A number with a + needs no country."""
    frame = pl.DataFrame({"given": given, "country": countries})
    has_extension = given.str.contains(_EXTENSION)
    text = given.str.replace(_EXTENSION, "") if has_extension.any() else given
    digits = text.str.replace_all(r"\D+", "")
    plus = text.str.starts_with("+") | text.str.starts_with("00")
    length = digits.str.len_bytes()
    shaped = text.str.contains(_WRITTEN_LIKE_ONE) & (length >= _DIGITS_MIN) & (length <= _DIGITS_MAX + 2)
    e164 = "+" + digits.str.strip_prefix("00")
    e164 = e164.set(plus & ~e164.str.contains(_international()), "")
    frame = frame.with_columns(digits=digits, result=pl.when(plus).then(e164).otherwise(text))
    national = shaped & ~plus & (countries != "")
    if national.any():
        frame = frame.with_columns(result=_national(frame, national))
    values = frame["result"]
    values = values.set(~shaped, "")
    filled = given != ""
    return Phones(values, bad=filled & (values == ""), cut=filled & has_extension & (values != ""))


def _national(frame: pl.DataFrame, where: pl.Series) -> pl.Series:
    """The `result` column with the numbers at `where` replaced by their E.164 form, or "" when the region has none such."""
    result = frame["result"]
    chosen = frame.with_row_index("at").filter(where)
    alpha_2 = regions()
    for (country,), part in chosen.group_by(["country"]):
        region = _region(alpha_2.get(str(country), ""))
        if region is None:
            continue
        if region.simple:
            formatted = _by_pattern(part["digits"], region)
        else:
            code = alpha_2[str(country)]
            formatted = pl.Series([_by_library(number, code) for number in part["digits"]], dtype=pl.String)
        result = result.scatter(part["at"], formatted)
    return result


def _by_pattern(digits: pl.Series, region: _Region) -> pl.Series:
    """As given, without the trunk prefix, without the country code: the first of the three that is a number of the region."""
    candidates = [digits]
    if region.national_prefix:
        candidates.append(digits.str.replace(f"^(?:{region.national_prefix})", ""))
    candidates.append(digits.str.strip_prefix(region.code))
    found = pl.Series([""], dtype=pl.String).new_from_index(0, len(digits))
    for candidate in reversed(candidates):
        found = found.zip_with(~candidate.str.contains(region.pattern), "+" + region.code + candidate)
    return found
