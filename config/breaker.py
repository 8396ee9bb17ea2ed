"""When to stop asking a server that does not answer: one breaker for each, in this process.

Closed, everybody asks. A failure opens it: nobody asks, but for one caller a second who finds out whether the server is back.
Its success closes it. No I/O happens here; callers give the time of their monotonic clock.
"""

import threading

from config.redis import RedisUnavailable, shard_of

PROBE_EVERY_S = 1.0
# Stands for every server of a cluster as long as none of them has told who owns what.
_UNMAPPED = ""


class Breaker:
    """Thread-safe. A caller that may ask says afterwards how it went; one that never does is not waited for."""

    def __init__(self, *, probe_every_s: float = PROBE_EVERY_S) -> None:
        self._probe_every_s = probe_every_s
        self._lock = threading.Lock()
        self._next_probe: float | None = None

    @property
    def is_open(self) -> bool:
        return self._next_probe is not None

    def lets(self, *, now: float) -> bool:
        """Whether this caller may ask the server; while it is open, True is said to one caller in each interval."""
        if not self.is_open:
            return True
        with self._lock:
            if self._next_probe is None:  # closed at this moment
                return True
            if now < self._next_probe:
                return False
            self._next_probe = now + self._probe_every_s
            return True

    def failed(self, *, now: float) -> None:
        """The server did not answer."""
        with self._lock:
            self._next_probe = now + self._probe_every_s

    def succeeded(self) -> None:
        """The server answered."""
        if self.is_open:
            with self._lock:
                self._next_probe = None


_breakers: dict[str, Breaker] = {}
_making = threading.Lock()


def breaker_of(partition: int, *, now: float) -> Breaker:
    """The breaker of the server that owns the partition."""
    unmapped = _breaker(_UNMAPPED)
    if not unmapped.lets(now=now):
        return unmapped
    try:
        place = shard_of(partition)
    except RedisUnavailable:
        unmapped.failed(now=now)
        return unmapped
    unmapped.succeeded()
    return _breaker(place)


def forget_breakers() -> None:
    """Closes all of them; for tests that take servers away and give them back."""
    _breakers.clear()


def _breaker(place: str) -> Breaker:
    known = _breakers.get(place)
    if known is None:
        with _making:
            known = _breakers.setdefault(place, Breaker())
    return known
