"""Test data that is the same for the same seed."""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from ingestion import generator
from ingestion.formats.compression import open_content
from ingestion.generator import COLUMNS, HEAD_ROWS, KNOWN_ID, write


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    path = tmp_path_factory.mktemp("generator") / "a.csv"
    write(path, rows=1000, dirt=0)
    return table(path)


def test_write_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first, second, other = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.csv"
    size = write(first, rows=500, seed=7)
    write(second, rows=500, seed=7)
    write(other, rows=500, seed=8)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() != other.read_bytes()
    assert size == first.stat().st_size


def test_more_rows_begin_with_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "BLOCK_ROWS", 400)
    few, many = tmp_path / "few.csv", tmp_path / "many.csv"
    write(few, rows=500)
    write(many, rows=1000)
    assert many.read_bytes().startswith(few.read_bytes())


def test_the_known_id_is_there_once_and_about_acme(thousand: list[dict[str, str]]) -> None:
    known = [row for row in thousand if row["id"] == KNOWN_ID]
    assert len(known) == 1
    assert known[0]["company"] == "Acme"
    assert known[0]["email"].endswith("@acme.example.com")


def test_the_first_rows_are_the_people_of_acme(thousand: list[dict[str, str]]) -> None:
    assert sum("acme" in row["email"].split("@")[1].split(".") for row in thousand[:HEAD_ROWS]) == HEAD_ROWS
    assert {row["country"] for row in thousand[:HEAD_ROWS]} == {"USA"}
    assert {row["created_date"][:4] for row in thousand[:HEAD_ROWS]} == {"2024"}


def test_rows_are_as_wide_as_the_header(thousand: list[dict[str, str]]) -> None:
    assert len(thousand) == 1000
    assert tuple(thousand[0]) == COLUMNS
    assert all(None not in row and None not in row.values() for row in thousand)


def test_some_rows_are_copies(thousand: list[dict[str, str]]) -> None:
    assert 0 < 1000 - len({tuple(row.values()) for row in thousand}) < 50


def test_later_rows_repeat_some_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "BLOCK_ROWS", 1000)
    monkeypatch.setattr(generator, "DUPLICATES", 0.0)
    monkeypatch.setattr(generator, "FAR_DUPLICATES", 0.05)
    write(tmp_path / "a.csv", rows=2000, dirt=0)
    rows = [tuple(row.values()) for row in table(tmp_path / "a.csv")]
    first = set(rows[HEAD_ROWS:1000])
    assert len(first) == 1000 - HEAD_ROWS
    assert 20 < sum(row in first for row in rows[1000:]) < 100


def test_dirt_breaks_a_share_of_the_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows=2000, dirt=0.5)
    rows = table(tmp_path / "a.csv")
    short = sum(None in row.values() for row in rows)
    assert 100 < short < 300
    assert sum(row["email"] == "not-an-address" for row in rows) > 50


def test_lines_of_json_hold_the_same_records(tmp_path: Path, thousand: list[dict[str, str]]) -> None:
    write(tmp_path / "a.jsonl", rows=1000, file_format="jsonl", dirt=0)
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == thousand


def test_the_command_packs_what_it_writes(tmp_path: Path) -> None:
    out = StringIO()
    options: dict[str, Any] = {"rows": 100, "seed": 7, "stdout": out}
    call_command("generate_records", out=tmp_path / "a.csv.zst", **options)
    call_command("generate_records", out=tmp_path / "b.csv", compress="gz", **options)
    write(tmp_path / "c.csv", rows=100, seed=7)
    assert open_content(tmp_path / "a.csv.zst").read() == (tmp_path / "c.csv").read_bytes()
    assert open_content(tmp_path / "b.csv").read() == (tmp_path / "c.csv").read_bytes()
    assert "100 records" in out.getvalue()
