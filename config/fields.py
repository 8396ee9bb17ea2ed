"""What a request's fields are checked with: one reason for each field that cannot be accepted, unknown ones included."""

import difflib
from typing import Any

from rest_framework import serializers

from config.errors import InvalidRequest


def validated(serializer: serializers.Serializer[Any]) -> dict[str, Any]:
    """The serializer's values; raises `InvalidRequest` with one reason a field, unknown fields included."""
    data = serializer.initial_data
    if not isinstance(data, dict) and not hasattr(data, "keys"):
        raise InvalidRequest("Send a JSON object.", details={"body": "must be a JSON object"})
    unknown = {
        str(name)[:64]: _unknown(str(name), list(serializer.fields)) for name in set(data) - set(serializer.fields)
    }
    if not serializer.is_valid() or unknown:
        reasons = {name: _reason(problems) for name, problems in serializer.errors.items()}
        allowed = ", ".join(sorted(serializer.fields))
        raise InvalidRequest(
            f"The request has fields that cannot be accepted; see details. Known fields: {allowed}.",
            details={**unknown, **reasons},
        )
    return dict(serializer.validated_data)


def _reason(problems: Any) -> str:
    """Of a list the reasons of each element, counted from 0."""
    if isinstance(problems, dict):
        return "; ".join(f"[{place}] {_reason(inner)}" for place, inner in problems.items())
    return " ".join(map(str, problems))


def _unknown(name: str, known: list[str]) -> str:
    closest = difflib.get_close_matches(name[:64], known, n=1, cutoff=0.5)
    return f'unknown field; did you mean "{closest[0]}"?' if closest else "unknown field"
