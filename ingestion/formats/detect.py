"""What a file is: by its content first, by its name second, or by what the operator says."""

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ingestion.formats.batches import Reader, UnknownFormat
from ingestion.formats.compression import compression_of, content_name, open_content, refuse_nested
from ingestion.formats.delimited import DelimitedReader, Dialect, sniff
from ingestion.formats.encoding import Utf8Source, detect_encoding
from ingestion.formats.excel_rows import ChosenSheet, ExcelReader, choose_sheet
from ingestion.formats.json_rows import JsonLinesReader, JsonReader
from ingestion.formats.json_wrapper import Wrapped, find_records
from ingestion.formats.parquet_probe import probe
from ingestion.formats.parquet_rows import ParquetReader
from ingestion.formats.sql_dump import SqlDialect, SqlReader, looks_like_sql, sql_dialect
from ingestion.formats.sqlite_rows import MAGIC as SQLITE_MAGIC
from ingestion.formats.sqlite_rows import SqliteReader
from ingestion.formats.xml_guard import declared_encoding
from ingestion.formats.xml_record import SAMPLE_BYTES as XML_SAMPLE_BYTES
from ingestion.formats.xml_record import find_record
from ingestion.formats.xml_rows import XmlReader

FORMATS = ("csv", "tsv", "json", "jsonl", "xml", "parquet", "xlsx", "xls", "sql", "sqlite")
SAMPLE_BYTES = 128 * 1024
_OLE = b"\xd0\xcf\x11\xe0"
_TABLES = {"parquet": b"PAR1", "xlsx": b"PK\x03\x04", "xls": _OLE, "sqlite": SQLITE_MAGIC}
_BINARY = (
    (b"PK\x03\x04", "an Excel workbook or another Office document"),
    (b"PAR1", "a Parquet file"),
    (b"PARE", "an encrypted Parquet file"),
    (_OLE, "an old Excel workbook"),
    (b"%PDF", "a PDF document"),
)
_HTML = re.compile(r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class DetectedFormat:
    """A file's format and everything its reader must know; `as_json` can be kept and `from_json` gives the same again."""

    format: str
    encoding: str
    dialect: Dialect | None = None
    compression: str | None = None  # as the file was found; its reader looks again
    choice: str = (
        ""  # what of the file is read: the path of XML's repeating element, a workbook's sheet, a database's table
    )
    header: int = 0  # which of the sheet's filled rows is its header
    records: Wrapped | None = None  # where a JSON document keeps its records, when they are not the document itself
    sql: SqlDialect | None = None

    @property
    def table(self) -> str:
        """Which table is read of what has several, else ""."""
        if self.sql is not None:
            return self.sql.table
        return self.choice if self.format == "sqlite" else ""

    def reader(self, path: Path) -> Reader:
        if self.dialect is not None:
            return DelimitedReader(path, encoding=self.encoding, dialect=self.dialect)
        if self.format == "parquet":
            return ParquetReader(path)
        if self.format in ("xlsx", "xls"):
            return ExcelReader(path, sheet=ChosenSheet(self.choice, self.header))
        if self.format == "sqlite":
            return SqliteReader(path, table=self.choice)
        if self.format == "xml":
            return XmlReader(path, encoding=self.encoding, record=self.choice)
        if self.sql is not None:
            return SqlReader(path, encoding=self.encoding, dialect=self.sql)
        if self.format == "jsonl":
            return JsonLinesReader(path, encoding=self.encoding)
        return JsonReader(path, encoding=self.encoding, array_at=self.records.at if self.records else None)

    def as_json(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "encoding": self.encoding,
            "dialect": self.dialect.as_json() if self.dialect else None,
            "compression": self.compression,
            "choice": self.choice,
            "header": self.header,
            "records": asdict(self.records) if self.records else None,
            "sql": self.sql.as_json() if self.sql else None,
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "DetectedFormat":
        dialect = kept["dialect"]
        if dialect is not None:
            dialect = Dialect(**{**dialect, "columns": tuple(dialect["columns"])})
        records = Wrapped(**kept["records"]) if kept.get("records") else None
        sql = SqlDialect(**kept["sql"]) if kept.get("sql") else None
        compression, choice, header = kept.get("compression"), kept.get("choice", ""), kept.get("header", 0)
        return cls(kept["format"], kept["encoding"], dialect, compression, choice, header, records, sql)


def detect(
    path: Path, *, wanted: str = "auto", not_utf8_at: int | None, known_header: frozenset[str], sheet: str = ""
) -> DetectedFormat:
    """Looks at the beginning of a file. `wanted` other than "auto" settles the format, `sheet` a workbook's sheet.

    Raises `RefusedFile` subclasses.
    """
    if wanted != "auto" and wanted not in FORMATS:
        raise UnknownFormat(f"The format '{wanted}' is not known. Choose one of: auto, {', '.join(FORMATS)}.")
    with open_content(path) as file:
        head = file.read(SAMPLE_BYTES)
    compression = compression_of(path)
    if compression is not None:
        refuse_nested(path, head)
    table = _table(head)
    if sheet and table not in ("xlsx", "xls"):
        raise UnknownFormat(f"{path} is no workbook and has no sheets. Leave --sheet out.")
    if table and wanted in ("auto", table):
        found = DetectedFormat(table, "binary", compression=compression)
        if table == "parquet":
            probe(path)
        if table in ("parquet", "sqlite"):
            return found
        chosen_sheet = choose_sheet(path, known_header=known_header, wanted=sheet)
        return replace(found, choice=chosen_sheet.name, header=chosen_sheet.header)
    _refuse_binary(path, head)
    if wanted in _TABLES:
        raise UnknownFormat(f"{path} is not of the format '{wanted}'. Leave the format to be found out.")
    encoding = declared_encoding(head) or detect_encoding(path, not_utf8_at)
    with Utf8Source(path, encoding) as source:
        sample = source.read(SAMPLE_BYTES).decode("utf-8", "replace")
    if not sample.strip():
        raise UnknownFormat(f"{path} holds only blank space: there is nothing to load.")
    chosen = wanted if wanted != "auto" else _by_content(path, sample)
    if chosen == "xml":
        with Utf8Source(path, encoding) as source:
            sample = source.read(XML_SAMPLE_BYTES).decode("utf-8", "ignore")
        record = find_record(sample, known_header=known_header)
        return DetectedFormat(chosen, encoding, compression=compression, choice=record)
    if chosen in ("json", "jsonl") and wanted != "jsonl" and sample.lstrip()[0] == "{":
        records = find_records(path, encoding)
        if records is not None:
            return DetectedFormat("json", encoding, compression=compression, records=records)
    if chosen == "sql":
        return DetectedFormat(chosen, encoding, compression=compression, sql=sql_dialect(sample))
    if chosen in ("json", "jsonl"):
        return DetectedFormat(chosen, encoding, compression=compression)
    if len(sample) >= SAMPLE_BYTES // 2:
        sample = sample[: sample.rfind("\n") + 1] or sample
    fixed = "\t" if chosen == "tsv" else None
    dialect = sniff(sample, known_header=known_header, delimiter=fixed)
    return DetectedFormat("tsv" if dialect.delimiter == "\t" else "csv", encoding, dialect, compression)


def _table(head: bytes) -> str:
    """Which of the formats that are no text a file is by its first bytes, "" for none; archives are unpacked by now."""
    return next((name for name, magic in _TABLES.items() if head.startswith(magic)), "")


def _refuse_binary(path: Path, head: bytes) -> None:
    for magic, what in _BINARY:
        if head.startswith(magic):
            raise UnknownFormat(
                f"{path} is {what}. These formats are read: {', '.join(FORMATS)}. Convert or unpack it first."
            )
    controls = sum(head.count(bytes([byte])) for byte in range(1, 32) if byte not in (9, 10, 12, 13, 27, 30, 31))
    if controls > len(head) // 20:
        raise UnknownFormat(f"{path} is not text. These formats are read: {', '.join(FORMATS)}.")


def _by_content(path: Path, sample: str) -> str:
    start = sample.lstrip()
    if start[0] == "[" and (start[1:].lstrip()[:1] in ("{", "[", "]", "")):
        return "json"
    if start[0] == "{":
        return "jsonl" if _first_line_is_json(start) else "json"
    if start[0] == "<":
        if _HTML.match(start):
            raise UnknownFormat(f"{path} looks like an HTML page. These formats are read: {', '.join(FORMATS)}.")
        return "xml"
    suffix = PurePosixPath(content_name(path)).suffix.lower()
    if suffix == ".sql" or looks_like_sql(start):
        return "sql"
    if suffix in (".tsv", ".tab"):
        return "tsv"
    return "csv"


def _first_line_is_json(text: str) -> bool:
    line = text.split("\n", 1)[0]
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        # A first line that is only begun is a pretty-printed object; one that is broken inside is a bad line of many.
        lines = [part for part in text.split("\n")[:20] if part.strip()]
        return len(lines) > 1 and sum(part.lstrip()[:1] == "{" and part.rstrip()[-1:] == "}" for part in lines) > 1
    return True
