"""The fields of a record as customers see them: the allow-list that every identifier in our SQL comes from."""

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Kind(Enum):
    """What a field holds; decides its operators, how a value is checked and the ClickHouse type it is bound as."""

    TEXT = "string"
    UUID = "uuid"
    DATE = "date"
    DATETIME = "datetime"
    NUMBER = "number"
    LIST = "array"
    OBJECT = "object"


EQUALITY = ("eq", "in")
RANGES = ("gt", "gte", "lt", "lte")

OPERATORS: MappingProxyType[Kind, tuple[str, ...]] = MappingProxyType(
    {
        Kind.TEXT: EQUALITY,
        Kind.UUID: EQUALITY,
        Kind.DATE: EQUALITY + RANGES,
        Kind.DATETIME: EQUALITY + RANGES,
        Kind.NUMBER: EQUALITY + RANGES,
        Kind.LIST: (),
        Kind.OBJECT: (),
    }
)

CLICKHOUSE_TYPES: MappingProxyType[Kind, str] = MappingProxyType(
    {
        Kind.TEXT: "String",
        Kind.UUID: "UUID",
        Kind.DATE: "Date32",
        Kind.DATETIME: "DateTime64(3,'UTC')",
        # The column's own type: as Float64, 0.9 would equal no stored Float32.
        Kind.NUMBER: "Float32",
    }
)


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its public name is its column's name.

    `json` and `csv` are SQL expressions over the column; `fast` says that a filter on it is answered from an index;
    `fold` is how values are stored ("lower", "upper" or as they are), so that a filter finds them whatever its case.
    """

    name: str
    kind: Kind
    json: str
    csv: str
    description: str
    fast: bool = False
    fold: str = ""

    @property
    def operators(self) -> tuple[str, ...]:
        return OPERATORS[self.kind]

    @property
    def sortable(self) -> bool:
        return self.kind not in (Kind.LIST, Kind.OBJECT)

    @property
    def filterable(self) -> bool:
        return bool(self.operators)


def _text(name: str, description: str, *, fast: bool = False, fold: str = "") -> Field:
    # Text columns are never NULL in the store; an empty one means "not given", which JSON says with null.
    return Field(name, Kind.TEXT, f"nullIf({name}, '')", name, description, fast, fold)


_FIELDS = (
    Field("id", Kind.UUID, "id", "id", "The record's own id; the same record keeps it for ever.", fast=True),
    _text("user_id", "The id that the record had in its source.", fast=True),
    _text("email", "E-mail address, lower case.", fast=True, fold="lower"),
    _text("name", "Full name."),
    _text("phone", "Telephone number, +<country><number> where the country is known.", fast=True),
    _text("address", "Street address."),
    _text("city", "City."),
    _text("country", "ISO 3166 alpha-3 country code.", fast=True, fold="upper"),
    Field(
        "created_date", Kind.DATE, "created_date", "created_date", "The day the source created the record.", fast=True
    ),
    _text("status", "Status, lower case.", fast=True, fold="lower"),
    Field(
        "metadata",
        Kind.OBJECT,
        "if(metadata = '', '{}', metadata)",
        "if(metadata = '', '{}', metadata)",
        'Everything else that the source said, each value as text; filter one value of it with "metadata.<path>".',
    ),
    Field(
        "data_quality_score",
        Kind.NUMBER,
        "data_quality_score",
        "data_quality_score",
        "Weighted share of valid, filled fields, 0 to 1.",
    ),
    Field(
        "validation_errors",
        Kind.LIST,
        "validation_errors",
        "arrayStringConcat(validation_errors, ';')",
        "Columns whose value did not pass its check.",
    ),
    _text("source_file", "Name of the file that the record came from."),
    Field("ingested_at", Kind.DATETIME, "ingested_at", "ingested_at", "When the record was loaded (UTC)."),
)

FIELDS: MappingProxyType[str, Field] = MappingProxyType({field.name: field for field in _FIELDS})
FILTERABLE: tuple[str, ...] = tuple(field.name for field in _FIELDS if field.filterable)
SORTABLE: tuple[str, ...] = tuple(field.name for field in _FIELDS if field.sortable)
DEFAULT_FIELDS: tuple[Field, ...] = _FIELDS

# The table's own sort key: reading in this order needs no sort, and `id` makes it total, so pages do not overlap.
STORED_ORDER: tuple[str, ...] = ("country", "status", "created_date", "id")

METADATA_PREFIX = "metadata."
