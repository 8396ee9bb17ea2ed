"""The Redis that holds money: one client a process, and Lua scripts loaded from `.lua` files.

The client never retries by itself: a call that timed out may have happened, so each caller decides, knowing that every
script carries an operation id that makes a repetition harmless.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

PARTITIONS = 64

RedisUnavailable = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, redis.exceptions.BusyLoadingError)
"""What redis-py raises when Redis cannot answer: gone, too slow, or still reading its data from disk."""


@lru_cache(maxsize=1)
def money() -> "redis.Redis[bytes]":  # type: ignore[type-arg, unused-ignore]
    """The client of REDIS_URL; connections are pooled, belong to this process and answer within REDIS_TIMEOUT_MS."""
    timeout_s = settings.REDIS_TIMEOUT_MS / 1000
    pool = redis.BlockingConnectionPool.from_url(
        settings.REDIS_URL,
        max_connections=64,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
    return redis.Redis(connection_pool=pool)


class Script:
    """A Lua script from a file, called by its SHA-1 and sent again when the server has forgotten it.

    `includes` are files whose local functions stand before the script's own text.
    """

    def __init__(self, path: Path, *, includes: Sequence[Path] = ()) -> None:
        self.name = path.stem
        self.text = "\n".join(part.read_text() for part in (*includes, path))
        self.sha1 = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def call(self, *, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """Runs the script; every key it touches is in `keys`. Returns Redis' reply with bytes left as bytes."""
        client = money()
        try:
            return client.evalsha(self.sha1, len(keys), *keys, *args)
        except NoScriptError:
            return client.eval(self.text, len(keys), *keys, *args)

    def call_many(self, calls: Sequence[tuple[Sequence[str], Sequence[str | int]]]) -> list[Any]:
        """Runs the script once for each (keys, args) in one round trip; replies in the same order."""
        if not calls:
            return []
        try:
            return self._pipeline(calls)
        except NoScriptError:
            money().script_load(self.text)
            return self._pipeline(calls)

    def _pipeline(self, calls: Sequence[tuple[Sequence[str], Sequence[str | int]]]) -> list[Any]:
        pipeline = money().pipeline(transaction=False)
        for keys, args in calls:
            pipeline.evalsha(self.sha1, len(keys), *keys, *args)
        return pipeline.execute()


_TAGS = tuple(f"{{p{partition:02d}}}" for partition in range(PARTITIONS))


def partition_tag(account_number: int) -> str:
    """The hash tag that keeps all of an account's keys in one slot: `{p07}` of `{p00}`..`{p63}`."""
    return _TAGS[account_number % PARTITIONS]
