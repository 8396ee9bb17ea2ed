"""The OpenAPI description of the searching endpoints, as decorators for the views, and the pages that show it."""

from functools import cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import (
    OpenApiJsonRenderer,
    OpenApiJsonRenderer2,
    OpenApiYamlRenderer,
    OpenApiYamlRenderer2,
)
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.response import Response

from config.openapi import API_KEY, Schema, errors
from credits.metering import IDEMPOTENCY_KEY_LENGTH_MAX
from search.query import request as limits
from search.query.fields import FIELDS, SORTABLE, Field, Kind

# What a metered search answers with beside the errors of every endpoint that takes a key.
_METERED_ERRORS = (402, 409, 422, 504)

_TYPES: dict[Kind, Schema] = {
    Kind.TEXT: {"type": ["string", "null"]},
    Kind.UUID: {"type": "string", "format": "uuid"},
    Kind.DATE: {"type": ["string", "null"], "format": "date"},
    Kind.DATETIME: {"type": "string", "format": "date-time"},
    Kind.NUMBER: {"type": "number"},
    Kind.LIST: {"type": "array", "items": {"type": "string"}},
    Kind.OBJECT: {"type": "object", "additionalProperties": True},
}


def _filter(field: Field) -> Schema:
    one = {"type": "number" if field.kind is Kind.NUMBER else "string"}
    some = {"type": "array", "items": one, "minItems": 1, "maxItems": limits.LIST_VALUES_MAX}
    operators = {name: some if name == "in" else one for name in field.operators}
    named = {"type": "object", "properties": operators, "additionalProperties": False, "minProperties": 1}
    return {"oneOf": [one, some, named], "description": field.description}


_MAX_CREDITS_TEXT = (
    "The most that this request may cost. Where `limit` could cost more, it is lowered to the records that so many credits "
    "always pay for, `100 * max_credits - 1`; no more than they cost is held, and never more charged."
)
_RECORD: Schema = {
    "type": "object",
    "description": "The fields that were asked for, in that order.",
    "properties": {name: {**_TYPES[field.kind], "description": field.description} for name, field in FIELDS.items()},
}
_PAGE: Schema = {
    "type": "object",
    "required": ["status", "data", "metadata"],
    "properties": {
        "status": {"const": "success"},
        "data": {"type": "array", "items": _RECORD},
        "metadata": {
            "type": "object",
            "properties": {
                "total_records": {
                    "type": ["integer", "null"],
                    "description": "Records that match; null when not asked for.",
                },
                "returned": {"type": "integer"},
                "page": {"type": ["integer", "null"]},
                "credits_used": {"type": "integer"},
                "credits_remaining": {"type": "integer"},
                "query_time_ms": {"type": "integer"},
                "next_cursor": {"type": ["string", "null"]},
                "limit": {
                    "type": "integer",
                    "description": "With `max_credits` alone: the `limit` that was kept to. Page on with it.",
                },
            },
        },
    },
}
_SORT: Schema = {
    "type": "object",
    "required": ["field"],
    "properties": {
        "field": {"enum": list(SORTABLE)},
        "order": {"enum": ["asc", "desc"], "default": "asc"},
    },
    "additionalProperties": False,
}
_QUERY: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "filters": {
            "type": "object",
            "description": 'All of them must hold. "metadata.<path>" takes a string or a list of strings.',
            "properties": {name: _filter(field) for name, field in FIELDS.items() if field.filterable},
            "patternProperties": {
                r"^metadata\..+": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
            },
            "additionalProperties": False,
        },
        "fields": {"type": "array", "items": {"enum": list(FIELDS)}, "minItems": 1, "uniqueItems": True},
        "limit": {"type": "integer", "minimum": 1, "maximum": limits.LIMIT_MAX, "default": limits.LIMIT_DEFAULT},
        "offset": {"type": "integer", "minimum": 0, "maximum": limits.OFFSET_MAX, "default": 0},
        "sort": {
            "oneOf": [_SORT, {"type": "array", "items": _SORT, "minItems": 1, "maxItems": limits.SORT_FIELDS_MAX}]
        },
        "include_total": {"type": "boolean", "default": True},
        "max_credits": {
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": limits.MAX_CREDITS_MAX,
            "description": _MAX_CREDITS_TEXT,
        },
    },
}

_QUERY_EXAMPLE = OpenApiExample(
    "Filter and sort",
    value={
        "filters": {
            "country": "USA",
            "created_date": {"gte": "2024-01-01", "lte": "2024-12-31"},
            "status": ["active", "pending"],
        },
        "fields": ["user_id", "email", "name"],
        "limit": 1000,
        "offset": 0,
        "sort": {"field": "created_date", "order": "desc"},
    },
    request_only=True,
)


def _page(description: str, rows: list[dict[str, Any]], *, total: int, returned: int, used: int) -> OpenApiResponse:
    metadata = {
        "total_records": total,
        "returned": returned,
        "page": 1,
        "credits_used": used,
        "credits_remaining": 989,
        "query_time_ms": 45,
        "next_cursor": None,
    }
    value = {"status": "success", "data": rows, "metadata": metadata}
    return OpenApiResponse(_PAGE, description, [OpenApiExample("Records", value=value, response_only=True)])


_PERSON = {"user_id": "usr_123", "email": "user@example.com", "name": "John Doe"}


_IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "maxLength": IDEMPOTENCY_KEY_LENGTH_MAX},
    OpenApiParameter.HEADER,
    description=(
        "Makes the request safe to repeat: within 24 h the same key and request is charged once, and a repetition runs "
        "again for nothing with `Idempotent-Replayed: true`."
    ),
)


def _whole(name: str, lowest: int, highest: int, default: int, text: str) -> OpenApiParameter:
    schema = {"type": "integer", "minimum": lowest, "maximum": highest, "default": default}
    return OpenApiParameter(name, schema, description=text)


_MAX_CREDITS = OpenApiParameter(
    "max_credits",
    {"type": "integer", "minimum": 1, "maximum": limits.MAX_CREDITS_MAX},
    description=_MAX_CREDITS_TEXT,
)
_Q = OpenApiParameter(
    "q",
    {"type": "string", "minLength": 1, "maxLength": limits.WORDS_CHARACTERS_MAX},
    required=True,
    description="Words; a record matches when name, e-mail, address and city hold all. Or one phone or source id.",
    examples=[OpenApiExample("A company", value="Acme")],
)

query = extend_schema(
    operation_id="query",
    summary="Search records by filter",
    description=(
        "Costs 1 + returned // 100 credits. Filters are joined by AND: a value means equality, a list means any of it, "
        "an object holds operators. Without `sort`, records come in a stable order that is cheap to page through. "
        f"`offset` reaches {limits.OFFSET_MAX:,} at most. Set `include_total` to false when the total is not needed: "
        "it is faster."
    ),
    request={"application/json": _QUERY},
    responses={200: _page("Records that match.", [_PERSON], total=25_847, returned=1_000, used=11)},
    extensions=errors(*_METERED_ERRORS, 413, 415),
    parameters=[_IDEMPOTENCY_KEY],
    examples=[_QUERY_EXAMPLE],
    auth=API_KEY,
    tags=["Search"],
)

search = extend_schema(
    operation_id="search",
    summary="Search records by words",
    description="Costs 1 + returned // 100 credits. `/search` is a short form of this address.",
    parameters=[
        _Q,
        _whole("limit", 1, limits.LIMIT_MAX, limits.SEARCH_LIMIT_DEFAULT, "Most records to return."),
        _whole("offset", 0, limits.OFFSET_MAX, 0, "Records to skip."),
        OpenApiParameter("include_total", bool, description="false leaves the total out, which is faster."),
        _MAX_CREDITS,
        _IDEMPOTENCY_KEY,
    ],
    responses={200: _page("Records that match.", [_PERSON], total=1, returned=1, used=1)},
    extensions=errors(*_METERED_ERRORS),
    auth=API_KEY,
    tags=["Search"],
)

person = extend_schema(
    operation_id="person",
    summary="Look one person up",
    description=(
        "By the record's own id (a UUID) or the id it had in its source, case-sensitive. Costs 1 credit, nothing when "
        "there is no match. Of several records with the same source id the best and newest is returned. "
        "`/person/{id}` is a short form of this address."
    ),
    parameters=[
        OpenApiParameter(
            "person_id",
            {"type": "string", "minLength": 1, "maxLength": limits.PERSON_ID_CHARACTERS_MAX},
            OpenApiParameter.PATH,
            examples=[OpenApiExample("A source's id", value="54a4f3f67468693b8cd7b470")],
        ),
        OpenApiParameter(
            "max_credits",
            {"type": "integer", "minimum": 1, "maximum": limits.MAX_CREDITS_MAX},
            description="The most that this request may cost; a lookup never costs more than 1.",
        ),
        _IDEMPOTENCY_KEY,
    ],
    responses={200: _page("The person.", [_PERSON], total=1, returned=1, used=1)},
    extensions=errors(*_METERED_ERRORS, 404),
    auth=API_KEY,
    tags=["Search"],
)

download = extend_schema(
    operation_id="download",
    summary="Download records as CSV",
    description=(
        "Costs 1 + delivered // 100 credits; each part is paid before it is sent, so a download that breaks off pays for "
        "the rows delivered. In an answer longer than one part, X-Credits-Used is what was paid when the headers left and "
        "X-Credits-Reserved the most it can become; the final price is in the usage history. `/download` is a short form "
        "of this address."
    ),
    parameters=[
        _Q,
        _whole("limit", 1, limits.DOWNLOAD_LIMIT_MAX, limits.DOWNLOAD_LIMIT_DEFAULT, "Most rows to deliver."),
        _MAX_CREDITS,
        _IDEMPOTENCY_KEY,
    ],
    responses={(200, "text/csv"): OpenApiResponse({"type": "string"}, "A header line, then one line a record.")},
    extensions=errors(*_METERED_ERRORS),
    auth=API_KEY,
    tags=["Search"],
)

fields = extend_schema(
    operation_id="fields",
    summary="List the fields",
    description="Names, types, operators, and which filters are answered from an index. Free.",
    responses={
        200: OpenApiResponse(
            {
                "type": "object",
                "properties": {
                    "status": {"const": "success"},
                    "data": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "name": {"type": "string"},
                                "type": {"type": "string"},
                                "operators": {"type": "array", "items": {"type": "string"}},
                                "sortable": {"type": "boolean"},
                                "fast": {"type": "boolean"},
                                "description": {"type": "string"},
                            },
                        },
                    },
                },
            },
            "The fields.",
        ),
    },
    auth=API_KEY,
    tags=["Search"],
)


@cache
def _document() -> Schema:
    schema: Schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return schema


class SchemaView(SpectacularAPIView):
    """`GET /api/schema`: the OpenAPI 3.1 document, as JSON unless YAML is asked for. Built once a process."""

    renderer_classes = [OpenApiJsonRenderer2, OpenApiJsonRenderer, OpenApiYamlRenderer2, OpenApiYamlRenderer]

    def _get_schema_response(self, request: Request) -> Response:
        return Response(_document(), headers={"Content-Disposition": 'inline; filename="meterhouse-openapi.json"'})


class SwaggerView(SpectacularSwaggerSplitView):
    """`GET /api/docs`: the document to read and try; script and style come from this server alone."""
