import pytest

from config.errors import DomainError
from search.query.body import BODY_BYTES_MAX, printable, read_object


def refusal(raw: bytes, content_type: str = "application/json") -> DomainError:
    with pytest.raises(DomainError) as caught:
        read_object(raw, content_type=content_type)
    return caught.value


def test_read_object_reads_an_object() -> None:
    assert read_object(b'{"limit": 5}', content_type="application/json; charset=utf-8") == {"limit": 5}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", 'it is empty; send at least "{}"'),
        (b"  \n", 'it is empty; send at least "{}"'),
        (b"{", "Expecting property name enclosed in double quotes at line 1, column 2"),
        (b'{"a": 1}}', "Extra data at line 1, column 9"),
        (b"[]", "it must be a JSON object"),
        (b"null", "it must be a JSON object"),
        (b'"x"', "it must be a JSON object"),
        (b'{"limit": 1, "limit": 2}', "an object names the same field twice"),
        (b'{"filters": {"a": 1, "a": 1}}', "an object names the same field twice"),
        (b'{"limit": NaN}', "NaN is not a JSON number"),
        (b'{"limit": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": "\xff"}', "it is not UTF-8"),
        (b'{"limit": ' + b"9" * 5_000 + b"}", "a number in it has too many digits"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"a":' * 20_000, "it is nested too deeply"),
        (b'{"a": "\x00"}', "Invalid control character at at line 1, column 8"),
    ],
)
def test_read_object_refuses_what_is_not_one_clear_object(raw: bytes, reason: str) -> None:
    error = refusal(raw)
    assert (error.status, error.code, error.details) == (400, "INVALID_REQUEST", {"body": reason})
    assert error.message == f"The request body cannot be used: {reason}."


def test_read_object_refuses_a_body_past_the_limit() -> None:
    error = refusal(b" " * (BODY_BYTES_MAX + 1))
    assert (error.status, error.code, error.details) == (
        413,
        "PAYLOAD_TOO_LARGE",
        {"body": "at most 262144 bytes"},
    )


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_read_object_refuses_another_content_type(content_type: str) -> None:
    error = refusal(b"{}", content_type)
    assert (error.status, error.code, error.details) == (
        415,
        "UNSUPPORTED_MEDIA_TYPE",
        {"content_type": "must be application/json"},
    )


def test_printable_bounds_the_text() -> None:
    assert printable("a" * 81) == "a" * 80 + "…"


def test_printable_replaces_what_cannot_be_shown() -> None:
    assert printable("a\ud800\x00b") == "a??b"
