"""Remembers key ids that Postgres does not know, so that guesses do not reach it again."""

import threading
import time
from collections import OrderedDict


class UnknownKeys:
    """The last `size_max` unknown key ids of this process, each for `kept_s` seconds. Thread-safe.

    Ids are drawn at random and shown only after they were written, so an id that is unknown now becomes known later
    only by chance; the short time bounds even that.
    """

    def __init__(self, *, size_max: int, kept_s: float) -> None:
        self._size_max = size_max
        self._kept_s = kept_s
        self._until: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, public_id: str) -> None:
        with self._lock:
            self._until[public_id] = time.monotonic() + self._kept_s
            self._until.move_to_end(public_id)
            while len(self._until) > self._size_max:
                self._until.popitem(last=False)

    def holds(self, public_id: str) -> bool:
        until = self._until.get(public_id)
        return until is not None and until > time.monotonic()
