"""Collects what is wrong with a request, so that one answer names every mistake in it."""

from collections.abc import Iterable
from difflib import get_close_matches

from config.errors import InvalidRequest
from search.query.body import printable

PROBLEMS_MAX = 20


class Problems:
    """What was refused so far: field path -> reason, at most `PROBLEMS_MAX`."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def add(self, path: str, reason: str) -> None:
        """Note that the value at `path` is refused for `reason`; the first reason for a path stays."""
        if len(self._reasons) < PROBLEMS_MAX:
            self._reasons.setdefault(printable(path, limit=120), reason)

    def raise_any(self) -> None:
        """Raise InvalidRequest when anything was noted; its message states the first and counts the others."""
        if not self._reasons:
            return
        path, reason = next(iter(self._reasons.items()))
        others = len(self._reasons) - 1
        more = f" ({others} more in details.)" if others else ""
        raise InvalidRequest(f"{path}: {reason}.{more}", details=dict(self._reasons))


def unknown(name: str, allowed: Iterable[str], *, what: str) -> str:
    """The reason for an unknown `what`, naming the closest allowed name, else all of them."""
    names = list(allowed)
    close = get_close_matches(name.lower()[:64], names, n=1, cutoff=0.6)
    if close:
        return f'unknown {what} "{printable(name)}"; did you mean "{close[0]}"? Allowed: {", ".join(names)}'
    return f'unknown {what} "{printable(name)}"; allowed: {", ".join(names)}'
