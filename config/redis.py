"""The Redis that holds money: one way to it for each process, and Lua scripts loaded from `.lua` files.

Calls are repeated only where `config.redis_routes` knows that it is harmless; a call that timed out may have happened, so
each caller decides, knowing that every script carries an operation id that makes a repetition harmless.
"""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import redis
from django.conf import settings
from redis.exceptions import ClusterDownError, NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError

from config.redis_routes import Cluster, Command, Route, Server, Word

PARTITIONS = 64

RedisUnavailable = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, redis.exceptions.BusyLoadingError)
"""What is raised when Redis cannot decide: gone, too slow, still reading its data, or refusing to write."""

# What a server answers that may not write now. The error of a script only names them in its text.
_REFUSALS = (ReadOnlyError, OutOfMemoryError, ClusterDownError)
_REFUSALS_IN_TEXT = ("-READONLY", "NOREPLICAS", "MISCONF", "-OOM", "CLUSTERDOWN")

_routes: dict[str, Route] = {}
_making = threading.Lock()


class RefusesToWrite(redis.exceptions.ConnectionError):
    """The server is there and may not write: a replica, without its replicas, out of memory or disk. Nothing was done."""


def route() -> Route:
    """The way to the servers of REDIS_URL; connections are pooled, belong to this process, answer in REDIS_TIMEOUT_MS."""
    known = _routes.get("money")
    if known is None:
        with _making:
            known = _routes.get("money") or _routes.setdefault("money", _make_route())
    return known


def _make_route() -> Route:
    timeout_s = settings.REDIS_TIMEOUT_MS / 1000
    if settings.REDIS_CLUSTER:
        return Cluster(settings.REDIS_URL.split(","), timeout_s=timeout_s)
    return Server(settings.REDIS_URL, timeout_s=timeout_s)


def forget_clients() -> None:
    """Has the next call look for Redis where the settings say now; for tests that change them."""
    _routes.clear()


def money() -> "redis.Redis":
    """redis-py's own client of the money, a `RedisCluster` on a cluster; the product itself goes by `route()`."""
    return cast("redis.Redis", route().client)


def shard_of(partition: int) -> str:
    """The server that owns a partition now, as `host:port`; partitions of one shard fail together."""
    return route().place(partition_tag(partition))


def ask_many(commands: Sequence[Command]) -> list[Any]:
    """Replies to plain commands, in their order, in one round trip to each server; raises the first error."""
    replies = route().call_many(commands)
    for reply in replies:
        if isinstance(reply, Exception):
            raise _translated(reply)
    return replies


class Script:
    """A Lua script from a file, called by its SHA-1 and sent again when the server has forgotten it.

    `includes` are files whose local functions stand before the script's own text.
    """

    def __init__(self, path: Path, *, includes: Sequence[Path] = ()) -> None:
        self.name = path.stem
        self.text = "\n".join(part.read_text() for part in (*includes, path))
        self.sha1 = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def call(self, *, keys: Sequence[str], args: Sequence[Word]) -> Any:
        """Runs the script; every key it touches is in `keys`. Returns Redis' reply with bytes left as bytes."""
        way = route()
        try:
            try:
                return way.call(Command(keys[0], ("EVALSHA", self.sha1, len(keys), *keys, *args)))
            except NoScriptError:
                return way.call(Command(keys[0], ("EVAL", self.text, len(keys), *keys, *args)))
        except ResponseError as error:
            raise _translated(error) from error

    def call_many(self, calls: Sequence[tuple[Sequence[str], Sequence[Word]]]) -> list[Any]:
        """Runs the script once for each (keys, args), in one round trip to each server; replies in the same order.

        Raises the first error; the other calls may have been done.
        """
        if not calls:
            return []
        way = route()
        replies = way.call_many(
            [Command(keys[0], ("EVALSHA", self.sha1, len(keys), *keys, *args)) for keys, args in calls]
        )
        # Servers that do not know the script have not run it.
        missing = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        again = [
            Command(keys[0], ("EVAL", self.text, len(keys), *keys, *args))
            for keys, args in (calls[number] for number in missing)
        ]
        for number, reply in zip(missing, way.call_many(again) if again else [], strict=True):
            replies[number] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise _translated(reply)
        return replies


def _translated(error: Exception) -> Exception:
    """The error, or `RefusesToWrite` where a server answered that it may not write at the moment."""
    if isinstance(error, _REFUSALS) or (
        isinstance(error, ResponseError) and any(refusal in str(error) for refusal in _REFUSALS_IN_TEXT)
    ):
        return RefusesToWrite(str(error)[:300])
    return error


_TAGS = tuple(f"{{p{partition:02d}}}" for partition in range(PARTITIONS))


def partition_tag(account_number: int) -> str:
    """The hash tag that keeps all of an account's keys in one slot: `{p07}` of `{p00}`..`{p63}`."""
    return _TAGS[account_number % PARTITIONS]
