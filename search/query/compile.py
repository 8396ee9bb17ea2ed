"""Compiles a validated `RecordQuery` into `(sql, parameters)` for ClickHouse.

Identifiers come from `search.query.fields` alone and values travel beside the SQL as bound parameters, so nothing that
a customer sends can become part of the statement.

Answers leave ClickHouse as finished JSON: its Template format writes each row as the object that the customer gets
(metadata spliced in as the JSON it already is) and closes with one line that counts the rows.

The total of a search is a statement of its own: ClickHouse's `exact_rows_before_limit` undercounts when it reads in the
order of the sort key and stops early, and makes every column of every matching row be read.
"""

from dataclasses import dataclass, field
from functools import lru_cache

from search.query.fields import CLICKHOUSE_TYPES, FIELDS, STORED_ORDER, Field, Kind
from search.query.request import Condition, MetadataCondition, RecordQuery

Parameter = str | int | float | list[str] | list[str | float]

_COMPARISONS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
# The column that stands for the expression under the text index of `records`.
WORDS_EXPRESSION = "words"

_JSON_SETTINGS = (
    "date_time_output_format = 'iso', output_format_json_escape_forward_slashes = 0, "
    "output_format_json_quote_64bit_integers = 0, format_template_rows_between_delimiter = ',', "
    r"format_template_resultset_format = '${data:None}\n${rows:Escaped}'"
)
_CSV_SETTINGS = "date_time_output_format = 'iso', format_csv_null_representation = ''"


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with `{p0:Type}` placeholders, and what to bind to them."""

    sql: str
    parameters: dict[str, Parameter]


@dataclass(slots=True)
class _Binder:
    """Hands out placeholders and keeps what is bound to them."""

    parameters: dict[str, Parameter] = field(default_factory=dict)

    def bind(self, value: Parameter, clickhouse_type: str) -> str:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"{{{name}:{clickhouse_type}}}"


def compile_json(query: RecordQuery) -> Statement:
    """The statement whose answer is JSON objects joined by commas, then a line with their number."""
    binder = _Binder()
    where = _where(query, binder)
    sql = (
        f"SELECT {_columns(query.fields)} FROM records{where} ORDER BY {_order(query)} "
        f"LIMIT {binder.bind(query.limit, 'UInt64')}{_offset(query, binder)} FORMAT Template SETTINGS "
        f"{_row_format(query.fields)}, {_JSON_SETTINGS}"
    )
    return Statement(sql, binder.parameters)


def compile_count(query: RecordQuery) -> Statement:
    """The statement whose answer is the number of records that match, whatever the limit."""
    binder = _Binder()
    return Statement(f"SELECT count() FROM records{_where(query, binder)} FORMAT TSV", binder.parameters)


def compile_csv(query: RecordQuery) -> Statement:
    """The statement whose answer is CSV rows without a header line."""
    binder = _Binder()
    where = _where(query, binder)
    columns = ", ".join(f"{one.csv} AS c{index}" for index, one in enumerate(query.fields))
    sql = (
        f"SELECT {columns} FROM records{where} ORDER BY {_order(query)} "
        f"LIMIT {binder.bind(query.limit, 'UInt64')}{_offset(query, binder)} FORMAT CSV SETTINGS {_CSV_SETTINGS}"
    )
    return Statement(sql, binder.parameters)


def compile_person(column: str, value: str) -> Statement:
    """The statement that finds one record by `id` (a UUID) or `user_id`; of several, the best and newest."""
    if column not in ("id", "user_id"):
        raise ValueError(f"persons are looked up by id or user_id, not by {column}")
    binder = _Binder()
    one = FIELDS[column]
    placeholder = binder.bind(value, CLICKHOUSE_TYPES[one.kind])
    fields = tuple(FIELDS.values())
    sql = (
        f"SELECT {_columns(fields)} FROM records WHERE {column} = {placeholder} "
        "ORDER BY data_quality_score DESC, ingested_at DESC, id ASC LIMIT 1 FORMAT Template SETTINGS "
        f"{_row_format(fields)}, {_JSON_SETTINGS}"
    )
    return Statement(sql, binder.parameters)


@lru_cache(maxsize=256)
def _columns(fields: tuple[Field, ...]) -> str:
    # c0, c1, …: an alias equal to a column's name would replace that column in WHERE and ORDER BY.
    return ", ".join(f"{one.json} AS c{index}" for index, one in enumerate(fields))


@lru_cache(maxsize=256)
def _row_format(fields: tuple[Field, ...]) -> str:
    members = (
        f'"{one.name}":${{c{index}:{"Raw" if one.kind is Kind.OBJECT else "JSON"}}}' for index, one in enumerate(fields)
    )
    return f"format_template_row_format = '{{{','.join(members)}}}'"


def _where(query: RecordQuery, binder: _Binder) -> str:
    parts = [_condition(one, binder) for one in query.conditions]
    if query.words:
        words = f"hasAllTokens({WORDS_EXPRESSION}, {binder.bind(list(query.words), 'Array(String)')})"
        parts.append(_words_or_keys(words, binder.bind(list(query.keys), "Array(String)")) if query.keys else words)
    return f" WHERE {' AND '.join(parts)}" if parts else ""


def _words_or_keys(words: str, keys: str) -> str:
    # Each way by an index of its own: joined by OR in one condition they would read the whole table.
    ways = (words, f"user_id IN {keys}", f"phone IN {keys}")
    return f"id IN ({' UNION ALL '.join(f'SELECT id FROM records WHERE {way}' for way in ways)})"


def _condition(one: Condition | MetadataCondition, binder: _Binder) -> str:
    if isinstance(one, MetadataCondition):
        return _metadata(one, binder)
    kind = CLICKHOUSE_TYPES[one.field.kind]
    if isinstance(one.value, tuple):
        return f"{one.field.name} IN {binder.bind(list(one.value), f'Array({kind})')}"
    return f"{one.field.name} {_COMPARISONS[one.operator]} {binder.bind(one.value, kind)}"


def _metadata(one: MetadataCondition, binder: _Binder) -> str:
    # "a.b" is the value under the name "a.b", as flattened input leaves it, or b inside of a.
    ways = [binder.bind(one.path, "String")]
    parts = one.path.split(".")
    if len(parts) > 1:
        ways.append(", ".join(binder.bind(part, "String") for part in parts))
    wanted = f"IN {binder.bind(list(one.values), 'Array(String)')}"
    tests = [f"JSONExtractString(metadata, {way}) {wanted}" for way in ways]
    return tests[0] if len(tests) == 1 else f"({' OR '.join(tests)})"


def _order(query: RecordQuery) -> str:
    if not query.sort:
        return ", ".join(STORED_ORDER)
    keys = [f"{key.field.name} {'DESC' if key.descending else 'ASC'}" for key in query.sort]
    if all(key.field.name != "id" for key in query.sort):
        keys.append("id ASC")
    return ", ".join(keys)


def _offset(query: RecordQuery, binder: _Binder) -> str:
    return f" OFFSET {binder.bind(query.offset, 'UInt64')}" if query.offset else ""
