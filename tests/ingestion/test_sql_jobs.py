"""Dumps from the command to the store: the right table, once, whoever wrote the dump."""

import json
from pathlib import Path
from typing import Any

import pytest

from ingestion import jobs
from ingestion.formats.batches import EmptyFile
from ingestion.formats.sql_dump import SqlTable
from ingestion.mapping import NothingMappable
from ingestion.table_choice import UnknownTable, chosen, scored
from tests.ingestion.files import written
from tests.ingestion.stored import counts, found, loaded, mark
from tests.ingestion.test_ingest_command import ingest

MYSQL = """/* sample */
CREATE TABLE `Artist` (`ArtistId` INT NOT NULL, `Name` NVARCHAR(120));
CREATE TABLE `Customer` (
    `CustomerId` INT NOT NULL, `FirstName` NVARCHAR(40), `LastName` NVARCHAR(20), `Company` NVARCHAR(80),
    `Address` NVARCHAR(70), `City` NVARCHAR(40), `Country` NVARCHAR(40), `PostalCode` NVARCHAR(10), `Phone` NVARCHAR(24),
    `Email` NVARCHAR(60), CONSTRAINT `PK` PRIMARY KEY (`CustomerId`)
);
INSERT INTO `Artist` (`ArtistId`, `Name`) VALUES (1, N'Guns N'' Roses'), (2, N'Zoë'), (3, N'Ann');
INSERT INTO `Customer` (`CustomerId`, `FirstName`, `LastName`, `Company`, `Address`, `City`, `Country`, `PostalCode`,
    `Phone`, `Email`) VALUES
    (1, N'Luís', N'Gonçalves', N'Embraer', N'Av. Faria Lima, 2170', N'{m}', N'Brazil', N'02227', N'+55 (12) 3923-5555',
     N'Luis@example.com'),
    (2, N'Leonie', N'O''Hara', NULL, N'Straße 34', N'{m}', N'Germany', N'70174', NULL, N'leonie@example.com');
"""
POSTGRESQL = """--
-- PostgreSQL database dump
--
CREATE TABLE public.customer (customer_id integer, first_name text, last_name text, company text, address text, city text,
    country text, postal_code text, phone text, email text);
COPY public.customer (customer_id, first_name, last_name, company, address, city, country, postal_code, phone, email)
    FROM stdin;
1	Luís	Gonçalves	Embraer	Av. Faria Lima, 2170	{m}	Brazil	02227	+55 (12) 3923-5555	luis@example.com
2	Leonie	O'Hara	\\N	Straße 34	{m}	Germany	70174	\\N	leonie@example.com
\\.
"""


@pytest.mark.usefixtures("stores")
def test_the_customers_of_a_dump_are_loaded_and_a_second_dump_adds_none(tmp_path: Path) -> None:
    city = mark()
    first = loaded(written(tmp_path, "mysql.sql", MYSQL.format(m=city)))
    second = loaded(written(tmp_path, "postgresql.sql", POSTGRESQL.format(m=city)))
    assert (first.format, counts(first), counts(second)) == ("sql", (2, 2, 0, 0), (2, 0, 2, 0))
    shown = ("user_id", "name", "email", "phone", "address", "country", "metadata")
    assert [tuple(row[name] for name in shown) for row in found("city", city)] == [
        ("1", "Luís Gonçalves", "luis@example.com", "+551239235555", "Av. Faria Lima, 2170", "BRA",
         '{"Company":"Embraer","PostalCode":"02227"}'),
        ("2", "Leonie O'Hara", "leonie@example.com", "", "Straße 34", "DEU", '{"PostalCode":"70174"}'),
    ]  # fmt: skip


@pytest.mark.usefixtures("stores")
def test_the_command_names_the_other_tables_and_takes_the_one_that_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, "dump.sql", MYSQL.format(m=mark()))
    _, out, _ = ingest(path, "--dry-run")
    assert "Of 2 tables Customer is read; --table chooses another: Artist (3 rows)." in " ".join(out.split())
    assert ingest(path)[0] == 0
    code, out, _ = ingest(path, "--table", "ARTIST", "--json")
    answer: dict[str, Any] = json.loads(out)[0]
    assert (code, answer["read"], answer["table"]) == (0, 3, "Artist")
    code, out, _ = ingest(path, "--table", "nobody", "--json")
    assert (code, json.loads(out)[0]["error"]["code"]) == (2, "UNKNOWN_TABLE")


@pytest.mark.usefixtures("stores")
def test_a_table_that_was_loaded_is_skipped_and_another_of_the_file_is_not(tmp_path: Path) -> None:
    path = written(tmp_path, "dump.sql", MYSQL.format(m=mark()))
    states = [
        json.loads(ingest(path, "--json", *options)[1])[0]["state"]
        for options in ((), ("--table", "Customer"), ("--table", "Artist"), ("--table", "Artist"))
    ]
    assert states == ["done", "skipped", "done", "skipped"]


@pytest.mark.usefixtures("stores")
def test_a_stopped_table_is_taken_up_by_itself_alone(tmp_path: Path, small_blocks: None) -> None:
    lines = "".join(f"INSERT INTO a (id,name) VALUES ({n},'Ann {mark()}');\n" for n in range(60))
    path = written(tmp_path, "dump.sql", lines + "INSERT INTO b (id,name) VALUES (1,'Bo');\n")
    stopped = jobs.run(jobs.inspect(path, table="a"), should_stop=lambda: True)
    other = jobs.run(jobs.inspect(path, table="b"))
    again = jobs.run(jobs.inspect(path, table="a"))
    assert (other.pk == stopped.pk, again.pk == stopped.pk) == (False, True)
    assert (counts(other)[0], counts(again)) == (1, (60, 60, 0, 0))


@pytest.mark.usefixtures("stores")
def test_a_table_of_a_file_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownTable, match="csv, which has no tables"):
        jobs.inspect(written(tmp_path, "a.csv", "id,name\n1,Ann\n"), table="people")


def people(name: str, rows: int) -> SqlTable:
    return SqlTable(name, rows, {"id": ["1"], "name": ["Ann"], "email": ["ann@example.com"]})


def test_the_table_that_says_most_is_the_best_then_the_one_with_more_rows() -> None:
    names = SqlTable("genres", 5000, {"id": ["1"], "name": ["Rock"]})
    lengths = SqlTable("lengths", 5000, {"length": ["1"]})
    best = scored([lengths, names, people("staff", 8), people("customers", 59), people("nobody", 0)])
    assert [table.name for table in best] == ["customers", "staff", "genres", "lengths", "nobody"]


@pytest.mark.parametrize("wanted", ["public.people", "PUBLIC.People", "people"])
def test_a_table_is_found_with_or_without_its_schema(wanted: str) -> None:
    tables = scored([people("public.people", 1), people("public.others", 5)])
    assert chosen(tables, wanted=wanted, path="a.sql").name == "public.people"


def test_a_name_that_two_schemas_have_is_refused() -> None:
    with pytest.raises(UnknownTable, match="several of that name"):
        chosen(scored([people("a.people", 1), people("b.people", 1)]), wanted="people", path="a.sql")


def test_a_dump_without_rows_or_without_people_is_refused() -> None:
    with pytest.raises(EmptyFile):
        chosen(scored([people("people", 0)]), wanted="", path="a.sql")
    with pytest.raises(NothingMappable, match=r"lengths \(5 rows\)"):
        chosen(scored([SqlTable("lengths", 5, {"length": ["1"]})]), wanted="", path="a.sql")
