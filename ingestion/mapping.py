"""From a file's columns to the master schema, in this order: the table of aliases, nested names, members of lists, fuzzy header
match, the shape of the values. Pure.
"""

import itertools
import re
import unicodedata
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from rapidfuzz import fuzz, process

from config.errors import DomainError
from ingestion.aliases import ALIASES, ID_PARENTS, LIST_TARGETS, LIST_VALUES, NEUTRAL_PARENTS, OTHERS, STATE_NAMES
from ingestion.fields import IDENTIFYING, NAME_PARTS
from ingestion.inversions import written_last_first
from ingestion.shapes import US_STATES, looks_like, share_of, share_of_us_states, slash_dates_are_day_first

FUZZY_MIN = 88.0
SHAPE_MIN = 0.8
SAMPLES_SHOWN = 3
# Fields whose values have a shape of their own: a fuzzy name alone does not make one.
SHAPED = frozenset({"email", "phone", "country", "created_date"})

# `terms[-1].phone`, `emails[0]`: how JSON readers name a member of a list.
_MEMBER = re.compile(r"\[(?:-1|0)\](?=\.|$)")

Samples = MappingType[str, Sequence[str]]

KNOWN_HEADER = frozenset(alias.replace("_", "") for names in ALIASES.values() for alias in names)


class NothingMappable(DomainError):
    """422: no column of the file says anything that a record could be found by."""

    status = 422
    code = "NOTHING_MAPPABLE"


@dataclass(frozen=True)
class ColumnMapping:
    """Where a column goes: a master field, a part of the name, or (None) the metadata under its own name.

    `confidence` is 0..1; `how` is one of alias, nested alias, id object, list member, fuzzy, values, saved for a field;
    metadata, list (kept as JSON), in a list (kept with its whole list) for what no field takes.
    """

    source: str
    target: str | None
    confidence: float
    how: str
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mapping:
    """A file's whole mapping. Columns that it does not name go to the metadata.

    `last_first`: names are written "Last, First". `day_first`: 03/04/2024 is the third of April. `region_column`: a column of
    US state codes by which phones without a country code are read. `name_parts`: columns that stay in the metadata and make the
    name of a row whose whole name is empty.
    """

    columns: tuple[ColumnMapping, ...]
    last_first: bool = False
    day_first: bool = False
    region_column: str | None = None
    name_parts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Mapping":
        columns = tuple(ColumnMapping(**{**column, "samples": tuple(column["samples"])}) for column in kept["columns"])
        return cls(**{**kept, "columns": columns, "name_parts": tuple(kept["name_parts"])})


def infer(samples: Samples, *, lists: Samples = MappingProxyType({})) -> Mapping:
    """The mapping of a file, by some values of each text column and of each list (empty ones count). Raises `NothingMappable`.

    Each target takes one column, the best; what is left over goes to the metadata under its own name.
    """
    filled = {name: [value.strip() for value in values if value.strip()] for name, values in samples.items()}
    taken = _found(samples, filled)
    parts = [taken.pop(part)[0] for part in NAME_PARTS if part in taken] if "name" in taken else []
    if taken.keys().isdisjoint((*IDENTIFYING, *NAME_PARTS)):
        names = ", ".join(list(samples)[:10]) or "none"
        raise NothingMappable(
            f"No column is an id, e-mail, name, phone, address or city, so no record could be found again. Columns: {names}."
            " Rename a column in the file's header to one of these."
        )
    by_source = {source: (target, confidence, how) for target, (source, confidence, how) in taken.items()}
    columns = []
    for name, values in filled.items():
        found = by_source.get(name)
        if found is None:
            columns.append(ColumnMapping(name, None, 1.0, "in a list" if in_list(name) else "metadata", shown(values)))
        else:
            target, confidence, how = found
            columns.append(ColumnMapping(name, target, _weighed(target, confidence, values), how, shown(values)))
    columns += [ColumnMapping(name, None, 1.0, "list", shown(values)) for name, values in lists.items()]
    named, dated = taken.get("name"), taken.get("created_date")
    phoned = None if "country" in taken or "phone" not in taken else taken["phone"][0]
    return Mapping(
        columns=tuple(columns),
        last_first=named is not None and written_last_first(filled[named[0]], not_names=US_STATES),
        day_first=dated is not None and slash_dates_are_day_first(filled[dated[0]]),
        region_column=None if phoned is None else _state_column(filled, phoned),
        name_parts=tuple(parts),
    )


def _found(samples: Samples, filled: dict[str, list[str]]) -> "_Taken":
    taken: _Taken = {}
    for step in (
        _by_alias,
        _by_nested_alias,
        partial(_by_id_object, samples),
        _by_list_member,
        _by_fuzzy_name,
        _by_values,
    ):
        for target, source, confidence, how in step(filled, taken):
            if target not in taken and source not in {found[0] for found in taken.values()}:
                taken[target] = (source, confidence, how)
    return taken


def _weighed(target: str, confidence: float, values: list[str]) -> float:
    """A name's promise, less what the values do not keep of it."""
    if target not in ("email", "phone", "country") or not values:
        return confidence
    kept = share_of(target, values)
    return confidence if kept >= SHAPE_MIN else round(confidence * (0.5 + 0.5 * kept), 2)


def in_list(name: str) -> bool:
    """Whether a column is a member of a list, as JSON readers name them."""
    return _MEMBER.search(name) is not None


def words_of(header: str) -> str:
    """A header as lower-case words joined by `_`: "E-Mail Address", "eMailAddress" and "E_MAIL_ADDRESS" agree."""
    plain = unicodedata.normalize("NFKD", header)
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", plain)
    return re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")


_Found = list[tuple[str, str, float, str]]
_Taken = dict[str, tuple[str, float, str]]


def _by_alias(filled: dict[str, list[str]], taken: _Taken) -> _Found:
    by_words: dict[str, str] = {}
    for name in filled:
        by_words.setdefault(words_of(name), name)
        by_words.setdefault(words_of(name).replace("_", ""), name)
    found = []
    for target, aliases in ALIASES.items():
        for alias in aliases:
            source = by_words.get(alias) or by_words.get(alias.replace("_", ""))
            if source is not None:
                found.append((target, source, 1.0, "alias"))
                break
    return found


def _by_nested_alias(filled: dict[str, list[str]], taken: _Taken) -> _Found:
    found = []
    for name in filled:
        parent, dot, last = name.rpartition(".")
        if dot and not in_list(name) and all(words_of(part) in NEUTRAL_PARENTS for part in parent.split(".")):
            found += [
                (target, name, 0.9, "nested alias") for target, aliases in ALIASES.items() if words_of(last) in aliases
            ]
    return found


def _by_id_object(samples: Samples, filled: dict[str, list[str]], taken: _Taken) -> _Found:
    """Of several ids of one record the first that every record has and no two share."""
    rows = max(map(len, samples.values()), default=0)
    for name, values in filled.items():
        parent, dot, last = name.partition(".")
        of_ids = dot and words_of(parent) in ID_PARENTS and "." not in last and not in_list(name)
        if of_ids and rows and len(values) == rows == len(set(values)):
            return [("user_id", name, 0.8, "id object")]
    return []


def _by_list_member(filled: dict[str, list[str]], taken: _Taken) -> _Found:
    """Members of lists that speak of the record itself, from the list that says the most first."""
    by_list: dict[str, _Found] = {}
    for name, values in filled.items():
        match = _MEMBER.search(name)
        parent = name[: match.start()] if match else ""
        last = words_of(name[match.end() :].lstrip(".").rpartition(".")[2]) if match else ""
        owner = words_of(parent.rpartition(".")[2])
        if (
            match is None
            or not values
            or owner in OTHERS
            or any(words_of(part) in OTHERS for part in parent.split("."))
        ):
            continue
        singular = owner[:-2] if owner.endswith("sses") else owner.removesuffix("s")
        of_owner = [target for target in LIST_TARGETS if {owner, singular} & set(ALIASES[target])]
        if not last or last in LIST_VALUES or (of_owner == ["email"] and last == "address"):
            fitting = of_owner
        else:
            fitting = [target for target in LIST_TARGETS if last in ALIASES[target]]
        by_list.setdefault(parent, []).extend((target, name, 0.75, "list member") for target in fitting)
    return [found for several in sorted(by_list.values(), key=len, reverse=True) for found in several]


def _by_fuzzy_name(filled: dict[str, list[str]], taken: _Taken) -> _Found:
    found = []
    choices = {alias: target for target, aliases in ALIASES.items() for alias in aliases if len(alias) > 3}
    for name, values in filled.items():
        if "." in name or in_list(name):
            continue
        best = process.extractOne(words_of(name), choices.keys(), scorer=fuzz.ratio, score_cutoff=FUZZY_MIN)
        if best is None:
            continue
        target = choices[best[0]]
        if target in SHAPED and not looks_like(target, values, SHAPE_MIN):
            continue
        found.append((target, name, round(best[1] / 100, 2), "fuzzy"))
    return sorted(found, key=lambda match: -match[2])


def _by_values(filled: dict[str, list[str]], taken: _Taken) -> _Found:
    found = []
    for target in ("email", "phone", "country"):
        for name, values in filled.items():
            if target not in taken and not in_list(name) and looks_like(target, values, SHAPE_MIN, by_shape_alone=True):
                found.append((target, name, 0.7, "values"))
    return found


def _state_column(filled: dict[str, list[str]], phone: str) -> str | None:
    """A column of US states that stands where the phone stands: in the same list, or in none."""
    match = _MEMBER.search(phone)
    place = phone[: match.end()] if match else ""
    for name, values in filled.items():
        last = words_of(name[len(place) :]) if name.startswith(place) else ""
        if last in STATE_NAMES and share_of_us_states(values) > 0.9:
            return name
    return None


def shown(values: Sequence[str]) -> tuple[str, ...]:
    """A few different values as an operator reads them."""
    readable = ("".join(c if c.isprintable() else " " for c in value[:60]) for value in dict.fromkeys(values) if value)
    return tuple(itertools.islice(readable, SAMPLES_SHOWN))
