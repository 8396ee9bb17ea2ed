"""SQL dumps: the rows of one table, whatever the dialect; nothing is executed, and hostile input ends clearly."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingestion.formats import limits
from ingestion.formats.batches import Batch
from ingestion.formats.sql_dump import SqlReader, sql_dialect, sql_tables
from tests.ingestion.files import detected, written
from tests.ingestion.packing import PACKERS

MYSQL = r"""-- MySQL dump 10.13  Distrib 8.0.36
/*!40101 SET NAMES utf8mb4 */;
DROP TABLE IF EXISTS `people`;
CREATE TABLE `people` (
  `id` int NOT NULL AUTO_INCREMENT,
  `name` varchar(100) DEFAULT 'a, (b); c', -- a comment, with (parentheses
  `e mail` enum('a','b,c') COMMENT 'it''s',
  `token` varbinary(16),
  PRIMARY KEY (`id`),
  KEY `by_name` (`name`,`e mail`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
LOCK TABLES `people` WRITE;
/*!40000 ALTER TABLE `people` DISABLE KEYS */;
INSERT INTO `people` VALUES (1,'O\'Hara','a@b.de',0x416E6E),(2,'it''s \"so\"\\',NULL,_binary 'bin\0ary'),
(3,'line\none\ttab; -- no comment /* none */ # none',N'x',x'ff00');
INSERT IGNORE INTO `people` (`name`,`id`) VALUES ('(par),en',4) , ('100\%',-5.50) ON DUPLICATE KEY UPDATE `id`=VALUES(`id`);
UNLOCK TABLES;
DELIMITER ;;
CREATE TRIGGER `t` BEFORE INSERT ON `people` FOR EACH ROW BEGIN
  INSERT INTO `people` VALUES (99,'ghost',NULL,NULL);
END ;;
DELIMITER ;
REPLACE INTO `people` VALUES (6,'last','z',now());
"""
POSTGRESQL = r"""--
-- PostgreSQL database dump
--
\restrict abc
SET standard_conforming_strings = on;
CREATE TABLE public.people (
    id integer NOT NULL,
    "E Mail" text DEFAULT 'x'::text,
    key character varying(10),
    CONSTRAINT one CHECK ((id > 0))
);
CREATE FUNCTION public.f() RETURNS void LANGUAGE sql AS $body$
  INSERT INTO public.people VALUES (98, 'ghost', 'x');
$body$;
COPY public.people (id, "E Mail", key) FROM stdin;
1	a@b.de	\N
2	tab\there\nline\\end	\x41\102
3		C:\\new
\.
INSERT INTO public.people VALUES (4, 'C:\new''s', E'it\'s\u00e9\n'), (5, $$a 'quoted' $ text$$, $q$x$$y$q$);
INSERT INTO public.people (id, key) OVERRIDING SYSTEM VALUE VALUES (6, 'x'::character varying(10)), (7, NULL::text);
/* outer /* inner */ INSERT INTO public.people VALUES (97, 'ghost', 'x'); */
INSERT INTO ONLY_A_NAME VALUES (1);
"""
SQLITE = r"""PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE IF NOT EXISTS "people"(id INTEGER PRIMARY KEY, [full name] TEXT, `mail` TEXT, blob BLOB);
INSERT INTO people VALUES(1,'O''Hara \ no escape','a@b.de',X'416e6e');
INSERT INTO "people" VALUES(2,replace(replace('two\r\nlines','\r',char(13)),'\n',char(10)),NULL,NULL);
INSERT INTO people VALUES(3,unistr('a\u000ab\\c'),-1.5e-3,NULL);
CREATE TRIGGER t AFTER INSERT ON people BEGIN
  INSERT INTO people VALUES(99,'ghost',NULL,NULL);
  SELECT CASE WHEN 1 THEN 2 END;
  INSERT INTO people VALUES(98,'ghost',NULL,NULL);
END;
INSERT INTO people VALUES(4,'after',NULL,NULL);
COMMIT;
"""


def reader(path: Path, table: str) -> SqlReader:
    found = detected(path)
    assert found.format == "sql"
    assert found.sql is not None
    return SqlReader(path, encoding=found.encoding, dialect=replace(found.sql, table=table))


def read(path: Path, table: str) -> list[Batch]:
    return list(reader(path, table))


def rows(path: Path, table: str = "people") -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if value}
        for batch in read(path, table)
        for row in batch.rows.to_pylist()
    ]


def rejects(path: Path, table: str = "people") -> list[tuple[int, str, str]]:
    return [(one.row, one.reason, one.raw) for batch in read(path, table) for one in batch.rejects]


def tables(path: Path) -> list[tuple[str, int]]:
    found = detected(path)
    assert found.sql is not None
    return [(table.name, table.rows) for table in sql_tables(path, encoding=found.encoding, dialect=found.sql)]


def test_mysql_rows_are_what_a_server_would_hold(tmp_path: Path) -> None:
    assert rows(written(tmp_path, "a.sql", MYSQL)) == [
        {"id": "1", "name": "O'Hara", "e mail": "a@b.de", "token": "Ann"},
        {"id": "2", "name": 'it\'s "so"\\', "token": "bin\0ary"},
        {"id": "3", "name": "line\none\ttab; -- no comment /* none */ # none", "e mail": "x", "token": "x'ff00'"},
        {"id": "4", "name": "(par),en"},
        {"id": "-5.50", "name": "100\\%"},
        {"id": "6", "name": "last", "e mail": "z", "token": "now()"},
    ]


def test_postgresql_rows_are_what_a_server_would_hold(tmp_path: Path) -> None:
    assert rows(written(tmp_path, "a.sql", POSTGRESQL), "public.people") == [
        {"id": "1", "E Mail": "a@b.de"},
        {"id": "2", "E Mail": "tab\there\nline\\end", "key": "AB"},
        {"id": "3", "key": "C:\\new"},
        {"id": "4", "E Mail": "C:\\new's", "key": "it'sé\n"},
        {"id": "5", "E Mail": "a 'quoted' $ text", "key": "x$$y"},
        {"id": "6", "key": "x"},
        {"id": "7"},
    ]


def test_sqlite_rows_are_what_a_database_would_hold(tmp_path: Path) -> None:
    assert rows(written(tmp_path, "a.sql", SQLITE)) == [
        {"id": "1", "full name": "O'Hara \\ no escape", "mail": "a@b.de", "blob": "Ann"},
        {"id": "2", "full name": "two\r\nlines"},
        {"id": "3", "full name": "a\nb\\c", "mail": "-1.5e-3"},
        {"id": "4", "full name": "after"},
    ]


@pytest.mark.parametrize("dump", [MYSQL, POSTGRESQL, SQLITE], ids=["mysql", "postgresql", "sqlite"])
def test_where_blocks_end_changes_nothing(tmp_path: Path, dump: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a.sql", dump)
    name = "public.people" if dump == POSTGRESQL else "people"
    whole = rows(path, name)
    for size in (1, 2, 3, 7, 64, 100):
        monkeypatch.setattr(limits, "BLOCK_BYTES", size)
        assert rows(path, name) == whole


@pytest.mark.parametrize(("dump", "name"), [(MYSQL, "mysql"), (POSTGRESQL, "postgresql"), (SQLITE, "sqlite")])
def test_the_dialect_is_found_by_content(dump: str, name: str) -> None:
    assert sql_dialect(dump).name == name


def test_tables_are_counted_with_those_that_are_empty(tmp_path: Path) -> None:
    text = "CREATE TABLE nobody (id int);\nINSERT INTO a VALUES (1),(2);\nINSERT INTO b VALUES (3);\n"
    text += "INSERT INTO a VALUES (4);\n"
    assert tables(written(tmp_path, "a.sql", text)) == [("a", 3), ("b", 1), ("nobody", 0)]


def test_columns_without_a_list_or_definition_are_numbered(tmp_path: Path) -> None:
    path = written(tmp_path, "a.sql", "INSERT INTO people VALUES (1,'Ann'),(2,'Bo');\n")
    assert rows(path) == [{"column_1": "1", "column_2": "Ann"}, {"column_1": "2", "column_2": "Bo"}]


def test_national_strings_in_many_lines_are_read(tmp_path: Path) -> None:
    text = "INSERT INTO `people` (`Id`, `Name`) VALUES\n    (1, N'Guns N'' Roses'),\n    (2, N'Zoë');\n"
    assert rows(written(tmp_path, "a.sql", text)) == [{"Id": "1", "Name": "Guns N' Roses"}, {"Id": "2", "Name": "Zoë"}]


@pytest.mark.parametrize("packer", PACKERS)
def test_compressed_dumps_are_read(tmp_path: Path, packer: str) -> None:
    assert len(rows(written(tmp_path, "a.sql", PACKERS[packer](MYSQL.encode())))) == 6


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_dumps_in_other_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    assert len(rows(written(tmp_path, "a.sql", MYSQL.encode(encoding)))) == 6


def test_carriage_returns_end_lines_too(tmp_path: Path) -> None:
    text = POSTGRESQL.replace("\n", "\r\n")
    assert [row["id"] for row in rows(written(tmp_path, "a.sql", text), "public.people")] == list("1234567")


GOOD = "INSERT INTO people VALUES (1,'Ann');\n"
HOSTILE = {
    "drop": ("DROP TABLE people;\nDELETE FROM people;\n" + GOOD, 1, []),
    "copy from a program": ("COPY people FROM PROGRAM 'rm -rf /';\nCOPY people TO PROGRAM 'cat';\n" + GOOD, 1, []),
    "copy from a file": ("COPY people FROM '/etc/passwd';\n" + GOOD, 1, []),
    "a shell of psql": ("\\! rm -rf /\n\\i /etc/passwd\n" + GOOD, 1, []),
    "load data": ("LOAD DATA INFILE '/etc/passwd' INTO TABLE people;\n" + GOOD, 1, []),
    "attach": ("ATTACH DATABASE '/etc/passwd' AS x;\n" + GOOD, 1, []),
    "comment in a string": ("INSERT INTO people VALUES (2,'/* -- # $$ ');\n" + GOOD, 2, []),
    "statement in a comment": ("/* " + GOOD + " */ -- " + GOOD + GOOD, 1, []),
    "statement in a string": ("INSERT INTO other VALUES ('x;\n" + GOOD.replace("'", "''") + "');\n" + GOOD, 1, []),
    "statement in a dollar quote": ("DO $x$ " + GOOD + " $x$;\n" + GOOD, 1, []),
    "open quote at the end": (GOOD + "INSERT INTO people VALUES (2,'Bo", 1, ["UNCLOSED_ROW"]),
    "open quote in the middle": ("INSERT INTO people VALUES (2,'Bo);\n" + GOOD, 1, ["UNCLOSED_ROW"]),
    "open quote in a list": ("INSERT INTO people VALUES (2,'Bo),\n(3,'Cy');\n" + GOOD, 1, ["UNCLOSED_ROW"]),
    "apostrophe that is not doubled": ("INSERT INTO people VALUES (2,'O'Bo');\n" + GOOD, 1, ["UNCLOSED_ROW"]),
    "quote too many before a parenthesis": ("INSERT INTO people VALUES (2,'Bo (x)'');\n" + GOOD, 1, ["UNCLOSED_ROW"]),
    "open comment at the end": (GOOD + "/* INSERT INTO people VALUES (2,'Bo');", 1, []),
    "open dollar quote at the end": (GOOD + "INSERT INTO people VALUES (2,$a$Bo", 1, ["UNCLOSED_ROW"]),
    "ragged": ("INSERT INTO people (id,name) VALUES (1,'Ann'),(2),(3,'Bo','x'),();\n", 1, ["RAGGED_ROW"] * 3),
    "strings without a comma": ("INSERT INTO people VALUES (2,'a' 'b' c);\n" + GOOD, 1, ["BAD_VALUE"]),
    "nothing between commas": ("INSERT INTO people VALUES (2,,);\n" + GOOD, 1, ["BAD_VALUE"]),
    "an expression": ("INSERT INTO people VALUES (1+1,'Bo');\n" + GOOD, 1, ["BAD_VALUE"]),
    "an escape beyond Unicode": ("INSERT INTO people VALUES (2,E'\\U00110000');\n" + GOOD, 1, ["BAD_VALUE"]),
    "select": ("INSERT INTO people SELECT * FROM secrets;\n" + GOOD, 1, ["NOT_VALUES"]),
    "copy in csv": ("COPY people FROM stdin WITH (FORMAT csv);\n1,Ann\n\\.\n" + GOOD, 1, ["COPY_FORMAT"]),
    "copy that is cut off": (GOOD + "COPY people FROM stdin;\n2\tBo\n3\tC", 2, ["UNCLOSED_ROW"]),
    "a thousand parentheses": ("INSERT INTO people VALUES (" + "(" * 1000 + ")" * 1000 + ");\n" + GOOD, 1, ["BAD_VALUE"]),
    "more columns than are read": ("INSERT INTO people VALUES (" + "1," * 1000 + "1);\n" + GOOD, 1, ["TOO_MANY_FIELDS"]),
    "nul": ("INSERT INTO people VALUES (2,'B\0o');\n" + GOOD, 2, []),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("block", [7, 8 * 1024 * 1024])
def test_hostile_dumps_end_clearly(tmp_path: Path, case: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text, good, reasons = HOSTILE[case]
    monkeypatch.setattr(limits, "BLOCK_BYTES", block)
    path = written(tmp_path, "a.sql", text)
    assert len(rows(path)) == good
    assert [reason for _, reason, _ in rejects(path)] == reasons


def test_a_row_that_is_not_text_in_the_files_encoding_is_rejected(tmp_path: Path) -> None:
    good = "".join(f"INSERT INTO people VALUES ({n},'Zoë é ü');\n" for n in range(40)).encode()
    path = written(tmp_path, "a.sql", good + b"INSERT INTO people VALUES (99,'\xff\xfe');\n" + good)
    assert len(rows(path)) == 80
    assert rejects(path) == [(41, "INVALID_ENCODING", "(99,'\\xff\\xfe')")]


@pytest.mark.parametrize("filling", ["x", "''", "\\'", "("])
def test_a_literal_longer_than_any_row_costs_itself_alone_and_little_memory(tmp_path: Path, filling: str) -> None:
    long = filling * (24 * 1024 * 1024 // len(filling))
    path = written(tmp_path, "a.sql", f"-- MySQL dump\nINSERT INTO people VALUES (1,'Ann'),(2,'{long}'),(3,'Bo');\n")
    tracemalloc.start()
    assert [row["column_1"] for row in rows(path)] == ["1", "3"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rejects(path)[0][:2] == (2, "ROW_TOO_LONG")
    assert len(rejects(path)[0][2]) == limits.RAW_TEXT_MAX
    assert peak < 64 * 1024 * 1024


def test_a_field_longer_than_any_may_be_is_rejected(tmp_path: Path) -> None:
    text = f"INSERT INTO people VALUES (1,'{'x' * (limits.FIELD_BYTES_MAX + 1)}'),(2,'Bo');\n"
    path = written(tmp_path, "a.sql", text)
    assert [reason for _, reason, _ in rejects(path)] == ["FIELD_TOO_LONG"]
    assert rows(path) == [{"column_1": "2", "column_2": "Bo"}]


def test_a_long_line_of_copy_costs_itself_alone(tmp_path: Path) -> None:
    text = f"COPY people (id, name) FROM stdin;\n1\tAnn\n2\t{'x' * (9 * 1024 * 1024)}\n3\tBo\n\\.\n"
    path = written(tmp_path, "a.sql", text)
    assert [row["id"] for row in rows(path)] == ["1", "3"]
    assert [(row, reason) for row, reason, _ in rejects(path)] == [(2, "ROW_TOO_LONG")]


def test_every_row_has_its_number_and_raw_text(tmp_path: Path) -> None:
    path = written(tmp_path, "a.sql", "INSERT INTO people VALUES (1,'Ann'),(2),( 3 , 'Bo');\n")
    batch = read(path, "people")[0]
    assert (batch.numbers.to_pylist(), batch.raw(1)) == ([1, 3], "( 3 , 'Bo')")
    assert rejects(path) == [(2, "RAGGED_ROW", "(2)")]


def test_mixed_column_lists_keep_every_value_under_its_name(tmp_path: Path) -> None:
    text = "INSERT INTO people (id,name) VALUES (1,'Ann');\nINSERT INTO people (mail,id) VALUES ('a@b.de',2);\n"
    assert rows(written(tmp_path, "a.sql", text)) == [{"id": "1", "name": "Ann"}, {"id": "2", "mail": "a@b.de"}]


def test_a_csv_file_with_words_of_sql_is_no_dump(tmp_path: Path) -> None:
    assert detected(written(tmp_path, "a.csv", "set,name\ninsert into,Ann\ndrop table,Bo\n")).format == "csv"


# Without control characters: so many of them in so small a file would make it no text.
CHARACTERS = st.one_of(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), st.sampled_from("\n\t'\\\""))
TEXTS = st.one_of(st.none(), st.text(CHARACTERS, max_size=12))
TABLE = st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=8)


def as_mysql(value: str | None) -> str:
    if value is None:
        return "NULL"
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def as_postgresql(value: str | None) -> str:
    if value is None:
        return "NULL"
    quoted = value.replace("'", "''")
    return "E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in value else f"'{quoted}'"


def as_sqlite(value: str | None) -> str:
    if value is None:
        return "NULL"
    quoted = value.replace("'", "''")
    return (
        f"replace('{quoted}','\\n',char(10))".replace("\n", "\\n")
        if "\n" in value and "\\" not in value
        else f"'{quoted}'"
    )


def as_copy(value: str | None) -> str:
    if value is None:
        return "\\N"
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


WRITERS = {
    "mysql": ("-- MySQL dump\n", as_mysql, "INSERT INTO `people` (a,b,c) VALUES ({}),\n", ","),
    "postgresql": ("-- PostgreSQL database dump\n", as_postgresql, "INSERT INTO people (a, b, c) VALUES ({});\n", ", "),
    "sqlite": ("PRAGMA foreign_keys=OFF;\n", as_sqlite, "INSERT INTO people(a,b,c) VALUES({});\n", ","),
}


@example([(None, None, "\\")], "sqlite", 5)
@given(TABLE, st.sampled_from([*WRITERS, "copy"]), st.sampled_from([5, 4096]))
def test_what_a_dump_writer_wrote_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str | None, ...]], kind: str, block: int
) -> None:
    if kind == "copy":
        lines = "".join("\t".join(map(as_copy, row)) + "\n" for row in table)
        dump = f"-- PostgreSQL database dump\nCOPY people (a, b, c) FROM stdin;\n{lines}\\.\n"
    else:
        head, write, statement, comma = WRITERS[kind]
        dump = head + "".join(statement.format(comma.join(map(write, row))) for row in table)
        if kind == "mysql":  # one statement of many rows
            dump = dump.replace(",\nINSERT INTO `people` (a,b,c) VALUES ", ",\n") + ";"
    path = written(tmp_path_factory.mktemp("dump"), "a.sql", dump)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_BYTES", block)
        found = [row for batch in read(path, "people") for row in batch.rows.to_pylist()]
    assert [tuple(row[name] for name in "abc") for row in found] == [
        tuple(value or "" for value in row) for row in table
    ]
    assert rejects(path) == []


@given(st.text(st.sampled_from("'\"`\\;(),$-/*#\n \tNab1INSERT"), max_size=80), st.sampled_from([3, 4096]))
def test_noise_ends_as_rows_or_rejects_of_the_same_number(
    tmp_path_factory: pytest.TempPathFactory, noise: str, block: int
) -> None:
    text = "-- a\nINSERT INTO people VALUES (1,'Ann'),(" + noise
    path = written(tmp_path_factory.mktemp("noise"), "a.sql", text)
    counted = dict(tables(path)).get("people")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_BYTES", block)
        assert sum(batch.rows_read for batch in read(path, "people")) == counted
