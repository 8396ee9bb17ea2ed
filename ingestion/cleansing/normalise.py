"""`normalise`: raw text columns and a mapping to clean records and rejected rows. Pure and vectorised."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from ingestion import countries
from ingestion.cleansing import statuses
from ingestion.cleansing.dates import parse_dates
from ingestion.cleansing.metadata import Column, canonical_json, joined
from ingestion.cleansing.phones import normalise_phones
from ingestion.cleansing.text import blank_out, tidy
from ingestion.fields import FIELDS, IDENTIFYING, LENGTH_MAX, NAME_PARTS, WEIGHTS
from ingestion.formats.batches import holds_json, is_list_member
from ingestion.inversions import INVERTED, NOT_INVERTED, TURNED
from ingestion.mapping import Mapping, words_of
from ingestion.shapes import US_STATES

_TYPES: dict[str, pa.DataType] = {"created_date": pa.date32()}
_CLEAN: list[Any] = [
    pa.field("position", pa.int64()),
    pa.field("id", pa.binary(16)),
    *(pa.field(name, _TYPES.get(name, pa.string())) for name in FIELDS),
    pa.field("metadata", pa.string()),
    pa.field("data_quality_score", pa.float32()),
    pa.field("validation_errors", pa.list_(pa.string())),
]
_REJECTED: list[Any] = [
    pa.field("position", pa.int64()),
    pa.field("column", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("message", pa.string()),
]
CLEAN_SCHEMA = pa.schema(_CLEAN)
REJECTED_SCHEMA = pa.schema(_REJECTED)

_SCORES = np.array([points / 100 for points in range(101)], dtype=np.float32)

_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_ -]*")

# Cannot occur in tidied text, so two different records never read the same.
_SEPARATOR = "\x1f"
_EMAIL = (
    r"^[a-z0-9!#$%&'*+/=?^_`{|}~\p{L}\p{N}-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~\p{L}\p{N}-]+)*"
    r"@(?:[a-z0-9\p{L}\p{N}](?:[a-z0-9\p{L}\p{N}-]{0,61}[a-z0-9\p{L}\p{N}])?\.)+[a-z\p{L}][a-z0-9\p{L}-]{1,62}$"
)
# What nearly every address looks like; the full pattern, several times slower, sees only the others.
_PLAIN_EMAIL = r"(?-u)^[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*@(?:[a-z0-9]+(?:-+[a-z0-9]+)*\.)+[a-z]{2,}$"


@dataclass
class _Work:
    """The columns on their way: `values` by field, `bad` masks by field with their reason, what stays as metadata.

    `beside`: members of lists that no field takes. Their whole list is in the metadata, they are read and not kept again.
    """

    rows: int
    values: dict[str, pl.Series] = field(default_factory=dict)
    bad: list[tuple[str, str, pl.Series]] = field(default_factory=list)
    metadata: dict[str, Column] = field(default_factory=dict)
    beside: dict[str, pl.Series] = field(default_factory=dict)

    def refuse(self, name: str, reason: str, where: pl.Series, source: str, given: pl.Series) -> None:
        """Marks values of a field as bad: kept in the metadata as given, blanked in their column."""
        if not where.any():
            return
        self.bad.append((name, reason, where))
        self.keep(source, given, where)

    def keep(self, source: str, given: pl.Series, where: pl.Series) -> None:
        """Keeps the given texts at `where` in the metadata under their source's name."""
        kept = _blank(given, ~where), False
        self.metadata[source] = joined(self.metadata[source], kept) if source in self.metadata else kept


def normalise(batch: pa.RecordBatch, mapping: Mapping) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Clean records (CLEAN_SCHEMA) and rejected rows (REJECTED_SCHEMA); `position` is the row's place in `batch`.

    Every row of `batch` is in exactly one of the two. Columns are texts under their source's names, "" or null for empty; one
    marked JSON_COLUMN holds JSON arrays. A column that the mapping does not name goes to the metadata, unless it is marked
    LIST_MEMBER: then its list is there already.
    """
    work = _Work(batch.num_rows)
    targets = {column.source: column.target for column in mapping.columns if column.target}
    given: dict[str, tuple[str, pl.Series]] = {}
    for place, column in enumerate(batch.schema):
        values = tidy(batch.column(place))
        is_json = holds_json(column)
        target = None if is_json else targets.get(column.name)
        if is_list_member(column) and (target is None or target in given):
            work.beside[column.name] = values
        elif target is None or target in given:
            _add_metadata(work, column.name, values, is_json=is_json)
        else:
            given[target] = (column.name, values)
    _set_fields(work, given, mapping)
    return _assemble(work)


def _add_metadata(work: _Work, name: str, values: pl.Series, *, is_json: bool) -> None:
    if name in work.metadata:  # the same path holds text in some rows and a list in others
        texts = values if not is_json else work.metadata[name][0]
        work.beside[name] = texts
        work.metadata[name] = joined(work.metadata[name], (values, is_json))
    else:
        work.metadata[name] = (values, is_json)


def _set_fields(work: _Work, given: dict[str, tuple[str, pl.Series]], mapping: Mapping) -> None:
    empty = pl.Series([""], dtype=pl.String).new_from_index(0, work.rows)
    sources: dict[str, str] = {}
    for name in (*FIELDS, *NAME_PARTS):
        source, values = given.get(name, (name, empty))
        sources[name] = source
        values = blank_out(values)
        if name in given and name in LENGTH_MAX:
            too_long = values.str.len_bytes() > LENGTH_MAX[name]
            work.refuse(name, "too_long", too_long, source, values)
            values = _blank(values, too_long)
        work.values[name] = values
    _set_name(work, mapping)
    for name, rule in (("email", _set_email), ("country", _set_country), ("status", _set_status)):
        if name in given:
            rule(work, sources[name])
    if "phone" in given:
        _set_phone(work, sources["phone"], given, mapping)
    _set_date(work, sources["created_date"], mapping)


def _set_name(work: _Work, mapping: Mapping) -> None:
    names = work.values["name"]
    parts = [work.values.pop(part) for part in NAME_PARTS]
    if mapping.last_first:
        turn = names.str.contains(INVERTED) & ~names.str.contains(NOT_INVERTED)
        names = names.zip_with(~turn, names.str.replace(INVERTED, TURNED))
    if mapping.name_parts and (names == "").any():
        given = [_text_column(work, source) for source in mapping.name_parts]
        parts = [part for part in given if part is not None]
    if any((part != "").any() for part in parts):
        frame = pl.DataFrame([part.alias(str(place)) for place, part in enumerate(parts)])
        joined = frame.select(pl.concat_str(pl.all(), separator=" ")).to_series()
        joined = joined.str.replace_all(" {2,}", " ").str.strip_chars(" ")
        names = names.zip_with(names != "", joined)
    work.values["name"] = names


def _set_email(work: _Work, source: str) -> None:
    given = work.values["email"]
    values = given.str.to_lowercase().str.strip_prefix("mailto:")
    bad = (values != "") & ~values.str.contains(_PLAIN_EMAIL)
    if bad.any():
        bad = bad.scatter(bad.arg_true(), ~values.filter(bad).str.contains(_EMAIL))
    work.refuse("email", "invalid", bad, source, given)
    work.values["email"] = _blank(values, bad)


def _set_country(work: _Work, source: str) -> None:
    _set_by_words(work, "country", source, countries.alpha_3, "unknown")


def _set_status(work: _Work, source: str) -> None:
    _set_by_words(work, "status", source, statuses.canonical, "unknown")


def _set_by_words(work: _Work, name: str, source: str, canonical: Callable[[str], str | None], reason: str) -> None:
    """Values that are few and many times the same: each different one is looked up once."""
    given = work.values[name]
    words = given.unique()
    known = [canonical(word) or "" if word else "" for word in words]
    values = given.replace_strict(words, pl.Series(known, dtype=pl.String), return_dtype=pl.String)
    work.refuse(name, reason, (given != "") & (values == ""), source, given)
    work.values[name] = values


def _set_phone(work: _Work, source: str, given: dict[str, tuple[str, pl.Series]], mapping: Mapping) -> None:
    values = work.values["phone"]
    regions = work.values["country"]
    states = _text_column(work, mapping.region_column)
    if states is not None:
        in_us = states.is_in(list(US_STATES)) & (regions == "")
        regions = regions.zip_with(~in_us, pl.Series(["USA"], dtype=pl.String).new_from_index(0, work.rows))
    phones = normalise_phones(values, regions)
    work.refuse("phone", "invalid", phones.bad, source, values)
    if phones.cut.any():
        work.keep(source, values, phones.cut)
    work.values["phone"] = phones.values


def _text_column(work: _Work, column: str | None) -> pl.Series | None:
    """A column that no field has taken, if there is one of that name."""
    if column in work.beside:
        return work.beside[column]
    return work.metadata[column][0] if column in work.metadata else None


def _set_date(work: _Work, source: str, mapping: Mapping) -> None:
    given = work.values["created_date"]
    days = parse_dates(given, day_first=mapping.day_first)
    work.refuse("created_date", "invalid", (given != "") & days.is_null(), source, given)
    work.values["created_date"] = days


def _assemble(work: _Work) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    frame = pl.DataFrame({name: work.values[name] for name in FIELDS})
    frame = frame.with_columns(metadata=canonical_json(work.metadata, work.rows))
    by_words = _by_words(work.metadata)
    same = all(by_words.get(name) is column for name, column in work.metadata.items())
    frame = frame.with_columns(said=pl.col("metadata") if same else canonical_json(by_words, work.rows))
    frame = frame.with_columns(data_quality_score=_score(frame)).with_row_index("position")
    errors = _errors(work)
    usable = frame.select(pl.any_horizontal([pl.col(name) != "" for name in IDENTIFYING])).to_series()
    rejected = pa.RecordBatch.from_pylist([], schema=REJECTED_SCHEMA)
    if not usable.all():
        rejected = _rejected(usable, errors)
        errors = errors.filter(usable.to_arrow())
        frame = frame.filter(usable)
    columns: dict[str, Any] = {"id": _md5(_identity(frame)), "validation_errors": errors}
    table = frame.drop("said").to_arrow(compat_level=pl.CompatLevel.oldest())
    for name in table.column_names:
        column = table.column(name).cast(CLEAN_SCHEMA.field(name).type)
        columns[name] = column.combine_chunks()
    return pa.RecordBatch.from_arrays([columns[name] for name in CLEAN_SCHEMA.names], schema=CLEAN_SCHEMA), rejected


def _by_words(metadata: dict[str, Column]) -> dict[str, Column]:
    """The metadata under names that do not depend on who wrote it: PostalCode, "Postal Code" and postal_code are one.

    Only plain names are rewritten. A row that has a value under two of them keeps both as they are: what a record is called by
    depends on nothing but the record.
    """
    groups: dict[str, list[str]] = {}
    for name in metadata:
        groups.setdefault(words_of(name) if _PLAIN_NAME.fullmatch(name) else name, []).append(name)
    result: dict[str, Column] = {}
    for words, names in groups.items():
        if len(names) == 1:
            result[words] = metadata[names[0]]
            continue
        filled = pl.DataFrame([(metadata[name][0] != "").alias(name) for name in names]).sum_horizontal()
        alone = filled <= 1
        for name in names:
            values, is_json = metadata[name]
            for key, kept in ((words, _blank(values, ~alone)), (name, _blank(values, alone))):
                result[key] = joined(result[key], (kept, is_json)) if key in result else (kept, is_json)
    return result


def _identity(frame: pl.DataFrame) -> pl.Series:
    """The text that makes a record itself: every field and what the metadata says, nothing of where it came from."""
    day = pl.col("created_date").cast(pl.String).fill_null("")
    parts = [day if name == "created_date" else pl.col(name) for name in FIELDS]
    return frame.select(pl.concat_str([*parts, pl.col("said")], separator=_SEPARATOR)).to_series()


def _md5(texts: pl.Series) -> Any:
    """The 16 bytes that are both record_hash and id, as a fixed-size binary array."""
    md5 = hashlib.md5
    digests = b"".join([md5(text, usedforsecurity=False).digest() for text in texts.cast(pl.Binary).to_list()])
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(texts), [None, pa.py_buffer(digests)])


def _score(frame: pl.DataFrame) -> pl.Series:
    """0..1: the weighted share of fields that are filled, and so valid, for a bad value is blank by now."""
    points = [
        (pl.col(name).is_not_null() if name == "created_date" else pl.col(name) != "").cast(pl.Int32) * weight
        for name, weight in WEIGHTS.items()
    ]
    total = frame.select(pl.sum_horizontal(points)).to_series().to_numpy()
    # Looked up, for a vectorised division may round differently from one batch size to another.
    return pl.Series(_SCORES[total])


def _errors(work: _Work) -> Any:
    """For each row the list of `field:reason`, in the order of the fields, as a list array."""
    order = {name: place for place, name in enumerate(FIELDS)}
    bad = sorted(work.bad, key=lambda mark: order[mark[0]])
    lists: Any = pa.ListArray
    if not bad:
        return lists.from_arrays(np.zeros(work.rows + 1, dtype=np.int32), pa.array([], pa.string()))
    marks = np.stack([where.to_numpy() for _, _, where in bad], axis=1)
    offsets = np.concatenate(([0], np.cumsum(marks.sum(axis=1)))).astype(np.int32)
    labels = pa.array([f"{name}:{reason}" for name, reason, _ in bad], pa.string())
    return lists.from_arrays(offsets, labels.take(np.nonzero(marks)[1]))


def _rejected(usable: pl.Series, errors: Any) -> pa.RecordBatch:
    rows = []
    for position in (~usable).arg_true():
        found = errors[position].as_py()
        message = "no valid id, e-mail, name, phone, address or city" + (f" ({', '.join(found)})" if found else "")
        rows.append({"position": position, "column": "", "reason": "NOTHING_USABLE", "message": message})
    return pa.RecordBatch.from_pylist(rows, schema=REJECTED_SCHEMA)


def _blank(values: pl.Series, where: pl.Series) -> pl.Series:
    """The values with "" at `where`."""
    if not where.any():
        return values
    return values.zip_with(~where, pl.Series([""], dtype=pl.String).new_from_index(0, len(values)))
