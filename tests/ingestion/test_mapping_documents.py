"""Mappings as documents: what they keep, what they refuse, what they do to a file."""

from typing import Any

import pytest

from ingestion.mapping import ColumnMapping, infer
from ingestion.mapping_documents import InvalidMapping, MappingDocument, MappingDoesNotFit

CONTACTS = {"columns": {"Who": "name", "Reach": "phone", "Shoe": None}}


def test_a_document_keeps_what_was_inferred() -> None:
    samples = {
        "id": ["1", "2"],
        "name": ["Testname, Ann", "Testname, Bo"],
        "created": ["25/12/2024", ""],
        "terms[-1].phone": ["202-555-0143", ""],
        "terms[-1].state": ["WA", ""],
        "shoe": ["43", ""],
    }
    mapping = infer(samples, lists={"terms": ["[]", ""]})
    assert MappingDocument.of(mapping).as_json() == {
        "columns": {
            "id": "user_id",
            "name": "name",
            "created": "created_date",
            "terms[-1].phone": "phone",
            "shoe": None,
        },
        "last_first": True,
        "day_first": True,
        "region_column": "terms[-1].state",
        "name_parts": [],
    }
    again = MappingDocument.from_json(MappingDocument.of(mapping).as_json()).applied(
        samples, lists={"terms": ["[]", ""]}
    )
    assert {column.source: column.target for column in again.columns} == {
        column.source: column.target for column in mapping.columns
    }
    assert (again.last_first, again.day_first, again.region_column) == (True, True, "terms[-1].state")


def test_a_document_is_applied_and_new_columns_go_to_the_metadata() -> None:
    mapping = MappingDocument.from_json(CONTACTS).applied(
        {"Who": ["Ann"], "Reach": ["1"], "email": ["a@b.de"]}, lists={}
    )
    assert mapping.columns == (
        ColumnMapping("Who", "name", 1.0, "saved", ("Ann",)),
        ColumnMapping("Reach", "phone", 1.0, "saved", ("1",)),
        ColumnMapping("email", None, 1.0, "metadata", ("a@b.de",)),
    )


def test_a_file_that_lacks_mapped_columns_is_refused_with_their_names() -> None:
    document = MappingDocument.from_json({**CONTACTS, "region_column": "State", "name_parts": ["First"]})
    with pytest.raises(
        MappingDoesNotFit, match=r"does not have: 'Reach', 'State', 'First'. It has: 'Who', 'Phone'"
    ) as caught:
        document.applied({"Who": ["Ann"], "Phone": ["1"]}, lists={})
    assert caught.value.details == {"missing": ["Reach", "State", "First"]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "A mapping is an object"),
        ({"columns": ["name"]}, "A mapping is an object"),
        ({**CONTACTS, "colour": 1}, "A mapping has no 'colour'"),
        ({"columns": {"Who": "nome"}}, "'Who' cannot become 'nome'. Choose one of user_id, email, name"),
        ({"columns": {"Who": ["name"]}}, "cannot become"),
        ({"columns": {"A": "name", "B": "name"}}, "'A' and 'B' both become name"),
        ({"columns": {"A": "status"}}, "no record could be found"),
        ({"columns": {"A": "name", "B": "last_name"}}, "exclude each other"),
        ({**CONTACTS, "last_first": "yes"}, "'last_first' is true or false"),
        ({**CONTACTS, "region_column": 7}, "'region_column' is"),
        ({**CONTACTS, "name_parts": "First"}, "'name_parts' is"),
        ({"columns": {str(number): None for number in range(1001)}}, "1,000 columns at most"),
    ],
)
def test_an_impossible_document_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InvalidMapping, match=message):
        MappingDocument.from_json(value)
