"""The Redis that holds money: one way to it for each process, and Lua scripts loaded from `.lua` files.

There is a quick way and a patient one, see `route`. Calls are repeated only where `config.redis_routes` knows that it is
harmless; a call that timed out may have happened, so each caller decides, knowing that every script carries an operation
id that makes a repetition harmless.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import redis
from django.conf import settings
from redis.exceptions import ClusterDownError, NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError

from config.metrics import observe_script
from config.redis_routes import Cluster, Command, OnTheMove, Route, Server, Word

PARTITIONS = 64
PATIENT_TIMEOUT_S = 5.0

RedisUnavailable = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, redis.exceptions.BusyLoadingError)
"""What is raised when Redis cannot decide: gone, too slow, still reading its data, or refusing to write."""

# What a server answers that may not write now. The error of a script only names them in its text.
_REFUSALS = (ReadOnlyError, OutOfMemoryError, ClusterDownError)
_REFUSALS_IN_TEXT = ("-READONLY", "NOREPLICAS", "MISCONF", "-OOM", "CLUSTERDOWN")

Item = TypeVar("Item")

_routes: dict[bool, Route] = {}
_making = threading.Lock()
os.register_at_fork(after_in_child=_routes.clear)  # connections belong to the process that made them


class RefusesToWrite(redis.exceptions.ConnectionError):
    """The server is there and may not write: a replica, without its replicas, out of memory or disk. Nothing was done."""


def route(*, quick: bool = True) -> Route:
    """The way to the servers of REDIS_URL; connections are pooled and belong to this process.

    A request goes the quick way, which gives up within REDIS_TIMEOUT_MS so that something else can decide; work in batches
    goes the patient one, where a slow answer is better than none.
    """
    known = _routes.get(quick)
    if known is None:
        with _making:
            known = _routes.get(quick) or _routes.setdefault(quick, _make_route(quick))
    return known


def _make_route(quick: bool) -> Route:
    timeout_s = settings.REDIS_TIMEOUT_MS / 1000
    if not quick:
        timeout_s = max(PATIENT_TIMEOUT_S, timeout_s)
    if settings.REDIS_CLUSTER:
        return Cluster(settings.REDIS_URL.split(","), timeout_s=timeout_s)
    return Server(settings.REDIS_URL, timeout_s=timeout_s)


def forget_clients() -> None:
    """Has the next call connect by the settings of that moment; for tests that change them."""
    _routes.clear()


def money() -> "redis.Redis":
    """redis-py's own client of the money, a `RedisCluster` on a cluster; the product itself goes by `route()`."""
    return cast("redis.Redis", route().client)


def shard_of(partition: int) -> str:
    """The server that owns a partition now, as `host:port`; partitions of one shard fail together."""
    return route().place(partition_tag(partition))


def each_by_shard(items: Iterable[Item], *, partition: Callable[[Item], int], work: Callable[[Item], object]) -> None:
    """Does the work for each item. Once a shard does not answer its other items are left alone; its error is raised last.

    So a shard that is away does not keep the customers of the others waiting, and is not asked in vain for each of its own.
    A partition that is between two shards is left alone by itself.
    """
    away: dict[str | int, Exception] = {}
    for item in items:
        number = partition(item)
        shard = shard_of(number)
        if shard in away or number in away:
            continue
        try:
            work(item)
        except OnTheMove as error:
            away[number] = error
        except RedisUnavailable as error:
            away[shard] = error
    for failure in away.values():
        raise failure


def ask(command: Command) -> Any:
    """The reply to one plain command, the quick way."""
    return _sound([_translated(reply) for reply in route().call_many([command])])[0]


def ask_many(commands: Sequence[Command]) -> list[Any]:
    """Replies to plain commands, in their order, in one patient round trip to each server; raises the first error."""
    return _sound(ask_each(commands))


def ask_each(commands: Sequence[Command]) -> list[Any]:
    """As `ask_many`, and an error stands in its command's place."""
    return [_translated(reply) for reply in route(quick=False).call_many(commands)]


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
        started = time.perf_counter()
        try:
            try:
                return way.call(Command(keys[0], ("EVALSHA", self.sha1, len(keys), *keys, *args)))
            except NoScriptError:
                return way.call(Command(keys[0], ("EVAL", self.text, len(keys), *keys, *args)))
        except ResponseError as error:
            raise _translated(error) from error
        finally:
            observe_script(self.name, time.perf_counter() - started)

    def call_many(self, calls: Sequence[tuple[Sequence[str], Sequence[Word]]], *, quick: bool = False) -> list[Any]:
        """Runs the script once for each (keys, args), in one round trip to each server; replies in the same order.

        Waits patiently, unless it is to be `quick`: for a request that can do without the answer. Raises the first error;
        the other calls may have been done.
        """
        return _sound(self.call_each(calls, quick=quick))

    def call_each(self, calls: Sequence[tuple[Sequence[str], Sequence[Word]]], *, quick: bool = False) -> list[Any]:
        """As `call_many`, and an error stands in its call's place: what one server refuses does not stop the others."""
        if not calls:
            return []
        way = route(quick=quick)
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
        return [_translated(reply) for reply in replies]


def _sound(replies: list[Any]) -> list[Any]:
    """The replies, when none is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _translated(reply: Any) -> Any:
    """The reply; in place of an error that says that a server may not write now, `RefusesToWrite`."""
    if isinstance(reply, _REFUSALS) or (
        isinstance(reply, ResponseError) and any(refusal in str(reply) for refusal in _REFUSALS_IN_TEXT)
    ):
        return RefusesToWrite(str(reply)[:300])
    return reply


_TAGS = tuple(f"{{p{partition:02d}}}" for partition in range(PARTITIONS))


def partition_tag(account_number: int) -> str:
    """The hash tag that keeps all of an account's keys in one slot: `{p07}` of `{p00}`..`{p63}`."""
    return _TAGS[account_number % PARTITIONS]
