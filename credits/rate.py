"""A key's sliding minute as callers see it."""

import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import NamedTuple

from credits.counters import Admission

WINDOW_S = 60.0
UNLIMITED = 10**9  # what the headers show of a key without a limit: a number, so that every client can parse it


class RateWindow(NamedTuple):
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


@dataclass(frozen=True, slots=True)
class Counted:
    """One call in a local window: whether it fits, how many more do, ms until the oldest call leaves."""

    allowed: bool
    remaining: int
    reset_ms: int


class LocalWindows:
    """Sliding minutes of this process, for while the shared ones are away. Thread-safe.

    Of more than `keys_max` keys the one used longest ago is forgotten; a window holds at most its limit.
    """

    def __init__(self, *, keys_max: int) -> None:
        self._keys_max = keys_max
        self._lock = threading.Lock()
        self._calls: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, key: str, *, limit: int, now: float) -> Counted:
        """Counts a call at `now` (monotonic seconds) if fewer than `limit` came in the last minute; 0 means no limit."""
        if limit == 0:
            return Counted(True, 0, 0)
        with self._lock:
            calls = self._calls.setdefault(key, deque())
            self._calls.move_to_end(key)
            while len(self._calls) > self._keys_max:
                self._calls.popitem(last=False)
            while calls and calls[0] <= now - WINDOW_S:
                calls.popleft()
            allowed = len(calls) < limit
            if allowed:
                calls.append(now)
            oldest_leaves_s = calls[0] + WINDOW_S - now
            return Counted(allowed, limit - len(calls), round(oldest_leaves_s * 1000))
