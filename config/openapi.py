"""What every endpoint's documentation shares: the error envelope, the header and answer descriptions, the health paths."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse

Schema = dict[str, Any]

API_KEY: list[dict[str, list[str]]] = [{"ApiKey": []}]
ADMIN_SECRET: list[dict[str, list[str]]] = [{"AdminSecret": []}]

# Short forms of addresses that are documented in full; each operation's text names its alias.
ALIASES = frozenset({"/search", "/download", "/person/{person_id}", "/docs"})

ERROR_SCHEMA: Schema = {
    "type": "object",
    "required": ["status", "error"],
    "properties": {
        "status": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["code", "message", "details"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string", "description": "What went wrong and what to do next."},
                "details": {"type": "object", "additionalProperties": True},
            },
        },
    },
}

_EXAMPLES: dict[int, list[tuple[str, str, dict[str, Any]]]] = {
    400: [
        (
            "INVALID_REQUEST",
            'filters.contry: unknown field "contry"; did you mean "country"?',
            {"filters.contry": 'unknown field "contry"; did you mean "country"?'},
        )
    ],
    401: [
        ("MISSING_KEY", "Send your API key in the X-API-Key header.", {}),
        ("INVALID_KEY", "This API key is not valid. Check that it was copied whole, or create a new one.", {}),
        ("KEY_REVOKED", "This API key was revoked. Create a new one.", {}),
    ],
    402: [
        (
            "INSUFFICIENT_CREDITS",
            "Insufficient credits. Required: 10, Available: 5",
            {"required": 10, "available": 5, "limit_source": "account"},
        )
    ],
    403: [("ACCOUNT_SUSPENDED", "This account is suspended. Write to the operator of this service.", {})],
    404: [("NOT_FOUND", "No person has this id. Ids are case-sensitive.", {"id": "no match"})],
    405: [("METHOD_NOT_ALLOWED", 'Method "GET" not allowed.', {})],
    413: [("PAYLOAD_TOO_LARGE", "The request body is larger than 262,144 bytes.", {"body": "at most 262144 bytes"})],
    415: [
        (
            "UNSUPPORTED_MEDIA_TYPE",
            "Send the body as JSON, with the header Content-Type: application/json.",
            {"content_type": "must be application/json"},
        )
    ],
    422: [("QUERY_TOO_EXPENSIVE", "The search needs more memory or rows than one request may use.", {})],
    429: [
        (
            "RATE_LIMITED",
            "More than 60 requests in a minute with this key. Wait 12 s.",
            {"limit": 60, "retry_after_s": 12},
        )
    ],
    500: [("INTERNAL_ERROR", "Something failed on our side. Nothing was charged.", {})],
    503: [("TEMPORARILY_UNAVAILABLE", "The data store cannot be reached right now. Try again shortly.", {})],
    504: [("QUERY_TIMEOUT", "The search took too long and was stopped. Nothing was charged.", {"timeout_s": 10})],
}

_MEANINGS = {
    400: "The request cannot be used; details name each field and the reason. Free.",
    401: "The key is missing, wrong or revoked.",
    402: "The credits do not cover the highest price of this request. Free.",
    403: "The key may not do this.",
    404: "Nothing has this id. Free.",
    405: "The address exists, with another method.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "The search passed a limit on memory or rows. Free.",
    429: "Too many requests in a minute; Retry-After says when to come back. Free.",
    500: "A defect on our side. Free.",
    503: "A store is away; Retry-After says when to come back. Free.",
    504: "The search took too long. Free.",
}


def errors(*statuses: int) -> dict[int, OpenApiResponse]:
    """The documented answers for these error statuses, with an example for each code."""
    return {status: _error(status) for status in statuses}


def _error(status: int) -> OpenApiResponse:
    examples = [
        OpenApiExample(
            code,
            value={"status": "error", "error": {"code": code, "message": message, "details": details}},
            response_only=True,
            status_codes=[str(status)],
        )
        for code, message, details in _EXAMPLES[status]
    ]
    return OpenApiResponse({"$ref": "#/components/schemas/Error"}, _MEANINGS[status], examples)


def response_headers(*statuses: int) -> list[OpenApiParameter]:
    """The headers of metered answers with these statuses."""
    texts = {
        "X-Request-ID": "The request's id: your own when it is 1 to 64 characters of A-Z a-z 0-9 . _ : -, else a new one.",
        "X-Credits-Used": "Credits that this request took.",
        "X-Credits-Remaining": "Credits that are left.",
        "X-RateLimit-Limit": "Requests a minute that the key may make. Absent for a key without a limit.",
        "X-RateLimit-Remaining": "Requests left in the current window.",
        "X-RateLimit-Reset": "When the window moves, in UNIX seconds.",
        "RateLimit-Policy": 'The policy as IETF httpapi has it, e.g. "minute";q=60;w=60.',
        "RateLimit": 'The state under it, e.g. "minute";r=59;t=60.',
    }
    return [
        OpenApiParameter(name, str, OpenApiParameter.HEADER, description=text, response=list(statuses))
        for name, text in texts.items()
    ]


def without_aliases(endpoints: list[tuple[str, str, str, Any]], **_: Any) -> list[tuple[str, str, str, Any]]:
    """Preprocessing hook: documents each operation once, under its full address."""
    return [endpoint for endpoint in endpoints if endpoint[0] not in ALIASES]


def with_shared_parts(result: Schema, **_: Any) -> Schema:
    """Postprocessing hook: adds the error schema and the health paths, which are plain views."""
    result.setdefault("components", {}).setdefault("schemas", {})["Error"] = ERROR_SCHEMA
    result["paths"].update(_HEALTH_PATHS)
    result["paths"] = dict(sorted(result["paths"].items()))
    return result


def _health(operation: str, summary: str, properties: list[str], *, may_fail: bool) -> Schema:
    schema = {"type": "object", "properties": {name: {"type": "boolean"} for name in properties}}
    content = {"application/json": {"schema": schema, "example": dict.fromkeys(properties, True)}}
    responses = {"200": {"description": "Yes.", "content": content}}
    if may_fail:
        responses["503"] = {"description": "No; false says what is down.", "content": content}
    return {
        "get": {
            "operationId": operation,
            "summary": summary,
            "tags": ["health"],
            "security": [],
            "responses": responses,
        }
    }


_HEALTH_PATHS: Schema = {
    "/health": _health("health", "Does every store answer?", ["ok", "postgres", "redis", "clickhouse"], may_fail=True),
    "/api/v1/health": _health("health_alive", "Does the process live?", ["ok"], may_fail=False),
    "/api/v1/health/ready": _health(
        "health_ready", "Can requests be decided or answered?", ["ready", "can_decide", "can_answer"], may_fail=True
    ),
}
