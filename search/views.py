"""The API under `/api/v1/` that searches, and its short aliases. Each view reads, makes one call, answers.

No sessions and no CSRF. HEAD and OPTIONS are refused on purpose: they would be charged, or say nothing.
"""

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.views import APIView

from config.errors import InvalidRequest
from search import openapi
from search.answers import free_response
from search.downloads import answer_download
from search.metered import Call, answer_person, answer_query, identify, reading
from search.query.body import BODY_BYTES_MAX, PayloadTooLarge, read_object
from search.query.fields import FIELDS
from search.query.request import parse_person, parse_query, parse_search


class QueryView(APIView):
    """`POST /api/v1/query`."""

    http_method_names = ["post"]

    @openapi.query
    def post(self, request: Request) -> HttpResponse:
        call = Call.of(_plain(request), "query")
        with reading(call):
            document = read_object(_body(_plain(request)), content_type=request.META.get("CONTENT_TYPE") or "")
            query = parse_query(document)
        call.note(document)
        return answer_query(call, query)


class SearchView(APIView):
    """`GET /api/v1/search`, alias `/search`."""

    http_method_names = ["get"]

    @openapi.search
    def get(self, request: Request) -> HttpResponse:
        call = Call.of(_plain(request), "search")
        with reading(call):
            parameters = _parameters(_plain(request))
            query = parse_search(parameters)
        call.note({key: given[0] for key, given in parameters.items()})
        return answer_query(call, query)


class PersonView(APIView):
    """`GET /api/v1/person/{id}`, alias `/person/{id}`."""

    http_method_names = ["get"]

    @openapi.person
    def get(self, request: Request, person_id: str) -> HttpResponse:
        call = Call.of(_plain(request), "person")
        with reading(call):
            wanted, max_credits = parse_person(person_id, _parameters(_plain(request)))
        call.note({"id": wanted} if max_credits is None else {"id": wanted, "max_credits": max_credits})
        return answer_person(call, wanted)


class DownloadView(APIView):
    """`GET /api/v1/download`, alias `/download`."""

    http_method_names = ["get"]

    @openapi.download
    def get(self, request: Request) -> HttpResponseBase:
        call = Call.of(_plain(request), "download")
        with reading(call):
            parameters = _parameters(_plain(request))
            query = parse_search(parameters, download=True)
        call.note({key: given[0] for key, given in parameters.items()})
        return answer_download(call, query)


class FieldsView(APIView):
    """`GET /api/v1/fields`."""

    http_method_names = ["get"]

    @openapi.fields
    def get(self, request: Request) -> HttpResponse:
        return free_response(_FIELD_LIST, rate=identify(Call.of(_plain(request), "fields")))


_FIELD_LIST = [
    {
        "name": one.name,
        "type": one.kind.value,
        "operators": list(one.operators),
        "sortable": one.sortable,
        "fast": one.fast,
        "description": one.description,
    }
    for one in FIELDS.values()
] + [
    {
        "name": "metadata.<path>",
        "type": "string",
        "operators": ["eq", "in"],
        "sortable": False,
        "fast": False,
        "description": "One value of metadata; to be filtered by, not selected.",
    }
]


def _plain(request: Request) -> HttpRequest:
    return request._request  # noqa: SLF001 - DRF's own documented way to the Django request


def _body(request: HttpRequest) -> bytes:
    length = request.META.get("CONTENT_LENGTH") or "0"
    if length.isdigit() and int(length) > BODY_BYTES_MAX:
        raise PayloadTooLarge
    try:
        return request.body
    except UnreadablePostError:
        raise InvalidRequest("The request body broke off. Send it again.", details={"body": "incomplete"}) from None


def _parameters(request: HttpRequest) -> dict[str, list[str]]:
    try:
        return {key: [str(value) for value in given] for key, given in request.GET.lists()}
    except SuspiciousOperation:
        raise InvalidRequest("The address has too many parameters.", details={"parameters": "too many"}) from None
