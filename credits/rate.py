"""A key's sliding minute as callers see it."""

import time
from dataclasses import dataclass

from credits.counters import Admission

UNLIMITED = 10**9  # what the headers show of a key without a limit: a number, so that every client can parse it


@dataclass(frozen=True, slots=True)
class RateWindow:
    """A key's sliding minute: `limit` and `remaining` calls (None: no limit), `reset_s` until the oldest call leaves it."""

    limit: int | None
    remaining: int | None
    reset_s: int


def rate_headers(rate: RateWindow) -> dict[str, str]:
    """`X-RateLimit-*` (reset as a UNIX time) and the IETF pair of draft-ietf-httpapi-ratelimit-headers-10."""
    limit = UNLIMITED if rate.limit is None else rate.limit
    remaining = UNLIMITED if rate.remaining is None else rate.remaining
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(int(time.time()) + rate.reset_s),
        "RateLimit-Policy": f'"minute";q={limit};w=60',
        "RateLimit": f'"minute";r={remaining};t={rate.reset_s}',
    }


def window_of(admission: Admission) -> RateWindow:
    """The window that admit.lua told."""
    return RateWindow(admission.limit, admission.remaining, -(-admission.reset_ms // 1000))
