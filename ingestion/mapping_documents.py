"""A mapping as operators read, edit and keep it: a small JSON document. Pure.

    {"columns": {"Contact": "email", "Full name": "name", "Shoe size": null}, "last_first": false, "day_first": false,
     "region_column": null, "name_parts": []}

A column with null, and any that is not named, goes to the metadata.
"""

from dataclasses import dataclass
from typing import Any

from config.errors import DomainError
from ingestion.fields import FIELDS, IDENTIFYING, NAME_PARTS
from ingestion.mapping import ColumnMapping, Mapping, Samples, in_list, shown

COLUMNS_MAX = 1000
_TARGETS = (*FIELDS, *NAME_PARTS)
_KEYS = ("columns", "last_first", "day_first", "region_column", "name_parts")


class InvalidMapping(DomainError):
    """422: a mapping document that says something impossible."""

    status = 422
    code = "INVALID_MAPPING"


class MappingDoesNotFit(DomainError):
    """422: the file lacks columns that the mapping names."""

    status = 422
    code = "MAPPING_DOES_NOT_FIT"


@dataclass(frozen=True)
class MappingDocument:
    """A mapping without the values of any one file. `targets`: {column: field or part of the name, or None}."""

    targets: dict[str, str | None]
    last_first: bool = False
    day_first: bool = False
    region_column: str | None = None
    name_parts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "columns": self.targets,
            "last_first": self.last_first,
            "day_first": self.day_first,
            "region_column": self.region_column,
            "name_parts": list(self.name_parts),
        }

    @classmethod
    def of(cls, mapping: Mapping) -> "MappingDocument":
        """What is worth keeping of a file's mapping. Members of lists are named only where a field takes them."""
        targets = {
            column.source: column.target
            for column in mapping.columns
            if column.target is not None or not (column.how == "list" or in_list(column.source))
        }
        return cls(targets, mapping.last_first, mapping.day_first, mapping.region_column, mapping.name_parts)

    @classmethod
    def from_json(cls, value: Any) -> "MappingDocument":
        """Reads a document. Raises `InvalidMapping`, which says what to change."""
        if not isinstance(value, dict) or not isinstance(value.get("columns"), dict):
            raise InvalidMapping('A mapping is an object like {"columns": {"Contact": "email", "Full name": "name"}}.')
        unknown = [key for key in value if key not in _KEYS]
        if unknown:
            raise InvalidMapping(f"A mapping has no '{str(unknown[0])[:100]}'. It has: {', '.join(_KEYS)}.")
        targets: dict[str, Any] = value["columns"]
        _check_targets(targets)
        region, parts = value.get("region_column"), value.get("name_parts") or []
        for key in ("last_first", "day_first"):
            if not isinstance(value.get(key, False), bool):
                raise InvalidMapping(f"'{key}' is true or false.")
        if not (region is None or isinstance(region, str)):
            raise InvalidMapping("'region_column' is a column's name or null.")
        if not (isinstance(parts, list) and all(isinstance(part, str) for part in parts)):
            raise InvalidMapping("'name_parts' is a list of columns' names.")
        return cls(dict(targets), value.get("last_first", False), value.get("day_first", False), region, tuple(parts))

    def applied(self, samples: Samples, *, lists: Samples) -> Mapping:
        """The mapping of a file with these columns. Raises `MappingDoesNotFit` with the names of those that it lacks."""
        wanted = [name for name, target in self.targets.items() if target is not None]
        wanted += [name for name in (self.region_column, *self.name_parts) if name is not None and name not in wanted]
        missing = [name for name in wanted if name not in samples]
        if missing:
            raise MappingDoesNotFit(
                f"The mapping names columns that the file does not have: {_listed(missing)}. It has: {_listed(list(samples))}."
                " Give another mapping, or save a new one from a dry run of this file.",
                details={"missing": missing[:COLUMNS_MAX]},
            )
        columns = [
            ColumnMapping(name, self.targets.get(name), 1.0, _how(name, self.targets.get(name)), shown(values))
            for name, values in samples.items()
        ]
        columns += [ColumnMapping(name, None, 1.0, "list", shown(values)) for name, values in lists.items()]
        return Mapping(tuple(columns), self.last_first, self.day_first, self.region_column, self.name_parts)


def _check_targets(targets: dict[str, Any]) -> None:
    if len(targets) > COLUMNS_MAX:
        raise InvalidMapping(f"A mapping names {COLUMNS_MAX:,} columns at most.")
    seen: dict[str, str] = {}
    for name, target in targets.items():
        if target is None:
            continue
        if target not in _TARGETS:
            raise InvalidMapping(
                f"Column '{name[:100]}' cannot become '{str(target)[:100]}'. Choose one of {', '.join(_TARGETS)}, or null."
            )
        if target in seen:
            raise InvalidMapping(
                f"'{seen[target][:100]}' and '{name[:100]}' both become {target}."
                " Keep one; null sends the other to the metadata."
            )
        seen[target] = name
    if seen.keys().isdisjoint((*IDENTIFYING, *NAME_PARTS)):
        raise InvalidMapping("No column becomes an id, e-mail, name, phone, address or city: no record could be found.")
    if "name" in seen and not seen.keys().isdisjoint(NAME_PARTS):
        raise InvalidMapping(
            "A whole name and parts of it exclude each other. List the parts' columns under 'name_parts'."
        )


def _how(name: str, target: str | None) -> str:
    if target is not None:
        return "saved"
    return "in a list" if in_list(name) else "metadata"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(f"'{name[:100]}'" for name in names[:20]) + more
