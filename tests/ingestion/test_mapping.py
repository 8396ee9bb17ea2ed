"""How columns find their fields."""

import pytest

from ingestion.mapping import Mapping, NothingMappable, infer, words_of


def targets(samples: dict[str, list[str]]) -> dict[str, str]:
    return {column.source: column.target for column in infer(samples).columns if column.target}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("E-Mail Address", "e_mail_address"),
        ("eMailAddress", "e_mail_address"),
        ("CustomerID", "customer_id"),
        ("  Téléphone ", "telephone"),
        ("name.official_full", "name_official_full"),
    ],
)
def test_words_of_headers(header: str, words: str) -> None:
    assert words_of(header) == words


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("id", "user_id"),
        ("Customer ID", "user_id"),
        ("E-Mail", "email"),
        ("emailAddress", "email"),
        ("Full Name", "name"),
        ("Telephone", "phone"),
        ("Street", "address"),
        ("Town", "city"),
        ("Country", "country"),
        ("createdAt", "created_date"),
        ("Account Status", "status"),
        ("user.profile.city", None),
        ("contact.email", "email"),
        ("company.name", None),
        ("favourite_colour", None),
    ],
)
def test_infer_by_header(header: str, target: str | None) -> None:
    samples = {"last_name": ["Doe"], header: ["x"]}
    found = targets(samples)
    assert found.get(header) == (target if header != "user.profile.city" else "city")


def test_infer_takes_the_best_alias_and_leaves_the_other_as_metadata() -> None:
    assert targets({"id": ["1"], "user_id": ["2"], "name": ["Ann"]}) == {"user_id": "user_id", "name": "name"}


def test_infer_joins_first_and_last_name_only_without_a_whole_one() -> None:
    assert targets({"first_name": ["Ann"], "last_name": ["Doe"]}) == {
        "first_name": "first_name",
        "last_name": "last_name",
    }
    mapping = infer({"first_name": ["Ann"], "last_name": ["Doe"], "full_name": ["Ann Doe"]})
    assert {column.source: column.target for column in mapping.columns if column.target} == {"full_name": "name"}
    assert mapping.name_parts == ("first_name", "last_name")


def test_infer_by_fuzzy_header_says_so() -> None:
    column = next(column for column in infer({"adress": ["Main St 1"], "x": ["y"]}).columns if column.target)
    assert (column.source, column.target, column.how) == ("adress", "address", "fuzzy")
    assert 0.88 <= column.confidence < 1


def test_infer_wants_the_shape_of_a_fuzzy_typed_field() -> None:
    assert targets({"name": ["Ann"], "emails": ["see below"]}) == {"name": "name"}


def test_infer_by_the_shape_of_values() -> None:
    samples = {"contact": ["a@b.de", "c@d.org", ""], "reach": ["+49 30 1234567", "(030) 765-4321"], "n": ["1", "2"]}
    assert targets(samples) == {"contact": "email", "reach": "phone"}


def test_infer_takes_no_phone_from_bare_numbers_or_dates() -> None:
    assert targets({"name": ["Ann"], "balance": ["1234567890"], "born": ["1990-01-02"]}) == {"name": "name"}


def test_infer_leaves_a_fax_alone_when_there_is_a_phone() -> None:
    assert targets({"fax": ["202-225-5587"], "phone": ["256-734-6043"]}) == {"phone": "phone"}


def test_infer_notices_last_first_names() -> None:
    assert infer({"name": ["Abakanowicz, Magdalena", "Abbey, Edwin Austin", "Art & Language"]}).last_first is True
    assert infer({"name": ["Ann Doe", "Bob Roe"]}).last_first is False


@pytest.mark.parametrize(
    "values",
    [
        ["Acme, Inc.", "Beta, Ltd.", "Gamma, GmbH"],
        ["Testville, WA", "Testburg, OR"],
        ["Testname, the Elder", "Testname, the Younger"],
        [f"Testville {word}, Illinois" for word in "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"],
    ],
)
def test_infer_turns_no_commas_that_are_no_inversion(values: list[str]) -> None:
    assert infer({"name": values}).last_first is False


def test_infer_takes_contact_data_from_the_current_member_of_a_list() -> None:
    samples = {
        "name.official_full": ["Ann Testname", "Bo Testname"],
        "family[-1].phone": ["202-555-0100", ""],
        "roles[-1].city": ["Wrongville", ""],
        "terms[-1].phone": ["202-555-0143", "202-555-0144"],
        "terms[-1].address": ["1 Test St", "2 Test St"],
        "terms[-1].city": ["Testville", "Testburg"],
        "terms[-1].state": ["WA", "OR"],
        "terms[-1].id": ["7", "8"],
        "terms[-1].name": ["x", "y"],
    }
    assert targets(samples) == {
        "name.official_full": "name",
        "terms[-1].phone": "phone",
        "terms[-1].address": "address",
        "terms[-1].city": "city",
    }
    mapping = infer(samples)
    assert mapping.region_column == "terms[-1].state"
    assert {column.how for column in mapping.columns if column.target is None} == {"in a list"}


@pytest.mark.parametrize(
    ("column", "target"),
    [
        ("emails[0]", "email"),
        ("phone_numbers[0]", "phone"),
        ("phones[-1].number", "phone"),
        ("addresses[-1].street", "address"),
        ("addresses[-1].city", "city"),
        ("contact.emails[-1].address", "email"),
        ("orders[-1].phone", None),
        ("children[-1].email", None),
        ("tags[0]", None),
    ],
)
def test_infer_by_list(column: str, target: str | None) -> None:
    assert targets({"name": ["Ann"], column: ["x"]}).get(column) == target


def test_infer_takes_the_first_id_of_several_that_every_record_has_alone() -> None:
    samples = {"id.old": ["1", ""], "id.kind": ["a", "a"], "id.register": ["T1", "T2"], "id.other": ["3", "4"]}
    assert targets(samples) == {"id.register": "user_id"}


def test_a_name_that_its_values_contradict_is_worth_less() -> None:
    columns = infer({"name": ["Ann"] * 4, "email": ["a@b.de", "none", "unknown", "?"]}).columns
    assert [(column.target, column.confidence) for column in columns] == [("name", 1.0), ("email", 0.62)]


def test_lists_are_shown_as_metadata() -> None:
    mapping = infer({"name": ["Ann"]}, lists={"tags": ['["a"]', ""]})
    assert [(column.source, column.target, column.how, column.samples) for column in mapping.columns] == [
        ("name", "name", "alias", ("Ann",)),
        ("tags", None, "list", ('["a"]',)),
    ]


@pytest.mark.parametrize(
    ("dates", "day_first"), [(["25/12/2024", "01/02/2024"], True), (["12/25/2024"], False), (["1/2/2024"], False)]
)
def test_infer_notices_day_first_dates(dates: list[str], day_first: bool) -> None:
    assert infer({"name": ["Ann"], "created": dates}).day_first is day_first


def test_infer_reads_phones_by_us_states_only_without_a_country() -> None:
    samples = {"phone": ["256-734-6043"] * 3, "state": ["AL", "MA", "NJ"]}
    assert infer(samples).region_column == "state"
    assert infer({**samples, "country": ["USA"] * 3}).region_column is None


def test_infer_refuses_a_file_about_nobody() -> None:
    with pytest.raises(NothingMappable, match="Columns: height, status"):
        infer({"height": ["1"], "status": ["active"]})


def test_a_mapping_survives_json() -> None:
    mapping = infer({"id": ["1"], "name": ["Doe, Ann"], "created": ["25/12/2024"], "x": ["y"]})
    assert Mapping.from_json(mapping.as_json()) == mapping
