"""The list of hostile input, one by one: loaded, dead-lettered or refused. docs/ingestion.md tells the outcomes."""

import gzip
import io
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from config.errors import DomainError
from ingestion import jobs
from ingestion.formats import limits
from ingestion.pipeline import chunks
from tests.ingestion.files import written

DEEP = 100_000
Outcome = tuple[int, list[tuple[int, str]]] | str


def outcome(path: Path, **options: Any) -> Outcome:
    """Rows that are clean and (number, reason) of those that are not; or the code of the refusal."""
    try:
        found = jobs.inspect(path, **options)
        clean, rejected = 0, []
        for chunk in chunks(found.detected.reader(path), found.mapping, chunk_rows=1000, skip=0):
            clean += chunk.records.num_rows
            rejected += [(reject.row, reject.reason) for reject in chunk.rejects]
    except DomainError as refusal:
        return refusal.code
    return clean, rejected


def zipped(*members: tuple[str, str], link: bool = False, flags: int = 0) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = ((stat.S_IFLNK if link else stat.S_IFREG) | 0o644) << 16
            archive.writestr(info, text)
    content = bytearray(file.getvalue())
    if flags:  # in the directory, which is what is believed
        at = content.rfind(b"PK\x01\x02")
        content[at + 8] |= flags
    return bytes(content)


ANN, CY = b'{"id":1,"name":"Ann"}', b'{"id":3,"name":"Cy"}'


def attributes(count: int) -> bytes:
    return b"<p><name %s>Bo</name></p>" % b" ".join(b'a%d="x"' % n for n in range(count))


def columns(count: int) -> bytes:
    return b"%s\n%s\n" % (b",".join(b"c%d" % n for n in range(count)), b",".join(b"1" for _ in range(count)))


def around(opening: bytes, inside: bytes, closing: bytes) -> bytes:
    """DEEP levels."""
    return opening * DEEP + inside + closing * DEEP


LAUGHS = b'<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
OUTSIDE = b'<!DOCTYPE r [<!ENTITY b SYSTEM "file:///etc/passwd">]>'
ELSEWHERE = b'<!DOCTYPE r SYSTEM "http://127.0.0.1:9/x.dtd">'
USES_B = b"<p><name>&b;</name></p>"
INCLUDES = b'<p><id>2</id><i:include xmlns:i="http://www.w3.org/2001/XInclude" href="file:///etc/passwd"/></p>'
DEEP_XML = b"<p><id>2</id>%s</p>" % around(b"<a>", b"", b"</a>")
PEOPLE_XML = b"<r><p><id>1</id><name>Ann</name></p>%s<p><id>3</id><name>Cy</name></p></r>"

CASES: dict[str, tuple[str, bytes, Outcome]] = {
    # CSV
    "csv, unclosed quote": ("a.csv", b'id,name\n1,Ann\n2,"Bo\n3,Cy\n', (2, [(2, "UNCLOSED_QUOTE")])),
    "csv, line breaks in fields": ("a.csv", b'id,name,address\n1,Ann,"St 1\nFlat 2\r\nBack"\n2,Bo,x\n', (2, [])),
    "csv, bare carriage returns": ("a.csv", b"id,name\r1,Ann\r2,Bo\r", (2, [])),
    "csv, ragged": ("a.csv", b"id,name\n1,Ann\n2\n3,Cy,x\n", (1, [(2, "RAGGED_ROW"), (3, "RAGGED_ROW")])),
    "csv, repeated and empty headers": ("a.csv", b"id,name,name,,\n1,Ann,x,y,z\n", (1, [])),
    "csv, utf-16": ("a.csv", "id,name\n1,Łucja\n".encode("utf-16"), (1, [])),
    "csv, utf-16 without a mark": ("a.csv", ("id,name\n" + "1,Anna\n" * 9).encode("utf-16-le"), (9, [])),
    "csv, utf-32": ("a.csv", "id,name\n1,Łucja\n".encode("utf-32"), (1, [])),
    "csv, nul": ("a.csv", b"id,name\n1,A\x00nn\n2,Bo\n", (2, [])),
    "csv, cp1252": ("a.csv", "id,name\n1,José €\n2,Björn\n".encode("cp1252"), (2, [])),
    "csv, bad utf-8 among good": (
        "a.csv", b"id,name\n" + "1,José Ångström\n".encode() * 9 + b"2,\xff\n", (9, [(10, "INVALID_ENCODING")]),
    ),
    "csv, truncated gzip": ("a.csv.gz", gzip.compress(b"id,name\n1,Ann\n" * 99)[:-12], "BROKEN_ARCHIVE"),
    "csv, more columns than are read": ("a.csv", columns(1001), "UNKNOWN_FORMAT"),
    # JSON
    "json, list 100,000 deep": (
        "a.json", b'[%s,{"id":2,"x":%s},%s]' % (ANN, around(b"[", b"", b"]"), CY), (2, [(2, "TOO_DEEP")]),
    ),
    "json, object 100,000 deep": (
        "a.jsonl", b"%s\n%s\n%s\n" % (ANN, around(b'{"a":', b"1", b"}"), CY), (2, [(2, "TOO_DEEP")]),
    ),
    "json, 100,000 deep and never closed": ("a.json", b"[%s,%s" % (ANN, b"[" * DEEP), (1, [(2, "TOO_DEEP")])),
    "json, nothing but depth": ("a.json", b"[" * DEEP + b"]" * DEEP, "NOTHING_MAPPABLE"),
    "json, duplicate keys": ("a.json", b'[%s,{"id":2,"id":9},%s]' % (ANN, CY), (2, [(2, "DUPLICATE_KEY")])),
    "json, NaN": ("a.json", b'[%s,{"id":NaN,"name":"Bo"},%s]' % (ANN, CY), (2, [(2, "INVALID_JSON")])),
    "json, Infinity": ("a.jsonl", b'%s\n{"id":-Infinity}\n%s\n' % (ANN, CY), (2, [(2, "INVALID_JSON")])),
    "json, lone surrogate": ("a.jsonl", b'%s\n{"id":2,"name":"\\ud800"}\n%s\n' % (ANN, CY), (2, [(2, "INVALID_TEXT")])),
    "json, surrogate pair": ("a.jsonl", b'%s\n{"id":2,"name":"\\ud83d\\ude00"}\n' % ANN, (2, [])),
    "json, half a last line": ("a.jsonl", b'%s\n{"id":2,"na' % ANN, (1, [(2, "INVALID_JSON")])),
    "json, half a last object": ("a.json", b'[%s,{"id":2,"na' % ANN, (1, [(2, "INVALID_JSON")])),
    "json, not objects": ("a.jsonl", b'%s\n7\n"x"\n%s\n' % (ANN, CY), (2, [(2, "NOT_AN_OBJECT"), (3, "NOT_AN_OBJECT")])),
    # XML
    "xml, billion laughs": ("a.xml", LAUGHS + PEOPLE_XML % USES_B, "UNSAFE_XML"),
    "xml, external entity": ("a.xml", OUTSIDE + PEOPLE_XML % USES_B, "UNSAFE_XML"),
    "xml, grammar elsewhere": ("a.xml", ELSEWHERE + PEOPLE_XML % b"", (2, [])),
    "xml, entity of a grammar elsewhere": ("a.xml", ELSEWHERE + PEOPLE_XML % USES_B, (2, [(2, "UNKNOWN_ENTITY")])),
    "xml, XInclude": ("a.xml", PEOPLE_XML % INCLUDES, (3, [])),
    "xml, 2,000 attributes": ("a.xml", PEOPLE_XML % attributes(2000), (2, [(2, "TOO_MANY_FIELDS")])),
    "xml, 200,000 attributes": ("a.xml", PEOPLE_XML % attributes(200_000), (2, [(2, "ROW_TOO_LONG")])),
    "xml, 100,000 deep": ("a.xml", PEOPLE_XML % DEEP_XML, (2, [(2, "TOO_DEEP")])),
    # zip
    "zip, a name with ../": ("a.zip", zipped(("../../etc/a.csv", "id,name\n1,Ann\n")), "REFUSED_ARCHIVE"),
    "zip, an absolute name": ("a.zip", zipped(("/etc/a.csv", "id,name\n1,Ann\n")), "REFUSED_ARCHIVE"),
    "zip, a symbolic link": ("a.zip", zipped(("a.csv", "/etc/passwd"), link=True), "REFUSED_ARCHIVE"),
    "zip, encrypted": ("a.zip", zipped(("a.csv", "id,name\n1,Ann\n"), flags=1), "REFUSED_ARCHIVE"),
    "zip, two files": ("a.zip", zipped(("a.csv", "id\n1\n"), ("b.csv", "id\n1\n")), "REFUSED_ARCHIVE"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_hostile_input_ends_as_it_is_written_down(tmp_path: Path, case: str) -> None:
    name, content, expected = CASES[case]
    assert outcome(written(tmp_path, name, content)) == expected


@pytest.mark.parametrize("ending", ["\n3,Cy\n", '"\n3,Cy\n', ""])
@pytest.mark.parametrize("opening", ["2,", '2,"'])
def test_a_field_without_end_costs_its_row_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opening: str, ending: str
) -> None:
    monkeypatch.setattr(limits, "ROW_BYTES_MAX", 1000)
    monkeypatch.setattr(limits, "FIELD_BYTES_MAX", 500)
    monkeypatch.setattr(limits, "BLOCK_BYTES", 1000)
    found = outcome(written(tmp_path, "a.csv", f"id,name\n1,Ann\n{opening}{'x' * 20_000}{ending}"))
    assert isinstance(found, tuple)
    clean, rejected = found
    assert clean == 1 + ("3,Cy" in ending)
    assert rejected
    assert {reason for _, reason in rejected} <= {"ROW_TOO_LONG", "FIELD_TOO_LONG", "UNCLOSED_QUOTE", "BAD_QUOTE"}


def test_a_text_in_cp1252_keeps_its_letters(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,name\n1,José\n2,Björn\n".encode("cp1252"))
    found = jobs.inspect(path)
    assert found.detected.encoding == "cp1252"
    (chunk,) = chunks(found.detected.reader(path), found.mapping, chunk_rows=1000, skip=0)
    assert chunk.records.column("name").to_pylist() == ["José", "Björn"]


def test_xinclude_is_never_fetched(tmp_path: Path) -> None:
    path = written(tmp_path, "a.xml", PEOPLE_XML % INCLUDES)
    found = jobs.inspect(path)
    (chunk,) = chunks(found.detected.reader(path), found.mapping, chunk_rows=1000, skip=0)
    assert "file:///etc/passwd" in str(chunk.records.to_pylist()[1])
    assert "root:" not in str(chunk.records.to_pylist())


def test_ever_new_keys_are_not_all_columns_at_once(tmp_path: Path) -> None:
    lines = (",".join(f'"k{row * 100 + key}":"v"' for key in range(100)) for row in range(200))
    text = "".join(f'{{"id":{row},"name":"Ann",{keys}}}\n' for row, keys in enumerate(lines))
    found = jobs.inspect(written(tmp_path, "a.jsonl", text))
    batches = list(found.detected.reader(tmp_path / "a.jsonl"))
    assert sum(batch.rows.num_rows for batch in batches) == 200
    assert max(batch.rows.num_columns for batch in batches) <= limits.COLUMNS_MAX + 200
