"""Generated records as files of every format, byte for byte the same for the same records. Pure.

A broken row is what its format can break: a line or an element that stops in the middle; where the format holds no such
thing, a row of which nothing but the score is left.
"""

import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import IO

import polars as pl
import pyarrow as pa
import pyarrow.parquet

TABLE = "records"
XLSX_ROWS_MAX = 1_048_575
NUMERIC = "score"
INSERT_ROWS = 5_000

Blocks = Iterable[tuple[pl.DataFrame, pl.Series]]

_LONG_AGO = (1980, 1, 1, 0, 0, 0)
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_PARTS = {
    "[Content_Types].xml": (
        f'{_XML}<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{_KIND}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_KIND}.worksheet+xml"/></Types>'
    ),
    "_rels/.rels": (
        f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">'
        f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
    ),
    "xl/workbook.xml": (
        f'{_XML}<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}">'
        '<sheets><sheet name="records" sheetId="1" r:id="rId1"/></sheets></workbook>'
    ),
    "xl/_rels/workbook.xml.rels": (
        f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">'
        f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>'
    ),
}


def write_csv(file: IO[bytes], columns: tuple[str, ...], blocks: Blocks) -> None:
    file.write((",".join(columns) + "\n").encode())
    for frame, broken in blocks:
        quoted = pl.when(pl.col("address").str.contains(",", literal=True)).then('"' + pl.col("address") + '"')
        frame = frame.with_columns(address=quoted.otherwise(pl.col("address")))
        lines = frame.select(pl.concat_str(pl.all(), separator=",")).to_series()
        _write_lines(file, lines, lines.str.head(12), broken)


def write_tsv(file: IO[bytes], columns: tuple[str, ...], blocks: Blocks) -> None:
    file.write(("\t".join(columns) + "\n").encode())
    for frame, broken in blocks:
        lines = frame.select(pl.concat_str(pl.all(), separator="\t")).to_series()
        _write_lines(file, lines, lines.str.head(12), broken)


def write_json(file: IO[bytes], columns: tuple[str, ...], blocks: Blocks) -> None:
    """One array. A broken object is balanced, so that it costs itself alone."""
    separator = b"[\n"
    for frame, broken in blocks:
        lines = frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()
        file.write(separator)
        file.write(lines.zip_with(~broken, lines.str.head(33) + "}").str.join(",\n").item().encode())
        separator = b",\n"
    file.write(b"\n]\n")


def write_jsonl(file: IO[bytes], columns: tuple[str, ...], blocks: Blocks) -> None:
    for frame, broken in blocks:
        lines = frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()
        _write_lines(file, lines, lines.str.head(30), broken)


def write_xml(file: IO[bytes], columns: tuple[str, ...], blocks: Blocks) -> None:
    file.write(b'<?xml version="1.0" encoding="UTF-8"?>\n<records>\n')
    for frame, broken in blocks:
        frame = _escaped(frame)
        inner = [part for name in columns for part in (pl.lit(f"<{name}>"), pl.col(name), pl.lit(f"</{name}>"))]
        lines = frame.select(pl.concat_str([pl.lit("<record>"), *inner, pl.lit("</record>")])).to_series()
        _write_lines(file, lines, lines.str.head(24) + "</record>", broken)
    file.write(b"</records>\n")


def write_parquet(file: IO[bytes], columns: tuple[str, ...], blocks: Blocks) -> None:
    schema = pa.schema([(name, pa.int64() if name == NUMERIC else pa.string()) for name in columns])
    with pa.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for frame, broken in blocks:
            table = _emptied(frame, broken).to_arrow(compat_level=pl.CompatLevel.oldest())
            writer.write_table(table.select(list(columns)).cast(schema))


def write_xlsx(file: IO[bytes], columns: tuple[str, ...], blocks: Blocks) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _PARTS.items():
            archive.writestr(_part(name), text)
        with archive.open(_part("xl/worksheets/sheet1.xml"), "w", force_zip64=True) as sheet:
            sheet.write(f'{_XML}<worksheet xmlns="{_SHEET}"><sheetData>\n'.encode())
            titles = "".join(f'<c t="inlineStr"><is><t>{name}</t></is></c>' for name in columns)
            sheet.write(f"<row>{titles}</row>\n".encode())
            for frame, broken in blocks:
                frame = _escaped(_emptied(frame, broken))
                cells = []
                for name in columns:
                    head, tail = (
                        ("<c><v>", "</v></c>") if name == NUMERIC else ('<c t="inlineStr"><is><t>', "</t></is></c>")
                    )
                    cells += [pl.lit(head), pl.col(name), pl.lit(tail)]
                lines = frame.select(pl.concat_str([pl.lit("<row>"), *cells, pl.lit("</row>")])).to_series()
                sheet.write((lines.str.join("\n").item() + "\n").encode())
            sheet.write(b"</sheetData></worksheet>\n")


def write_mysql(file: IO[bytes], columns: tuple[str, ...], blocks: Blocks) -> None:
    """As mysqldump writes a table: INSERTs of many rows. A broken row has two values."""
    defined = ",\n".join(f"  `{name}` {'int' if name == NUMERIC else 'varchar(255)'} DEFAULT NULL" for name in columns)
    file.write(
        "-- MySQL dump 10.13  Distrib 8.4.0, for Linux (x86_64)\n"
        "/*!40101 SET NAMES utf8mb4 */;\n"
        f"DROP TABLE IF EXISTS `{TABLE}`;\n"
        f"CREATE TABLE `{TABLE}` (\n{defined}\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;\n"
        f"LOCK TABLES `{TABLE}` WRITE;\n".encode()
    )
    for frame, broken in blocks:
        rows = _sql_rows(frame, broken, escape=(("\\", "\\\\"), ("'", "\\'")))
        for start in range(0, len(rows), INSERT_ROWS):
            values = rows.slice(start, INSERT_ROWS).str.join(",").item()
            file.write(f"INSERT INTO `{TABLE}` VALUES {values};\n".encode())
    file.write(b"UNLOCK TABLES;\n")


def write_pgsql(file: IO[bytes], columns: tuple[str, ...], blocks: Blocks) -> None:
    """As pg_dump writes a table: COPY. A broken row has one value."""
    defined = ",\n".join(f"    {name} {'integer' if name == NUMERIC else 'character varying(255)'}" for name in columns)
    file.write(
        "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n\n"
        f"CREATE TABLE public.{TABLE} (\n{defined}\n);\n\n"
        f"COPY public.{TABLE} ({', '.join(columns)}) FROM stdin;\n".encode()
    )
    for frame, broken in blocks:
        frame = frame.select(pl.all().str.replace_all("\\", "\\\\", literal=True))
        lines = frame.select(pl.concat_str(pl.all(), separator="\t")).to_series()
        _write_lines(file, lines, frame[columns[0]], broken)
    file.write(b"\\.\n")


def write_sqlite_dump(file: IO[bytes], columns: tuple[str, ...], blocks: Blocks) -> None:
    """As `.dump` of the sqlite3 shell writes a table: one INSERT a row. A broken row has two values."""
    defined = ", ".join(f"{name} {'INTEGER' if name == NUMERIC else 'TEXT'}" for name in columns)
    file.write(
        f"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE IF NOT EXISTS {TABLE} ({defined});\n".encode()
    )
    for frame, broken in blocks:
        rows = _sql_rows(frame, broken, escape=(("'", "''"),))
        statements = f"INSERT INTO {TABLE} VALUES" + rows + ";\n"
        file.write(statements.str.join("").item().encode())
    file.write(b"COMMIT;\n")


def write_sqlite(file: IO[bytes], columns: tuple[str, ...], blocks: Blocks) -> None:
    """A database of one table, made in the folder for temporary files."""
    defined = ", ".join(f"{name} {'INTEGER' if name == NUMERIC else 'TEXT'}" for name in columns)
    with tempfile.TemporaryDirectory(prefix="generated-") as folder:
        path = Path(folder) / "content"
        with closing(sqlite3.connect(path)) as database:
            database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")
            database.execute(f"CREATE TABLE {TABLE} ({defined})")
            for frame, broken in blocks:
                places = ", ".join("?" * len(columns))
                database.executemany(f"INSERT INTO {TABLE} VALUES ({places})", _emptied(frame, broken).iter_rows())
            database.commit()
        with path.open("rb") as content:
            shutil.copyfileobj(content, file, 1 << 20)


Writer = Callable[[IO[bytes], tuple[str, ...], Blocks], None]
WRITERS: dict[str, Writer] = {
    "csv": write_csv,
    "tsv": write_tsv,
    "json": write_json,
    "jsonl": write_jsonl,
    "xml": write_xml,
    "parquet": write_parquet,
    "xlsx": write_xlsx,
    "mysql": write_mysql,
    "pgsql": write_pgsql,
    "sqlite-dump": write_sqlite_dump,
    "sqlite": write_sqlite,
}
FORMATS = tuple(WRITERS)


def _sql_rows(frame: pl.DataFrame, broken: pl.Series, *, escape: tuple[tuple[str, str], ...]) -> pl.Series:
    """Each row as `('…','…',1)`; a broken one has its first two values alone."""
    for character, written in escape:
        frame = frame.select(pl.all().str.replace_all(character, written, literal=True))
    texts = [name for name in frame.columns if name != NUMERIC]
    frame = frame.with_columns((pl.lit("'") + pl.col(name) + "'").alias(name) for name in texts)
    whole = frame.select("(" + pl.concat_str(pl.all(), separator=",") + ")").to_series()
    cut = frame.select("(" + pl.concat_str(pl.col(frame.columns[:2]), separator=",") + ")").to_series()
    return whole.zip_with(~broken, cut)


def _write_lines(file: IO[bytes], lines: pl.Series, cut: pl.Series, broken: pl.Series) -> None:
    file.write((lines.zip_with(~broken, cut).str.join("\n").item() + "\n").encode())


def _escaped(frame: pl.DataFrame) -> pl.DataFrame:
    text = pl.all()
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.str.replace_all(character, entity, literal=True)
    return frame.select(text)


def _emptied(frame: pl.DataFrame, broken: pl.Series) -> pl.DataFrame:
    names = [name for name in frame.columns if name != NUMERIC]
    return frame.with_columns(pl.when(~broken).then(pl.col(names)).otherwise(pl.lit("")))


def _part(name: str) -> zipfile.ZipInfo:
    part = zipfile.ZipInfo(name, date_time=_LONG_AGO)
    part.compress_type = zipfile.ZIP_DEFLATED
    part.create_system = 3
    return part
