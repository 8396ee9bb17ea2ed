"""The form of a key: what is made can be read, what was mistyped cannot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import keys

PEPPER = "pepper"


@given(st.integers(1, keys.NUMBER_MAX))
def test_parse_reads_what_generate_makes(number: int) -> None:
    api_key = keys.generate(account_number=number)
    parsed = keys.parse(api_key, pepper=PEPPER)
    assert parsed is not None
    assert (parsed.account_number, parsed.digest) == (number, keys.digest(api_key, pepper=PEPPER))
    assert api_key.startswith(f"mh_live_{parsed.public_id}_")


@given(st.data())
def test_parse_refuses_a_key_with_one_character_changed(data: st.DataObject) -> None:
    api_key = keys.generate(account_number=7)
    place = data.draw(st.integers(0, len(api_key) - 1))
    other = data.draw(st.sampled_from(keys.BASE62).filter(lambda character: character != api_key[place]))
    assert keys.parse(api_key[:place] + other + api_key[place + 1 :], pepper=PEPPER) is None


@given(st.text())
def test_parse_never_fails_on_other_text(text: str) -> None:
    assert keys.parse(text, pepper=PEPPER) is None


@pytest.mark.parametrize("number", [0, -1, keys.NUMBER_MAX + 1])
def test_generate_refuses_numbers_that_do_not_fit(number: int) -> None:
    with pytest.raises(ValueError):
        keys.generate(account_number=number)


def test_digest_depends_on_the_pepper() -> None:
    api_key = keys.generate(account_number=1)
    assert keys.digest(api_key, pepper="a") != keys.digest(api_key, pepper="b")
