"""The version of the data in `records`: it grows with every change, so that whatever is cached can be told to be old.

Kept in the cache, whose readers it serves, and never needed to be right: a version that is lost (an emptied cache) is None,
and a reader that finds None caches nothing.
"""

import time

from django.core.cache import cache

KEY = "records:data-version"


def current() -> int | None:
    """The version now, None when it is not known: then nothing may be cached."""
    version = cache.get(KEY)
    return int(version) if version is not None else None


def raise_version() -> int:
    """Makes everything cached before this moment old. Microseconds since 1970, and always more than before."""
    version = max(time.time_ns() // 1000, (current() or 0) + 1)
    cache.set(KEY, version, timeout=None)
    return version
