"""Turns what a customer sent into a validated `RecordQuery`, or into one answer that names every mistake in it."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from search.pricing import affordable
from search.query import values
from search.query.fields import (
    DEFAULT_FIELDS,
    EQUALITY,
    FIELDS,
    FILTERABLE,
    METADATA_PREFIX,
    OPERATORS,
    SORTABLE,
    Field,
)
from search.query.problems import Problems, unknown
from search.query.values import Refused

LIMIT_DEFAULT = 100
LIMIT_MAX = 10_000
OFFSET_MAX = 100_000
SEARCH_LIMIT_DEFAULT = 20
DOWNLOAD_LIMIT_DEFAULT = 1_000
DOWNLOAD_LIMIT_MAX = 1_000_000
CONDITIONS_MAX = 50
LIST_VALUES_MAX = 1_000
SORT_FIELDS_MAX = 5
PATH_PARTS_MAX = 8
WORDS_CHARACTERS_MAX = 256
WORDS_MAX = 16
# A number without its country has seven digits at least, one with 00 and a country seventeen at most.
PHONE_DIGITS_MIN, PHONE_DIGITS_MAX = 7, 17
METADATA_PATH_CHARACTERS_MAX = 200
PERSON_ID_CHARACTERS_MAX = 256
MAX_CREDITS_MAX = 1_000_000_000

QUERY_KEYS = ("filters", "fields", "limit", "offset", "sort", "include_total", "max_credits")
Value = TypeVar("Value", str, str | float)

PLANNED_KEYS = {
    "cursor": "is not available yet; page with offset and limit",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """`field operator value`; `value` is what is bound, or a tuple of such values for "in"."""

    field: Field
    operator: str
    value: str | float | tuple[str | float, ...]


@dataclass(frozen=True, slots=True)
class MetadataCondition:
    """The metadata value at `path` ("a.b") is one of `values`; metadata holds text alone."""

    path: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SortKey:
    field: Field
    descending: bool


@dataclass(frozen=True, slots=True)
class RecordQuery:
    """A validated request for records. Without `sort`, records come in the table's own order.

    A record whose user_id or phone is one of `keys` matches as well as one that holds all `words`.
    `max_credits`, where it is given, has lowered `limit` to what it pays for already.
    """

    conditions: tuple[Condition | MetadataCondition, ...] = ()
    words: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    fields: tuple[Field, ...] = DEFAULT_FIELDS
    sort: tuple[SortKey, ...] = ()
    limit: int = LIMIT_DEFAULT
    offset: int = 0
    include_total: bool = True
    max_credits: int | None = None

    @property
    def page(self) -> int:
        """The number of the page that `offset` falls into, from 1."""
        return self.offset // self.limit + 1


def parse_query(document: dict[str, Any]) -> RecordQuery:
    """The query in a `POST /api/v1/query` body; raises InvalidRequest with a reason for each refused field."""
    problems = Problems()
    for key in document:
        if key in PLANNED_KEYS:
            problems.add(key, PLANNED_KEYS[key])
        elif key not in QUERY_KEYS:
            problems.add(key, unknown(key, QUERY_KEYS, what="field"))
    max_credits = _max_credits(document.get("max_credits"), problems)
    limit = _whole(document.get("limit", LIMIT_DEFAULT), "limit", 1, LIMIT_MAX, problems)
    query = RecordQuery(
        conditions=_filters(document.get("filters"), problems),
        fields=_fields(document.get("fields"), problems),
        sort=_sort(document.get("sort"), problems),
        limit=_paid_for(limit, max_credits),
        offset=_whole(document.get("offset", 0), "offset", 0, OFFSET_MAX, problems),
        include_total=_boolean(document.get("include_total", True), "include_total", problems),
        max_credits=max_credits,
    )
    problems.raise_any()
    return query


def parse_search(parameters: dict[str, list[str]], *, download: bool = False) -> RecordQuery:
    """The query in the parameters of `GET /search` or `/download`; raises InvalidRequest with a reason for each."""
    problems = Problems()
    allowed = ("q", "limit", "max_credits") if download else ("q", "limit", "offset", "include_total", "max_credits")
    first = _first(parameters, allowed, problems)
    default, highest = (DOWNLOAD_LIMIT_DEFAULT, DOWNLOAD_LIMIT_MAX) if download else (SEARCH_LIMIT_DEFAULT, LIMIT_MAX)
    max_credits = _max_credits(_digits(first.get("max_credits"), None), problems)
    query = RecordQuery(
        words=_words(first.get("q"), problems),
        keys=_keys(first.get("q", "")),
        limit=_paid_for(_whole(_digits(first.get("limit"), default), "limit", 1, highest, problems), max_credits),
        offset=_whole(_digits(first.get("offset"), 0), "offset", 0, OFFSET_MAX, problems),
        include_total=_boolean(_flag(first.get("include_total")), "include_total", problems),
        max_credits=max_credits,
    )
    problems.raise_any()
    return query


def parse_person(given: str, parameters: dict[str, list[str]]) -> tuple[str, int | None]:
    """(id, max_credits) of `GET /person/{id}`: a record's UUID or its source's own id, case-sensitive, and what it may
    cost. Raises InvalidRequest."""
    problems = Problems()
    first = _first(parameters, ("max_credits",), problems)
    max_credits = _max_credits(_digits(first.get("max_credits"), None), problems)
    try:
        values.text_of(given, characters_max=PERSON_ID_CHARACTERS_MAX)
    except Refused as refusal:
        problems.add("id", str(refusal))
    problems.raise_any()
    return given, max_credits


def _first(parameters: dict[str, list[str]], allowed: tuple[str, ...], problems: Problems) -> dict[str, str]:
    """The one value of each parameter; unknown and repeated ones are noted."""
    for key, given in parameters.items():
        if key not in allowed:
            problems.add(key, unknown(key, allowed, what="parameter"))
        elif len(given) > 1:
            problems.add(key, "is given more than once")
    return {key: given[0] for key, given in parameters.items() if given}


def _max_credits(given: Any, problems: Problems) -> int | None:
    return None if given is None else _whole(given, "max_credits", 1, MAX_CREDITS_MAX, problems)


def _paid_for(limit: int, max_credits: int | None) -> int:
    """As many of `limit` records as never cost more than `max_credits`."""
    return limit if max_credits is None else min(limit, affordable(max_credits))


def words_of(text: str) -> tuple[str, ...]:
    """The words of `text` as the text index holds them: lower case, cut at ASCII characters that are not alphanumeric."""
    normalised = unicodedata.normalize("NFC", text).lower()
    return tuple(dict.fromkeys(word for word in re.split(r"[\x00-\x2f\x3a-\x60\x7b-\x7f\s]+", normalised) if word))


def _words(given: str | None, problems: Problems) -> tuple[str, ...]:
    if given is None:
        problems.add("q", "is required: the words to look for, e.g. ?q=Acme")
        return ()
    try:
        words = words_of(values.text_of(given, characters_max=WORDS_CHARACTERS_MAX))
    except Refused as refusal:
        problems.add("q", str(refusal))
        return ()
    if not words:
        problems.add("q", "must contain at least one letter or digit")
    if len(words) > WORDS_MAX:
        problems.add("q", f"must have at most {WORDS_MAX} different words, it has {len(words)}")
    return words


def _keys(given: str) -> tuple[str, ...]:
    """What was searched for as a source's id or a phone, when it may be one: one word with a digit, or written like a phone."""
    text = given.strip()
    digits = re.sub(r"[^0-9]", "", text, flags=re.ASCII)
    like_a_phone = PHONE_DIGITS_MIN <= len(digits) <= PHONE_DIGITS_MAX and re.fullmatch(
        r"[+(]?[0-9][0-9 ().+/-]*", text
    )
    if not digits or (len(text.split()) > 1 and not like_a_phone):
        return ()
    return (text, "+" + digits.removeprefix("00")) if like_a_phone else (text,)


def _digits(given: str | None, default: int | None) -> Any:
    if given is None:
        return default
    return int(given) if re.fullmatch(r"-?[0-9]{1,12}", given) else given


def _flag(given: str | None) -> Any:
    return True if given is None else {"true": True, "false": False}.get(given.lower(), given)


def _whole(given: Any, path: str, lowest: int, highest: int, problems: Problems) -> int:
    if isinstance(given, bool) or not isinstance(given, int):
        problems.add(path, f"must be a whole number from {lowest:,} to {highest:,}")
    elif not lowest <= given <= highest:
        problems.add(path, f"must be from {lowest:,} to {highest:,}")
    else:
        return given
    return max(lowest, 1)


def _boolean(given: Any, path: str, problems: Problems) -> bool:
    if not isinstance(given, bool):
        problems.add(path, "must be true or false")
        return True
    return given


def _fields(given: Any, problems: Problems) -> tuple[Field, ...]:
    if given is None:
        return DEFAULT_FIELDS
    if not isinstance(given, list) or not given:
        problems.add("fields", "must be a list of at least one field name")
        return DEFAULT_FIELDS
    if len(given) > len(FIELDS):
        problems.add("fields", f"must name at most {len(FIELDS)} fields")
        return DEFAULT_FIELDS
    chosen: dict[str, Field] = {}
    for index, name in enumerate(given):
        path = f"fields[{index}]"
        if not isinstance(name, str):
            problems.add(path, f"must be a field name, not {values.json_type(name)}")
        elif name not in FIELDS:
            problems.add(path, unknown(name, FIELDS, what="field"))
        elif name in chosen:
            problems.add(path, f'names "{name}" a second time')
        else:
            chosen[name] = FIELDS[name]
    return tuple(chosen.values())


def _sort(given: Any, problems: Problems) -> tuple[SortKey, ...]:
    if given is None:
        return ()
    entries = [given] if isinstance(given, dict) else given
    if not isinstance(entries, list) or not 1 <= len(entries) <= SORT_FIELDS_MAX:
        problems.add("sort", f'must be {{"field", "order"}} or a list of 1 to {SORT_FIELDS_MAX} of them')
        return ()
    keys: dict[str, SortKey] = {}
    for index, entry in enumerate(entries):
        path = "sort" if isinstance(given, dict) else f"sort[{index}]"
        key = _sort_key(entry, path, problems)
        if key is None:
            continue
        if key.field.name in keys:
            problems.add(f"{path}.field", f'names "{key.field.name}" a second time')
        keys[key.field.name] = key
    return tuple(keys.values())


def _sort_key(entry: Any, path: str, problems: Problems) -> SortKey | None:
    if not isinstance(entry, dict):
        problems.add(path, 'must be an object such as {"field": "created_date", "order": "desc"}')
        return None
    for key in entry:
        if key not in ("field", "order"):
            problems.add(f"{path}.{key}", unknown(key, ("field", "order"), what="key"))
    name, order = entry.get("field"), entry.get("order", "asc")
    if order not in ("asc", "desc"):
        problems.add(f"{path}.order", 'must be "asc" or "desc"')
    if not isinstance(name, str):
        problems.add(f"{path}.field", f"must be a field name; allowed: {', '.join(SORTABLE)}")
        return None
    if name not in SORTABLE:
        problems.add(f"{path}.field", unknown(name, SORTABLE, what="sort field"))
        return None
    return SortKey(FIELDS[name], descending=order == "desc")


def _filters(given: Any, problems: Problems) -> tuple[Condition | MetadataCondition, ...]:
    if given is None:
        return ()
    if not isinstance(given, dict):
        problems.add("filters", f"must be an object of field names and values, not {values.json_type(given)}")
        return ()
    conditions: list[Condition | MetadataCondition] = []
    for name, wanted in given.items():
        path = f"filters.{name}"
        if name.startswith(METADATA_PREFIX):
            conditions.extend(_metadata(name.removeprefix(METADATA_PREFIX), wanted, path, problems))
        elif name == "metadata":
            problems.add(path, 'filter one value of it: "metadata.<path>", e.g. "metadata.zip"')
        elif name not in FILTERABLE:
            problems.add(path, unknown(name, (*FILTERABLE, "metadata.<path>"), what="field"))
        else:
            conditions.extend(_field_conditions(FIELDS[name], wanted, path, problems))
    if len(conditions) > CONDITIONS_MAX:
        problems.add("filters", f"must have at most {CONDITIONS_MAX} conditions")
    return tuple(conditions)


def _field_conditions(field: Field, wanted: Any, path: str, problems: Problems) -> list[Condition]:
    if not isinstance(wanted, dict):
        operator = "in" if isinstance(wanted, list) else "eq"
        condition = _condition(field, operator, wanted, path, problems)
        return [condition] if condition else []
    if not wanted:
        problems.add(path, f"must name an operator; allowed: {', '.join(field.operators)}")
    found = []
    for operator, value in wanted.items():
        if operator in field.operators:
            condition = _condition(field, operator, value, f"{path}.{operator}", problems)
            if condition:
                found.append(condition)
        elif any(operator in names for names in OPERATORS.values()):
            allowed = ", ".join(field.operators)
            problems.add(
                f"{path}.{operator}", f'"{operator}" does not work on a {field.kind.value}; allowed: {allowed}'
            )
        else:
            problems.add(f"{path}.{operator}", unknown(operator, field.operators, what="operator"))
    return found


def _condition(field: Field, operator: str, value: Any, path: str, problems: Problems) -> Condition | None:
    if operator != "in":
        try:
            return Condition(field, operator, values.bound_value(field, value))
        except Refused as refusal:
            problems.add(path, str(refusal))
            return None
    bound = _list(value, path, problems, lambda item: values.bound_value(field, item))
    return Condition(field, "in", bound) if bound else None


def _list(value: Any, path: str, problems: Problems, read: Callable[[Any], Value]) -> tuple[Value, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= LIST_VALUES_MAX:
        problems.add(path, f"must be a list of 1 to {LIST_VALUES_MAX:,} values")
        return ()
    found: dict[Value, None] = {}
    for index, item in enumerate(value):
        try:
            found[read(item)] = None
        except Refused as refusal:
            problems.add(f"{path}[{index}]", str(refusal))
    return tuple(found)


def _metadata(path: str, wanted: Any, shown: str, problems: Problems) -> list[MetadataCondition]:
    if isinstance(wanted, dict) and len(wanted) == 1 and set(wanted) <= set(EQUALITY):
        wanted = next(iter(wanted.values()))
    if isinstance(wanted, dict):
        problems.add(shown, f"metadata has the operators {' and '.join(EQUALITY)}, one at a time")
        return []
    try:
        _check_path(path)
        if not isinstance(wanted, list):
            return [MetadataCondition(path, (_metadata_value(wanted),))]
    except Refused as refusal:
        problems.add(shown, str(refusal))
        return []
    found = _list(wanted, shown, problems, _metadata_value)
    return [MetadataCondition(path, found)] if found else []


def _check_path(path: str) -> None:
    parts = values.text_of(path, characters_max=METADATA_PATH_CHARACTERS_MAX).split(".")
    if not all(parts) or len(parts) > PATH_PARTS_MAX:
        raise Refused(f"must name a path of 1 to {PATH_PARTS_MAX} parts, e.g. metadata.address.zip")


def _metadata_value(value: Any) -> str:
    if isinstance(value, int | float):
        raise Refused('must be a string: metadata keeps every value as it was written, e.g. "02458"')
    text = values.text_of(value)
    if not text:
        raise Refused("must not be an empty string")
    return text
