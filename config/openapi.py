"""What every endpoint's documentation shares: the error answers, the headers, the health paths.

An operation names its own error statuses with `extensions=errors(402, 504)`; those that every operation of its kind can
answer with are added to it here.
"""

from typing import Any

Schema = dict[str, Any]

# Security requirements as OpenAPI writes them; drf-spectacular's annotation knows only names.
API_KEY: Any = [{"ApiKey": []}]
ADMIN_SECRET: Any = [{"AdminSecret": []}]

_ALWAYS = {"ApiKey": (400, 401, 403, 405, 429, 500, 503), "AdminSecret": (400, 401, 404, 405, 413, 415, 429, 500, 503)}
_ERRORS_KEY = "x-errors"

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
        ),
        (
            "WEBHOOK_ADDRESS_REFUSED",
            "The webhook's address cannot be used: the host is, or resolves to, an address that is not public.",
            {"webhook_url": "the host is, or resolves to, an address that is not public"},
        ),
    ],
    401: [
        ("MISSING_KEY", "Send your API key in the X-API-Key header.", {}),
        ("INVALID_KEY", "This API key is not valid. Check that it was copied whole, or create a new one.", {}),
        ("KEY_REVOKED", "This API key was revoked. Create a new one.", {}),
        ("INVALID_ADMIN_SECRET", "Send the operators' secret in the X-Admin-Secret header.", {}),
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
    405: [("METHOD_NOT_ALLOWED", 'Method "GET" not allowed. Use POST.', {"allowed": ["POST"]})],
    409: [
        (
            "IDEMPOTENCY_IN_PROGRESS",
            "Another request with this Idempotency-Key is still running. Wait for it, or use a new key.",
            {},
        )
    ],
    413: [("PAYLOAD_TOO_LARGE", "The request body is larger than 262,144 bytes.", {"body": "at most 262144 bytes"})],
    415: [
        (
            "UNSUPPORTED_MEDIA_TYPE",
            "Send the body as JSON, with the header Content-Type: application/json.",
            {"content_type": "must be application/json"},
        )
    ],
    422: [
        ("QUERY_TOO_EXPENSIVE", "The search needs more memory or rows than one request may use.", {}),
        ("IDEMPOTENCY_MISMATCH", "This Idempotency-Key was used before with another request. Use a new one.", {}),
    ],
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
    405: "The address exists, with another method: details and the header Allow name those it takes.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    409: "A request with this idempotency key is still running. Free.",
    422: "The search passed a limit on memory or rows, or the idempotency key was used with another request. Free.",
    429: "Too many requests in a minute; Retry-After says when to come back. Free.",
    500: "A defect on our side. Free.",
    503: "A store is away; Retry-After says when to come back. Free, unless the message says that the charge is uncertain.",
    504: "The search took too long. Free.",
}


_HEADERS = {
    "X-Request-ID": "The request's id: your own when it is 1 to 64 characters of A-Z a-z 0-9 . _ : -, else a new one.",
    "X-Credits-Used": "Credits that this request took.",
    "X-Credits-Remaining": "Credits that are left, where known.",
    "X-RateLimit-Limit": "Requests a minute that the key may make; 1000000000 without a limit.",
    "X-RateLimit-Remaining": "Requests left in the current window.",
    "X-RateLimit-Reset": "When the window moves, in UNIX seconds.",
    "RateLimit-Policy": 'The policy as IETF httpapi has it, e.g. "minute";q=60;w=60.',
    "RateLimit": 'The state under it, e.g. "minute";r=59;t=60.',
}
_HEADER_REFERENCES = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}


def errors(*statuses: int) -> dict[str, list[int]]:
    """What to give as `extensions` to document that an operation answers with these error statuses too."""
    return {_ERRORS_KEY: list(statuses)}


def _error(status: int) -> Schema:
    examples = {
        code: {"value": {"status": "error", "error": {"code": code, "message": message, "details": details}}}
        for code, message, details in _EXAMPLES[status]
    }
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}, "examples": examples}}
    headers = dict(_HEADER_REFERENCES)
    if status in (429, 503):
        headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    return {"description": _MEANINGS[status], "headers": headers, "content": content}


def without_aliases(endpoints: list[tuple[str, str, str, Any]], **_: Any) -> list[tuple[str, str, str, Any]]:
    """Preprocessing hook: documents each operation once, under its full address."""
    return [endpoint for endpoint in endpoints if endpoint[0] not in ALIASES]


def with_shared_parts(result: Schema, **_: Any) -> Schema:
    """Postprocessing hook: adds the error answers, the headers and the health paths, which are plain views."""
    components = result.setdefault("components", {})
    components.setdefault("schemas", {})["Error"] = ERROR_SCHEMA
    components["responses"] = {f"Error{status}": _error(status) for status in _EXAMPLES}
    components["headers"] = {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in {**_HEADERS, "Retry-After": "Seconds to wait."}.items()
    }
    for path in result["paths"].values():
        for operation in path.values():
            _complete(operation)
    result["paths"] = dict(sorted({**result["paths"], **_HEALTH_PATHS}.items()))
    return result


def _complete(operation: Schema) -> None:
    schemes = {name for requirement in operation.get("security", []) for name in requirement}
    statuses = set(operation.pop(_ERRORS_KEY, [])).union(*(_ALWAYS.get(name, ()) for name in schemes))
    responses = operation["responses"]
    if "ApiKey" in schemes:
        for answer in responses.values():
            answer.setdefault("headers", {}).update(_HEADER_REFERENCES)
    for status in sorted(statuses):
        responses.setdefault(str(status), {"$ref": f"#/components/responses/Error{status}"})


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
            "tags": ["Health"],
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
