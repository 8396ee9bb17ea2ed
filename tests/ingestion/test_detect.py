"""What a file is taken for, by its content."""

import hashlib
import os
from pathlib import Path

import pytest

from ingestion.formats.batches import EmptyFile, RefusedFile, UnknownFormat, UnreadableFile
from ingestion.formats.encoding import fingerprint
from tests.ingestion.files import detected, rows, written

CASES = [
    ("comma", b"id,email\n1,a@b.de\n", "csv", "utf-8", ","),
    ("semicolon", b"id;email;note\n1;a@b.de;x,y\n2;c@d.de;z\n", "csv", "utf-8", ";"),
    ("tab", b"id\temail\n1\ta@b.de\n", "tsv", "utf-8", "\t"),
    ("pipe", b"id|email\n1|a@b.de\n", "csv", "utf-8", "|"),
    ("bom", b"\xef\xbb\xbfid,email\n1,a@b.de\n", "csv", "utf-8", ","),
    ("utf-16", "id,name\n1,Zoë\n".encode("utf-16"), "csv", "utf-16", ","),
    ("utf-16 without bom", "id,name,city\n1,Ann,Berlin\n".encode("utf-16-le"), "csv", "utf-16-le", ","),
    ("cp1252", "id,name\n1,Zoë Müller\n2,José Núñez\n3,François Lefèvre\n".encode("cp1252"), "csv", "cp1252", ","),
    ("array", b' [\n {"id": 1}]', "json", "utf-8", None),
    ("lines", b'{"id": 1}\n{"id": 2}\n', "jsonl", "utf-8", None),
    ("sql", b"-- a dump\nCREATE TABLE a (b int);\n", "sql", "utf-8", None),
    ("one object over lines", b'{\n "id": 1\n}\n', "json", "utf-8", None),
]


@pytest.mark.parametrize(
    ("content", "name", "encoding", "delimiter"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_detect_goes_by_content(
    tmp_path: Path, content: bytes, name: str, encoding: str, delimiter: str | None
) -> None:
    found = detected(written(tmp_path, "export.dat", content))
    assert found.format == name
    assert found.encoding == encoding
    assert (found.dialect.delimiter if found.dialect else None) == delimiter


def test_detect_decodes_cp1252(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,name\n1,Zoë Müller\n2,José Núñez\n".encode("cp1252"))
    assert [row["name"] for row in rows(path)] == ["Zoë Müller", "José Núñez"]


def test_detect_finds_no_header_where_the_first_row_is_data(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "7,ann@example.com,Berlin\n8,bob@example.com,Paris\n")
    assert rows(path)[0] == {"column_1": "7", "column_2": "ann@example.com", "column_3": "Berlin"}


def test_detect_names_empty_and_repeated_headers(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,,note,note\n1,2,3,4\n")
    assert rows(path) == [{"id": "1", "column_2": "2", "note": "3", "note_2": "4"}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PAREabc", "encrypted Parquet"),
        (bytes(range(1, 30)) * 20, "not text"),
        (b" \n\n  \n", "blank"),
    ],
)
def test_detect_refuses_with_the_reason(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(UnknownFormat, match=words):
        detected(written(tmp_path, "export.csv", content))


def test_detect_refuses_an_unknown_wanted_format(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormat, match="auto, csv, tsv, json, jsonl, xml, parquet, xlsx, xls"):
        detected(written(tmp_path, "a.csv", "id\n1\n"), wanted="pdf")


def test_fingerprint_refuses_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(EmptyFile):
        fingerprint(written(tmp_path, "a.csv", b""))


def test_fingerprint_refuses_a_folder_and_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="folder"):
        fingerprint(tmp_path)
    with pytest.raises(UnreadableFile, match="There is no file"):
        fingerprint(tmp_path / "none.csv")


def test_fingerprint_refuses_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableFile, match="not a file"):
        fingerprint(tmp_path / "pipe")


def test_fingerprint_is_size_and_sha256(tmp_path: Path) -> None:
    known = fingerprint(written(tmp_path, "a.csv", b"id\n1\n"))
    assert known.size_bytes == 5
    assert known.sha256 == hashlib.sha256(b"id\n1\n").hexdigest()
    assert known.not_utf8_at is None


def test_every_refusal_is_a_refused_file() -> None:
    assert issubclass(EmptyFile, RefusedFile)
    assert issubclass(UnknownFormat, RefusedFile)
    assert issubclass(UnreadableFile, RefusedFile)


@pytest.mark.parametrize("before", range((1 << 20) - 4, (1 << 20) + 2))
def test_fingerprint_takes_a_character_across_two_reads_for_utf8(tmp_path: Path, before: int) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a" * before + "é€😀".encode() * 3 + b"b" * 100)
    assert fingerprint(path).not_utf8_at is None


@pytest.mark.parametrize("at", [0, 100, (1 << 20) - 1, 1 << 20, (1 << 20) + 7, 1_500_000])
def test_fingerprint_tells_about_where_a_file_stops_being_utf8(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a" * at + b"\xff" + b"b" * 1_000_000)
    assert fingerprint(path).not_utf8_at == max(0, at - 4)
