"""XML as it should be, and as it should not: nothing is fetched, nothing expanded, a bad record costs itself alone."""

import socket
from pathlib import Path

import pytest

from ingestion.formats import limits, xml_rows
from ingestion.formats.batches import UnknownFormat
from ingestion.formats.xml_guard import UnsafeXml
from tests.ingestion.files import batches, detected, rejects, rows, written


def people(*records: str, head: str = "") -> str:
    inner = "".join(["<person><name>Ann</name></person>\n", *records, "<person><name>Bob</name></person>\n"])
    return f"{head}<people>\n{inner}</people>\n"


def test_attributes_and_nested_elements_become_paths(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "a.xml",
        '<r><p id="007"><name>Ann</name><address kind="home"><street>1 Elm St</street></address></p><p id="8"/></r>',
    )
    assert rows(path) == [
        {"id": "007", "name": "Ann", "address.kind": "home", "address.street": "1 Elm St"},
        {"id": "8"},
    ]


def test_text_beside_attributes_keeps_the_elements_path(tmp_path: Path) -> None:
    path = written(tmp_path, "a.xml", '<r><p><name lang="de">Zo<b>x</b>ë</name></p><p><name>Bob</name></p></r>')
    assert rows(path) == [{"name": "Zo ë", "name.lang": "de", "name.b": "x"}, {"name": "Bob"}]


def test_repeated_elements_become_a_list(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "a.xml",
        '<r><p><name>Ann</name><tag>a</tag><tag>b</tag></p><p><name>Bob</name><tag k="1">c</tag><tag/></p></r>',
    )
    batch = batches(path)[0]
    assert batch.rows.column("tag").to_pylist() == ['["a","b"]', '[{"#text":"c","k":"1"},""]']
    assert batch.rows.schema.field("tag").metadata == {b"json": b"array"}


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("<r><p><name>a</name></p><p><name>b</name></p></r>", "r/p"),
        ("<r><link>a</link><link>b</link><l><p><name>a</name></p><p><name>b</name></p></l></r>", "r/l/p"),
        ("<r><p><name>a</name><phone t='h'>1</phone><phone t='w'>2</phone></p></r>", "r/p"),
        ("<r><g><p><name>a</name><city>x</city></p><p/></g><g><p><name>b</name></p></g></r>", "r/g/p"),
        ("<person><name>a</name><email>a@b.de</email></person>", "person"),
        ("<r><p><name>a & b</name></p><p><name>b</name></p></r>", "r/p"),
        ('<x:r xmlns:x="u"><x:p><x:name>a</x:name></x:p><x:p/></x:r>', "r/p"),
    ],
)
def test_the_record_is_the_element_that_repeats_and_holds_fields(tmp_path: Path, text: str, record: str) -> None:
    assert detected(written(tmp_path, "export.dat", text)).choice == record


def test_namespaces_leave_local_names(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "a.xml",
        '<n:r xmlns:n="u" xmlns:xsi="v" xsi:l="w"><n:p n:id="1" xsi:type="t"><n:name>Ann</n:name></n:p><n:p/></n:r>',
    )
    assert rows(path)[0] == {"id": "1", "name": "Ann"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "windows-1252", "iso-8859-2"])
def test_a_document_is_read_in_the_encoding_that_it_declares(tmp_path: Path, encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><r><p><name>Jörg Müller</name></p><p><name>B</name></p></r>'
    assert rows(written(tmp_path, "a.xml", text.encode(encoding)))[0] == {"name": "Jörg Müller"}


def test_a_declared_encoding_of_several_bytes_is_read(tmp_path: Path) -> None:
    text = '<?xml version="1.0" encoding="shift_jis"?><r><p><name>山田</name></p><p/></r>'
    assert rows(written(tmp_path, "a.xml", text.encode("shift_jis")))[0] == {"name": "山田"}


@pytest.mark.parametrize("name", ["hex", "unicode_escape", "klingon"])
def test_an_encoding_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownFormat, match=name):
        detected(written(tmp_path, "a.xml", f'<?xml version="1.0" encoding="{name}"?><r><p><name>x</name></p></r>'))


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    "doctype",
    [
        f'<!DOCTYPE people [<!ENTITY l0 "lol">{LAUGHS}]>',
        '<!DOCTYPE people [<!ENTITY f SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE people [<!ENTITY % f SYSTEM "http://127.0.0.1/x"> %f;]>',
        '<!DOCTYPE people SYSTEM "x.dtd" [<!ENTITY a "b">]>',
        '<!DOCTYPE people [<!ATTLIST person added CDATA "x">]>',
    ],
    ids=["billion laughs", "external file", "parameter entity", "both", "default attribute"],
)
def test_declarations_in_the_document_are_refused(tmp_path: Path, doctype: str) -> None:
    with pytest.raises(UnsafeXml, match="not expanded"):
        detected(written(tmp_path, "a.xml", people("<person><name>&l9;</name></person>", head=doctype)))


def test_declarations_after_the_sample_are_refused_by_the_reader(tmp_path: Path) -> None:
    path = written(tmp_path, "a.xml", people(head='<!DOCTYPE people [<!ENTITY a "b">]>'))
    with pytest.raises(UnsafeXml):
        list(xml_rows.XmlReader(path, encoding="utf-8", record="people/person"))


def test_an_outside_grammar_is_named_and_not_fetched(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/people.dtd"
        path = written(
            tmp_path,
            "a.xml",
            people("<person><name>x&nbsp;y</name></person>", head=f'<!DOCTYPE people SYSTEM "{url}">'),
        )
        assert rows(path) == [{"name": "Ann"}, {"name": "Bob"}]
        assert [reject[:2] for reject in rejects(path)] == [(2, "UNKNOWN_ENTITY")]
        with pytest.raises(BlockingIOError):
            server.accept()


def test_xinclude_is_an_element_like_any_other(tmp_path: Path) -> None:
    include = '<person><xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd"/></person>'
    assert rows(written(tmp_path, "a.xml", people(include)))[1] == {"include.href": "file:///etc/passwd"}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("<person><name>A & B</name></person>", "INVALID_XML"),
        ("<person><name>A</person>", "INVALID_XML"),
        ("<person><name>A</name>", "INVALID_XML"),
        ("<person><name>\x00</name></person>", "INVALID_XML"),
        ("<person id=1/>", "INVALID_XML"),
        ('<person id="1" id="2"/>', "INVALID_XML"),
        ("<person><name>&nbsp;</name></person>", "INVALID_XML"),
        ("<person>" + "<a>" * 100 + "</a>" * 100 + "</person>", "TOO_DEEP"),
        ("<person>" + "<a>" * 100_000 + "</person>", "TOO_DEEP"),
        ("<person " + " ".join(f'a{n}="1"' for n in range(5000)) + "/>", "TOO_MANY_FIELDS"),
        ("<person><name>" + "x" * 300_000 + "</name></person>", "FIELD_TOO_LONG"),
        ("<person>" + "<name>x</name>" * 200_000 + "</person>", "ROW_TOO_LONG"),
    ],
    ids=lambda value: value[:40],
)
def test_a_bad_record_costs_itself_alone(tmp_path: Path, record: str, reason: str) -> None:
    path = written(tmp_path, "a.xml", people("<person><name>Al</name></person>", record))
    assert [reject[:2] for reject in rejects(path)] == [(3, reason)]
    assert rows(path) == [{"name": "Ann"}, {"name": "Al"}, {"name": "Bob"}]


@pytest.mark.parametrize("hostile", ["<person a='{x}'/>", "<person><name>{x}</name></person>", "<!--{x}-->"])
def test_what_is_longer_than_a_row_is_told_and_skipped(tmp_path: Path, hostile: str) -> None:
    text = people("<person><name>Al</name></person>" * 10_000, hostile.format(x="x" * 6_000_000))
    path = written(tmp_path, "a.xml", text)
    assert [reject[:2] for reject in rejects(path)] == [(10_002, "ROW_TOO_LONG")]
    assert rows(path)[-1] == {"name": "Bob"}


def test_a_document_that_ends_early_keeps_what_came_before(tmp_path: Path) -> None:
    path = written(tmp_path, "a.xml", people()[:-23])
    assert rows(path) == [{"name": "Ann"}]
    assert rejects(path) == [(2, "INVALID_XML", "<person><name>Bob</na")]


def test_a_record_without_its_end_gives_those_that_it_swallowed_back(tmp_path: Path) -> None:
    path = written(tmp_path, "a.xml", people("<person><name>A</name>\n", "<person><name>Al</name></person>"))
    assert rejects(path) == [(2, "INVALID_XML", "<person><name>A</name>")]
    assert rows(path) == [{"name": "Ann"}, {"name": "Al"}, {"name": "Bob"}]


def test_a_dead_letter_shows_the_record_as_written(tmp_path: Path) -> None:
    batch = batches(written(tmp_path, "a.xml", people('<person a="x>y"><b/>é</person>')))[0]
    assert [batch.raw(position) for position in range(3)] == [
        "<person><name>Ann</name></person>",
        '<person a="x>y"><b/>é</person>',
        "<person><name>Bob</name></person>",
    ]


def test_a_page_of_html_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormat, match="HTML"):
        detected(written(tmp_path, "a.xml", "<!-- x -->\n<html><p>hi</p></html>"))


@pytest.mark.parametrize("piece", [1, 7, 64])
def test_pieces_of_any_size_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    path = written(
        tmp_path, "a.xml", people("<person><name>Zoë &amp; x</name></person>", "<person><name>&</name></person>")
    )
    whole = rows(path), [reject[:2] for reject in rejects(path)]
    monkeypatch.setattr(xml_rows, "PIECE_BYTES", piece)
    monkeypatch.setattr(xml_rows, "FIRST_PIECE_BYTES", piece)
    monkeypatch.setattr(limits, "BLOCK_BYTES", 50)
    assert (rows(path), [reject[:2] for reject in rejects(path)]) == whole
    assert [number for batch in batches(path) for number in batch.numbers.to_pylist()] == [1, 2, 4]
