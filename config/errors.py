"""Errors as part of the interface: one envelope, a code from the documented table, a message that says what to do.

`DomainError` subclasses live next to the functions that raise them; this module knows only how to answer with one.
"""

from typing import Any, ClassVar

import structlog
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from django.views.defaults import page_not_found, server_error
from django_ratelimit.core import get_usage
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from config.metrics import count_refusal
from config.middleware import client_address

log = structlog.get_logger(__name__)


class DomainError(Exception):
    """A refusal that the caller can act on: HTTP `status`, `code` of the documented table, message, details, headers."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "INVALID_REQUEST"

    def __init__(
        self, message: str, *, details: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or {}
        self.headers = headers or {}


class InvalidRequest(DomainError):
    """400: `details` maps each field to the reason it was refused."""


class NotFound(DomainError):
    """404: nothing with this name or id, or not the caller's."""

    status = 404
    code = "NOT_FOUND"


class TemporarilyUnavailable(DomainError):
    """503: a store that must decide or answer is away; the same request may be sent again after `retry_after_s`."""

    status = 503
    code = "TEMPORARILY_UNAVAILABLE"

    def __init__(self, message: str, *, retry_after_s: int = 2, details: dict[str, Any] | None = None) -> None:
        super().__init__(message, details=details, headers={"Retry-After": str(retry_after_s)})


class TooManyGuesses(DomainError):
    """429 by address: answers like these help nobody but a guesser."""

    status = 429
    code = "RATE_LIMITED"


def error_body(code: str, message: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """The error envelope: `{"status": "error", "error": {"code", "message", "details"}}`."""
    return {"status": "error", "error": {"code": code, "message": message, "details": details or {}}}


_DRF_CODES = {
    400: "INVALID_REQUEST",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
}


def as_domain_error(exc: Exception) -> DomainError | None:
    """The `DomainError` that stands for `exc`, or None when it is a defect of ours (500)."""
    if isinstance(exc, DomainError):
        return exc
    if isinstance(exc, RequestDataTooBig):
        return _framework_error(413, "The request body is larger than this server accepts. Send a smaller one.")
    if isinstance(exc, Http404):
        return NotFound("There is nothing here. Check the address and the id.")
    if isinstance(exc, OperationalError):
        log.error("database_unavailable", error=str(exc).splitlines()[0] if str(exc) else type(exc).__name__)
        return TemporarilyUnavailable("The ledger cannot be reached right now. Nothing was charged; try again shortly.")
    if isinstance(exc, exceptions.ParseError):
        return InvalidRequest(f"The body is not valid JSON. {exc.detail}", details={"body": "not valid JSON"})
    if isinstance(exc, exceptions.UnsupportedMediaType):
        return _framework_error(415, "Send the body as JSON, with the header Content-Type: application/json.")
    if isinstance(exc, exceptions.APIException) and exc.status_code in _DRF_CODES:
        details = exc.detail if isinstance(exc.detail, dict) else {}
        return _framework_error(exc.status_code, str(exc.detail) if not details else "See details.", details)
    return None


def _framework_error(status: int, message: str, details: dict[str, Any] | None = None) -> DomainError:
    kind = type("FrameworkError", (DomainError,), {"status": status, "code": _DRF_CODES[status]})
    error = kind(message, details=details)
    assert isinstance(error, DomainError)  # noqa: S101 - for the type checker
    return error


def _guesser_must_wait_s(request: Request) -> int:
    """Seconds until this address may guess again; 0 while it was refused with 401 less often than UNAUTHENTICATED_RATE.

    Good keys are unaffected. While the cache is away nobody can count; then every guess waits a minute.
    """
    usage = get_usage(
        request._request,  # noqa: SLF001 - DRF's documented name of the Django request
        group="unauthenticated",
        key=lambda group, django_request: client_address(django_request),
        rate=settings.UNAUTHENTICATED_RATE,
        increment=True,
    )
    if usage is None or not usage["should_limit"]:
        return 0
    return max(1, usage["time_left"]) if usage["time_left"] >= 0 else 60


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response:
    """DRF's EXCEPTION_HANDLER: every failure leaves in the error envelope; a defect is logged and answers 500."""
    error = as_domain_error(exc)
    if error is not None and error.status == 401 and (wait_s := _guesser_must_wait_s(context["request"])):
        error = TooManyGuesses(
            f"Too many requests without a valid key or secret from this address. Wait {wait_s} s.",
            details={"retry_after_s": wait_s},
            headers={"Retry-After": str(wait_s)},
        )
    if error is not None and error.status == 405:
        # DRF itself sends them in the header Allow.
        error.details = {"allowed": [method for method in context["view"].allowed_methods if method != "OPTIONS"]}
        error.message = f"{error.message} Use {' or '.join(error.details['allowed'])}."
    if error is None:
        count_refusal("INTERNAL_ERROR")
        log.error("unhandled_exception", exc_info=exc, view=type(context.get("view")).__name__)
        return Response(error_body("INTERNAL_ERROR", _INTERNAL_MESSAGE), status=500)
    count_refusal(error.code)
    return Response(
        error_body(error.code, error.message, error.details), status=error.status, headers=error.headers or None
    )


_INTERNAL_MESSAGE = "Something failed on our side. Nothing was charged; quote the X-Request-ID header if it persists."


def _wants_json(request: HttpRequest) -> bool:
    return not request.path_info.startswith("/admin/") and "text/html" not in request.headers.get("Accept", "")


def handler404(request: HttpRequest, exception: Exception) -> Any:
    """404 outside the API views: JSON for programs, Django's page for browsers."""
    if _wants_json(request):
        message = f"There is nothing at {request.path_info[:200]}. The API is described at /api/docs."
        return JsonResponse(error_body("NOT_FOUND", message), status=404)
    return page_not_found(request, exception)


def handler500(request: HttpRequest) -> Any:
    """500 outside the API views."""
    if _wants_json(request):
        return JsonResponse(error_body("INTERNAL_ERROR", _INTERNAL_MESSAGE), status=500)
    return server_error(request)


def handler400(request: HttpRequest, exception: Exception) -> Any:
    """400 outside the API views: a host that is not ours, a malformed form."""
    return JsonResponse(error_body("INVALID_REQUEST", "The request is malformed."), status=400)
