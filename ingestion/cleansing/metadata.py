"""What maps to nothing, as one canonical JSON object a row: keys sorted, no spaces, empty values left out. Vectorised."""

import json
from collections.abc import Mapping

import polars as pl


def canonical_json(columns: Mapping[str, tuple[pl.Series, bool]], rows: int) -> pl.Series:
    """{key: (tidied texts, whether they are JSON already)} to one JSON object text a row, '{}' when all are empty."""
    parts = []
    for key in sorted(columns):
        values, is_json = columns[key]
        filled = values != ""
        if not filled.any():
            continue
        head = json.dumps(key, ensure_ascii=False) + ":"
        body = head + values if is_json else head + '"' + _escaped(values) + '"'
        parts.append(body if filled.all() else body.zip_with(filled, values))
    if not parts:
        return pl.Series(["{}"], dtype=pl.String).new_from_index(0, rows)
    if len(parts) == 1:
        joined = parts[0]
    else:
        frame = pl.DataFrame([part.alias(str(place)) for place, part in enumerate(parts)])
        empty_to_null = [
            pl.when(pl.col(name) != "").then(pl.col(name)) if (frame[name] == "").any() else pl.col(name)
            for name in frame.columns
        ]
        joined = frame.select(pl.concat_str(empty_to_null, separator=",", ignore_nulls=True)).to_series()
    return "{" + joined.fill_null("") + "}"


def _escaped(values: pl.Series) -> pl.Series:
    """Quotes and backslashes escaped. Control characters need nothing: tidied text has none."""
    if values.str.contains(r'["\\]').any():
        values = values.str.replace_all("\\", "\\\\", literal=True).str.replace_all('"', '\\"', literal=True)
    return values
