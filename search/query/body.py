"""Reads a request body as strict JSON: one object, UTF-8, no duplicate names, no NaN, numbers that fit."""

import json
from typing import Any, NoReturn

from config.errors import DomainError, InvalidRequest

BODY_BYTES_MAX = 262_144


class PayloadTooLarge(DomainError):
    """413: the body passes `BODY_BYTES_MAX`."""

    status = 413
    code = "PAYLOAD_TOO_LARGE"

    def __init__(self) -> None:
        super().__init__(
            f"The request body is larger than {BODY_BYTES_MAX:,} bytes. Split the lists in it over several requests.",
            details={"body": f"at most {BODY_BYTES_MAX} bytes"},
        )


class UnsupportedMediaType(DomainError):
    """415: the body is not declared as JSON."""

    status = 415
    code = "UNSUPPORTED_MEDIA_TYPE"

    def __init__(self) -> None:
        super().__init__(
            "Send the body as JSON, with the header Content-Type: application/json.",
            details={"content_type": "must be application/json"},
        )


class _Refused(ValueError):
    """A JSON text that Python would read but that does not say one clear thing."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("an object names the same field twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def printable(text: str, *, limit: int = 80) -> str:
    """`text` as it may be shown in an error: bounded, and without what UTF-8 or a terminal cannot carry."""
    shown = text[:limit].encode("utf-8", "replace").decode("utf-8")
    shown = "".join(character if character.isprintable() else "?" for character in shown)
    return shown + "…" if len(text) > limit else shown


def read_object(raw: bytes, *, content_type: str) -> dict[str, Any]:
    """The JSON object in `raw`; raises UnsupportedMediaType, PayloadTooLarge or InvalidRequest (details: body)."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType
    if len(raw) > BODY_BYTES_MAX:
        raise PayloadTooLarge
    if not raw.strip():
        raise _invalid_body('it is empty; send at least "{}"')
    try:
        text = raw.decode("utf-8")
        document = _DECODER.decode(text)
    except UnicodeDecodeError:
        raise _invalid_body("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _invalid_body(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except _Refused as error:
        raise _invalid_body(str(error)) from None
    except RecursionError:
        raise _invalid_body("it is nested too deeply") from None
    except ValueError:
        raise _invalid_body("a number in it has too many digits") from None
    if not isinstance(document, dict):
        raise _invalid_body("it must be a JSON object")
    return document


def _invalid_body(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The request body cannot be used: {reason}.", details={"body": reason})
