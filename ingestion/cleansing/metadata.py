"""What maps to nothing, as one canonical JSON object a row: keys sorted, no spaces, empty values left out. Vectorised."""

import json
from collections.abc import Mapping

import polars as pl

# Tidied texts, "" for none, and whether they are JSON already.
Column = tuple[pl.Series, bool]


def canonical_json(columns: Mapping[str, Column], rows: int) -> pl.Series:
    """{key: (tidied texts, whether they are JSON already)} to one JSON object text a row, '{}' when all are empty."""
    frame: dict[str, pl.Series] = {}
    members: list[pl.Expr] = []
    always: list[pl.Expr] = []  # the members, in order, of neighbouring keys that every row has: joined in one pass
    for key in sorted(columns):
        values, is_json = columns[key]
        filled = values != ""
        if not filled.any():
            continue
        frame[key] = values if is_json else _escaped(values)
        name = json.dumps(key, ensure_ascii=False) + ":"
        pieces = [pl.lit(name), pl.col(key)] if is_json else [pl.lit(name + '"'), pl.col(key), pl.lit('"')]
        if filled.all():
            always += [pl.lit(","), *pieces] if always else pieces
            continue
        if always:
            members.append(pl.concat_str(always))
            always = []
        members.append(pl.when(pl.col(key) != "").then(pl.concat_str(pieces)))
    if always:
        members.append(pl.concat_str(always))
    if not members:
        return pl.Series(["{}"], dtype=pl.String).new_from_index(0, rows)
    body = members[0].fill_null("") if len(members) == 1 else pl.concat_str(members, separator=",", ignore_nulls=True)
    return pl.DataFrame(frame).select(pl.concat_str([pl.lit("{"), body, pl.lit("}")])).to_series()


def joined(one: Column, other: Column) -> Column:
    """Two columns of which a row has a value in one at most (of both, the first), as one."""
    if one[1] != other[1]:
        one, other = ((values if is_json else _as_json(values), True) for values, is_json in (one, other))
    return one[0].zip_with(one[0] != "", other[0]), one[1]


def _as_json(values: pl.Series) -> pl.Series:
    """Texts as JSON strings, "" where there is none."""
    quoted = '"' + _escaped(values) + '"'
    return quoted.set(values == "", "")


def _escaped(values: pl.Series) -> pl.Series:
    """Quotes and backslashes escaped. Control characters need nothing: tidied text has none."""
    if values.str.contains(r'["\\]').any():
        for character in ("\\", '"'):
            values = values.str.replace_all(character, "\\" + character, literal=True)
    return values
