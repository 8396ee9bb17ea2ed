"""Which table of a dump is loaded: the one that is asked for, else the one that says most about people. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ingestion.fields import NAME_PARTS, WEIGHTS
from ingestion.formats.batches import EmptyFile, RefusedFile
from ingestion.formats.sql_dump import SqlTable
from ingestion.mapping import Mapping, NothingMappable, infer

NAMES_SHOWN = 20


class UnknownTable(RefusedFile):
    code = "UNKNOWN_TABLE"


@dataclass(frozen=True)
class ScoredTable:
    """A table of a dump; `score` is 0..1, the weighted share of the master schema that its columns fill."""

    name: str
    rows: int
    score: float


def scored(tables: Sequence[SqlTable]) -> list[ScoredTable]:
    """The tables, the best first: by what they say, and among those that say about the same by how many rows they have."""
    found = [ScoredTable(table.name, table.rows, round(_score(table), 2)) for table in tables]
    return sorted(found, key=_rank, reverse=True)


def _rank(table: ScoredTable) -> float:
    # Cubed, so that a table of names alone, however long, does not pass a short one with e-mails and addresses.
    return table.score**3 * math.log10(10 + table.rows) if table.rows else 0.0


def chosen(tables: Sequence[ScoredTable], *, wanted: str, path: str) -> ScoredTable:
    """The table named `wanted`, with or without its schema, in any case; without a name the best.

    Raises `UnknownTable`, `EmptyFile` when no table has rows, `NothingMappable` when none says anything about anybody.
    """
    if wanted:
        for same in (str, str.casefold, _without_schema):
            named = [table for table in tables if same(table.name) == same(wanted)]
            if len(named) == 1:
                return named[0]
        raise UnknownTable(f"{path} has no table '{wanted}', or several of that name. Its tables: {listed(tables)}.")
    if not any(table.rows for table in tables):
        raise EmptyFile(f"{path} holds no row of any table: there is nothing to load.")
    if not tables[0].score:
        raise NothingMappable(
            f"No table of {path} has an id, e-mail, name, phone, address or city. Its tables: {listed(tables)}."
            " Choose one with --table when you know better."
        )
    return tables[0]


def listed(tables: Sequence[ScoredTable]) -> str:
    """Tables by name with their rows, the first NAMES_SHOWN of them."""
    shown = [f"{table.name[:100]} ({table.rows:,} rows)" for table in tables[:NAMES_SHOWN]]
    more = len(tables) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "") or "none"


def _score(table: SqlTable) -> float:
    try:
        mapping = infer(table.samples)
    except NothingMappable:
        return 0.0
    return sum(weight * _filled(mapping, name) for name, weight in WEIGHTS.items()) / sum(WEIGHTS.values())


def _filled(mapping: Mapping, field: str) -> float:
    targets = (field, *NAME_PARTS) if field == "name" else (field,)
    return max(
        (column.confidence for column in mapping.columns if column.target in targets and column.samples), default=0
    )


def _without_schema(name: str) -> str:
    return name.casefold().rpartition(".")[2]
