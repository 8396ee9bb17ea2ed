"""Every rule of validation, cleansing and identity, with exact values."""

import hashlib
from collections.abc import Mapping as Mapping_
from collections.abc import Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.cleansing import CLEAN_SCHEMA, normalise
from ingestion.fields import FIELDS, WEIGHTS
from ingestion.formats.batches import JSON_COLUMN, LIST_MEMBER
from ingestion.mapping import ColumnMapping, Mapping


def mapped(*names: str, **options: Any) -> Mapping:
    """Each column to the field of its own name."""
    return Mapping(tuple(ColumnMapping(name, name, 1.0, "alias") for name in names), **options)


def clean(columns: Mapping_[str, Sequence[str]], mapping: Mapping) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pydict({name: pa.array(values, pa.string()) for name, values in columns.items()})
    return normalise(batch, mapping)[0].to_pylist()


def one(field: str, value: str, **options: Any) -> dict[str, Any]:
    """The record of a row with an id and one more value."""
    extra = options.pop("extra", {})
    columns = {"user_id": ["1"], field: [value], **{name: [text] for name, text in extra.items()}}
    return clean(columns, mapped("user_id", field, *(name for name in extra if name in FIELDS), **options))[0]


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        ("  Ann   Doe ", "Ann Doe"),
        ("Ann\tDoe\r\n", "Ann Doe"),
        ("A\x00nn", "A nn"),
        ("Ann\u00a0Doe", "Ann Doe"),
        ("Zoe\u0308", "Zoë"),
        ("NULL", ""),
        ("n/a", ""),
        ("\\N", ""),
        ("007", "007"),
        ('O\'Brien "Bo" \\ Co', 'O\'Brien "Bo" \\ Co'),
    ],
)
def test_text_is_tidied(given_text: str, kept: str) -> None:
    assert one("name", given_text)["name"] == kept


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        ("Ann.Doe@Example.COM", "ann.doe@example.com"),
        ("mailto:ann@example.com", "ann@example.com"),
        ("ann+tag@sub.example.co.uk", "ann+tag@sub.example.co.uk"),
        ("o'hara@example.com", "o'hara@example.com"),
        ("zoë@müller.de", "zoë@müller.de"),
    ],
)
def test_email_is_lower_case(given_text: str, kept: str) -> None:
    record = one("email", given_text)
    assert (record["email"], record["validation_errors"], record["metadata"]) == (kept, [], "{}")


@pytest.mark.parametrize(
    "bad", ["ann", "ann@", "@example.com", "a b@example.com", "ann@example", "a..b@example.com", "ann@-x.com"]
)
def test_a_bad_email_is_blanked_kept_and_named(bad: str) -> None:
    record = one("email", bad)
    assert record["email"] == ""
    assert record["validation_errors"] == ["email:invalid"]
    assert record["metadata"] == f'{{"email":"{bad}"}}'


@pytest.mark.parametrize(
    ("given_text", "country", "kept"),
    [
        ("+1 (256) 734-6043", "", "+12567346043"),
        ("0049 30 123456", "", "+4930123456"),
        ("256-734-6043", "USA", "+12567346043"),
        ("1-256-734-6043", "US", "+12567346043"),
        ("030 123456", "Germany", "+4930123456"),
        ("020 7946 0958", "GB", "+442079460958"),
        ("06 698 12345", "Italy", "+390669812345"),
        ("(11) 96123-4567", "Brazil", "+5511961234567"),
        ("256-734-6043", "", "256-734-6043"),
    ],
)
def test_phone_is_e164_where_the_country_is_known(given_text: str, country: str, kept: str) -> None:
    record = one("phone", given_text, extra={"country": country})
    assert (record["phone"], record["validation_errors"]) == (kept, [])


@pytest.mark.parametrize(
    ("bad", "country"), [("call me", ""), ("12", ""), ("+999 12345678", ""), ("12-34-567", "USA"), ("1" * 25, "")]
)
def test_a_bad_phone_is_blanked_kept_and_named(bad: str, country: str) -> None:
    record = one("phone", bad, extra={"country": country})
    assert (record["phone"], record["validation_errors"]) == ("", ["phone:invalid"])
    assert record["metadata"] == f'{{"phone":"{bad}"}}'


def test_a_phone_extension_stays_in_the_metadata() -> None:
    record = one("phone", "256-734-6043 ext. 12", extra={"country": "USA"})
    assert (record["phone"], record["validation_errors"]) == ("+12567346043", [])
    assert record["metadata"] == '{"phone":"256-734-6043 ext. 12"}'


def test_phones_are_read_as_us_numbers_by_a_state_column() -> None:
    columns = {"user_id": ["1", "2"], "phone": ["256-734-6043", "256-734-6043"], "state": ["AL", "XX"]}
    records = clean(columns, mapped("user_id", "phone", region_column="state"))
    assert [record["phone"] for record in records] == ["+12567346043", "256-734-6043"]
    assert [record["country"] for record in records] == ["", ""]


@pytest.mark.parametrize(
    ("given_text", "code"),
    [("USA", "USA"), ("us", "USA"), ("United States", "USA"), ("U.S.A.", "USA"), ("uk", "GBR"), ("Deutschland", "DEU"),
     ("Côte d'Ivoire", "CIV"), ("Czech Republic", "CZE"), ("south korea", "KOR"), ("FRA", "FRA")],
)  # fmt: skip
def test_country_is_alpha_3(given_text: str, code: str) -> None:
    assert one("country", given_text)["country"] == code


def test_an_unknown_country_is_blanked_kept_and_named() -> None:
    record = one("country", "Atlantis")
    assert (record["country"], record["validation_errors"]) == ("", ["country:unknown"])
    assert record["metadata"] == '{"country":"Atlantis"}'


@pytest.mark.parametrize(
    ("given_text", "day_first", "day"),
    [
        ("2024-03-05", False, date(2024, 3, 5)),
        ("2024-03-05T23:59:59Z", False, date(2024, 3, 5)),
        ("2024-03-05 10:00", False, date(2024, 3, 5)),
        ("2024/03/05", False, date(2024, 3, 5)),
        ("20240305", False, date(2024, 3, 5)),
        ("03/05/2024", False, date(2024, 3, 5)),
        ("05/03/2024", True, date(2024, 3, 5)),
        ("5.3.2024", False, date(2024, 3, 5)),
        ("5 Mar 2024", False, date(2024, 3, 5)),
        ("March 5, 2024", False, date(2024, 3, 5)),
        ("1709596800", False, date(2024, 3, 5)),
        ("1709596800000", False, date(2024, 3, 5)),
    ],
)
def test_date_is_a_day(given_text: str, day_first: bool, day: date) -> None:
    record = one("created_date", given_text, day_first=day_first)
    assert (record["created_date"], record["validation_errors"]) == (day, [])


@pytest.mark.parametrize("bad", ["2024-02-30", "31/31/2024", "soon", "1024-01-01", "9999-01-01"])
def test_a_bad_date_is_blanked_kept_and_named(bad: str) -> None:
    record = one("created_date", bad)
    assert (record["created_date"], record["validation_errors"]) == (None, ["created_date:invalid"])
    assert record["metadata"] == f'{{"created_date":"{bad}"}}'


@pytest.mark.parametrize(
    ("given_text", "status"),
    [
        ("Active", "active"),
        ("ENABLED", "active"),
        ("on hold", "pending"),
        ("in-progress", "pending"),
        ("Canceled", "closed"),
    ],
)
def test_status_is_one_of_the_vocabulary(given_text: str, status: str) -> None:
    assert one("status", given_text)["status"] == status


def test_an_unknown_status_is_blanked_kept_and_named() -> None:
    record = one("status", "purple")
    assert (record["status"], record["validation_errors"]) == ("", ["status:unknown"])
    assert record["metadata"] == '{"status":"purple"}'


def test_a_value_that_is_too_long_is_kept_in_the_metadata() -> None:
    record = one("name", "x" * 301)
    assert (record["name"], record["validation_errors"]) == ("", ["name:too_long"])
    assert record["metadata"] == '{"name":"' + "x" * 301 + '"}'


def test_errors_are_named_in_the_order_of_the_fields() -> None:
    record = one("status", "purple", extra={"email": "no", "country": "Atlantis"})
    assert record["validation_errors"] == ["email:invalid", "country:unknown", "status:unknown"]


def test_first_middle_and_last_name_make_the_name() -> None:
    columns = {
        "first": ["Ann", "", "Cy"],
        "mid": ["B.", "", ""],
        "last": ["Doe", "Roe", ""],
        "user_id": ["1", "2", "3"],
    }
    mapping = Mapping(
        tuple(ColumnMapping(source, target, 1.0, "alias") for source, target in
              (("first", "first_name"), ("mid", "middle_name"), ("last", "last_name"), ("user_id", "user_id")))
    )  # fmt: skip
    records = clean(columns, mapping)
    assert [record["name"] for record in records] == ["Ann B. Doe", "Roe", "Cy"]
    assert {record["metadata"] for record in records} == {"{}"}


def test_an_empty_name_is_made_of_parts_that_stay_in_the_metadata() -> None:
    columns = {"name": ["Ann Doe", ""], "first": ["A.", "Bo"], "last": ["Doe", "Roe"]}
    records = clean(columns, mapped("name", name_parts=("first", "last")))
    assert [record["name"] for record in records] == ["Ann Doe", "Bo Roe"]
    assert [record["metadata"] for record in records] == ['{"first":"A.","last":"Doe"}', '{"first":"Bo","last":"Roe"}']


@pytest.mark.parametrize(
    ("given_text", "name"),
    [
        ("Abakanowicz, Magdalena", "Magdalena Abakanowicz"),
        ("Art & Language", "Art & Language"),
        ("Doe, John, Jr.", "Doe, John, Jr."),
        ("Acme, Inc.", "Acme, Inc."),
        ("Testname, Sir Henry", "Sir Henry Testname"),
        ("Testname, The Hon. Ann", "The Hon. Ann Testname"),
        ("Testname, Willem van", "Willem van Testname"),
        ("Lord, Test", "Test Lord"),
        ("Sir, Testname", "Sir, Testname"),
        ("Testname, Lady", "Testname, Lady"),
        ("Testname, the Younger", "Testname, the Younger"),
        ("Testname, Hans, the Younger", "Testname, Hans, the Younger"),
        ("Testname, of Testville", "Testname, of Testville"),
        ("Testname and Other, Ann and Bo", "Testname and Other, Ann and Bo"),
        ("Test & Sons, London", "Test & Sons, London"),
        ("Testname Studio, Rome", "Testname Studio, Rome"),
        ("T/T (Paris, France)", "T/T (Paris, France)"),
        ("Testname, born 1944", "Testname, born 1944"),
        ("Testname,Ann", "Ann Testname"),
    ],
)
def test_last_first_names_are_turned(given_text: str, name: str) -> None:
    assert one("name", given_text, last_first=True)["name"] == name


def test_metadata_is_canonical_json_of_what_is_filled() -> None:
    columns = {"user_id": ["1"], "b": ['say "hi" \\'], "a": ["02458"], "empty": [""], "é": ["ü"]}
    assert clean(columns, mapped("user_id"))[0]["metadata"] == '{"a":"02458","b":"say \\"hi\\" \\\\","é":"ü"}'


def test_metadata_keeps_lists_as_json() -> None:
    schema = pa.schema([pa.field("user_id", pa.string()), pa.field("tags", pa.string(), metadata=JSON_COLUMN)])
    batch = pa.RecordBatch.from_arrays([pa.array(["1", "2"]), pa.array(['["a","b"]', ""])], schema=schema)
    records = normalise(batch, mapped("user_id"))[0].to_pylist()
    assert [record["metadata"] for record in records] == ['{"tags":["a","b"]}', "{}"]


def test_a_member_of_a_list_is_taken_by_a_field_or_left_in_its_list() -> None:
    terms = '[{"party":"T","phone":"202-555-0143","state":"WA"}]'
    marks = {"name": None, "terms": JSON_COLUMN} | {
        f"terms[-1].{key}": LIST_MEMBER for key in ("phone", "state", "party")
    }
    schema = pa.schema([pa.field(name, pa.string(), metadata=mark) for name, mark in marks.items()])
    cells = [pa.array([cell]) for cell in ("Ann", terms, "202-555-0143", "WA", "T")]
    mapping = Mapping(
        (ColumnMapping("name", "name", 1.0, "alias"), ColumnMapping("terms[-1].phone", "phone", 0.75, "list member")),
        region_column="terms[-1].state",
    )
    record = normalise(pa.RecordBatch.from_arrays(cells, schema=schema), mapping)[0].to_pylist()[0]
    assert (record["name"], record["phone"]) == ("Ann", "+12025550143")
    assert record["metadata"] == '{"terms":' + terms + "}"


def test_quality_is_the_weight_of_valid_fields() -> None:
    full = {"user_id": "1", "email": "a@b.de", "name": "Ann", "phone": "+12567346043", "address": "Main St 1", "city": "Rome",
            "country": "ITA", "created_date": "2024-01-01", "status": "active"}  # fmt: skip
    columns = {name: [value, value if name in ("user_id", "name") else ""] for name, value in full.items()}
    scores = [record["data_quality_score"] for record in clean(columns, mapped(*full))]
    assert scores == [1.0, pytest.approx(0.35)]
    assert sum(WEIGHTS.values()) == 100


def test_id_is_the_md5_of_the_normalised_record() -> None:
    record = one("email", " ANN@example.com ", extra={"note": "x"})
    text = "\x1f".join(["1", "ann@example.com", "", "", "", "", "", "", "", '{"note":"x"}'])
    assert record["id"] == hashlib.md5(text.encode(), usedforsecurity=False).digest()


def test_id_differs_by_metadata_alone() -> None:
    first, second = clean({"name": ["Ann", "Ann"], "note": ["x", "y"]}, mapped("name"))
    assert first["id"] != second["id"]


def test_a_row_that_nothing_can_be_found_by_is_rejected() -> None:
    batch = pa.RecordBatch.from_pydict({"email": ["no", "a@b.de", ""], "country": ["USA", "", ""]})
    records, rejected = normalise(batch, mapped("email", "country"))
    assert records.column("position").to_pylist() == [1]
    assert rejected.to_pylist() == [
        {
            "position": position,
            "column": "",
            "reason": "NOTHING_USABLE",
            "message": "no valid id, e-mail, name, phone, address or city" + errors,
        }
        for position, errors in ((0, " (email:invalid)"), (2, ""))
    ]


_ANY = st.text(max_size=12) | st.sampled_from(
    ["a@b.de", "+12567346043", "2024-01-01", "USA", "active", "Doe, Ann", "NULL"]
)


@given(table=st.lists(st.lists(_ANY, min_size=len(FIELDS) + 2, max_size=len(FIELDS) + 2), min_size=1, max_size=8))
def test_every_row_comes_out_once_and_independent_of_its_neighbours(table: list[list[str]]) -> None:
    names = [*FIELDS, "extra", "other"]
    mapping = mapped(*FIELDS, last_first=True)

    def run(rows: list[list[str]]) -> tuple[list[dict[str, Any]], list[int]]:
        columns = {name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(names)}
        records, rejected = normalise(pa.RecordBatch.from_pydict(columns), mapping)
        assert records.schema == CLEAN_SCHEMA
        return records.to_pylist(), [row["position"] for row in rejected.to_pylist()]

    records, rejected = run(table)
    assert sorted([record["position"] for record in records] + rejected) == list(range(len(table)))
    for record in records:
        alone, _ = run([table[record["position"]]])
        assert alone == [{**record, "position": 0}]


@given(value=st.text(max_size=20))
def test_normalising_twice_changes_nothing(value: str) -> None:
    columns = {"name": ["Ann"], "note": [value]}
    first = clean({**columns, "city": [value]}, mapped("name", "city"))[0]
    again = clean(
        {"name": [first["name"]], "city": [first["city"]], "note": [_note(first["metadata"])]}, mapped("name", "city")
    )[0]
    assert again == first


def _note(metadata: str) -> str:
    import json

    return str(json.loads(metadata).get("note", ""))


_NAMES = ("PostalCode", "postal_code", "Postal Code", "plan")


@given(
    rows=st.lists(
        st.fixed_dictionaries({name: st.sampled_from(["", "1", '2"']) for name in _NAMES}), min_size=1, max_size=6
    )
)
def test_a_record_has_the_same_id_and_metadata_whatever_rows_are_read_with_it(rows: list[dict[str, str]]) -> None:
    mapping = mapped("user_id")
    together = clean({"user_id": ["1"] * len(rows)} | {name: [row[name] for row in rows] for name in _NAMES}, mapping)
    apart = [
        clean({"user_id": ["1"]} | {name: [value] for name, value in row.items() if value}, mapping)[0] for row in rows
    ]
    assert [(record["id"], record["metadata"]) for record in together] == [
        (record["id"], record["metadata"]) for record in apart
    ]


def test_a_record_with_two_spellings_of_a_name_is_not_one_with_one() -> None:
    columns = {"user_id": ["1"] * 3, "PostalCode": ["1", "", "1"], "postal_code": ["", "1", "1"]}
    first, second, both = clean(columns, mapped("user_id"))
    assert first["id"] == second["id"]
    assert first["id"] != both["id"]
    assert both["metadata"] == '{"PostalCode":"1","postal_code":"1"}'


def test_a_path_that_is_text_in_one_row_and_a_list_in_another_keeps_its_name() -> None:
    fields: list[Any] = [
        pa.field("user_id", pa.string()),
        pa.field("t", pa.string()),
        pa.field("t", pa.string(), metadata=JSON_COLUMN),
    ]
    cells = [pa.array(["1", "2"]), pa.array(['a"b', ""]), pa.array(["", '["a","b"]'])]
    records = normalise(pa.RecordBatch.from_arrays(cells, schema=pa.schema(fields)), mapped("user_id"))[0].to_pylist()
    assert [record["metadata"] for record in records] == ['{"t":"a\\"b"}', '{"t":["a","b"]}']
    assert records[0]["id"] == clean({"user_id": ["1"], "t": ['a"b']}, mapped("user_id"))[0]["id"]
