"""What every request passes through: its id, its caller's address, the content security policy."""

import ipaddress
import re
import uuid
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import cast

import structlog
from csp.middleware import CSPMiddleware
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,64}")
type_of_view = Callable[[HttpRequest], HttpResponseBase]


class RequestId:
    """Gives each request an id (`request.request_id`), the caller's own when it is sane, and sends it back.

    The id also stands on every log line written while the request is served.
    """

    def __init__(self, get_response: type_of_view) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request_id = request.headers.get("X-Request-ID", "")
        if not _SANE_REQUEST_ID.fullmatch(request_id):
            request_id = str(uuid.uuid4())
        request.request_id = request_id  # type: ignore[attr-defined]
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            response = self.get_response(request)
        finally:
            structlog.contextvars.clear_contextvars()
        response["X-Request-ID"] = request_id
        return response


class SchemeOfProxy:
    """Believes `X-Forwarded-Proto: https` when the peer is one of TRUSTED_PROXIES: it has ended TLS for the caller.

    From anybody else it counts for nothing: a cookie meant for HTTPS alone would be set over plain HTTP.
    """

    def __init__(self, get_response: type_of_view) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        peer = request.META.get("REMOTE_ADDR", "")
        said = request.headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip().lower()
        if said == "https" and is_within(peer, settings.TRUSTED_PROXIES):
            request.META["wsgi.url_scheme"] = "https"
        return self.get_response(request)


class ContentSecurityPolicy(CSPMiddleware):
    """The policy of the settings, and `unsafe-eval` under `/admin/` alone, where the admin theme's Alpine.js needs it."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if request.path_info.startswith("/admin/"):
            response._csp_update = {"script-src": ["'unsafe-eval'"]}  # type: ignore[attr-defined]  # noqa: SLF001 - its API
        return super().process_response(request, response)


@lru_cache(maxsize=8)
def _networks(cidrs: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(cidr, strict=False) for cidr in cidrs)


def request_id_of(request: HttpRequest) -> str:
    """The id that `RequestId` gave this request."""
    return cast(str, request.request_id)  # type: ignore[attr-defined]


def client_address(request: HttpRequest) -> str:
    """The caller's IP address. `X-Forwarded-For` counts only when the peer is one of TRUSTED_PROXIES.

    The right-most entry that is not itself a trusted proxy is taken: what stands left of it is the caller's own claim.
    """
    address: str = request.META.get("REMOTE_ADDR", "") or "0.0.0.0"  # noqa: S104 - "unknown", never bound
    forwarded = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",") if part.strip()]
    while forwarded and is_within(address, settings.TRUSTED_PROXIES):
        address = forwarded.pop()
    return address


def is_within(address: str, cidrs: Sequence[str]) -> bool:
    """Whether the address is in one of the networks."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in _networks(tuple(cidrs)))
