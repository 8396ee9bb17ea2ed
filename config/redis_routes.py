"""Where a command for the money's Redis goes: to the one server, or to the master of a cluster that owns its key's slot.

redis-py keeps the connections and, for a cluster, the map of slots. Its own cluster calls are not used for money: their
pipelines refuse scripts, and they sleep and reconnect inside the call, past the time that a decision has. Here every
call has one bound of time:

- MOVED, ASK, TRYAGAIN and CLUSTERDOWN say that nothing was done: such a command is sent again, where the answer says or after
  a pause, until its time is over.
- A connection that failed or timed out says nothing. The map is read again, and only when the slot has another master by now
  the command goes there, once: each script carries an operation id or a number that makes a repetition harmless.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import hiredis
import redis
import structlog
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisClusterException,
    RedisError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.retry import Retry

log = structlog.get_logger(__name__)

CONNECTIONS_MAX = 64  # of one process to one server
PAUSE_S = 0.01
REDIRECTS_MAX = 100
REFRESH_EVERY_S = 0.1

Word = str | bytes | int | float
_LOST = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
_NOT_DONE = (AskError, TryAgainError, ClusterDownError, SlotNotCoveredError)  # MovedError is an AskError


class Undecided(redis.exceptions.ConnectionError):
    """No node of the cluster took the command in its time: its slot is on the move, or its master is being replaced."""


class OnTheMove(Undecided):
    """The command's keys are between two masters that are both well: it says nothing about their other slots."""


class PoolExhausted(redis.exceptions.ConnectionError):
    """This process' own threads have every connection in use: it says nothing about Redis."""


class _Pool(redis.BlockingConnectionPool):
    def get_connection(self, *_: Any, **__: Any) -> Any:
        try:
            return super().get_connection()  # type: ignore[no-untyped-call]
        except redis.exceptions.ConnectionError as error:
            if str(error) == "No connection available.":  # redis-py has no class for it
                raise PoolExhausted(str(error)) from error
            raise


class Command(NamedTuple):
    """A command as it is sent, and one of its keys; all of them share a hash tag."""

    key: str
    words: tuple[Word, ...]


class Route(Protocol):
    """How commands reach the money; errors are redis-py's."""

    @property
    def client(self) -> "redis.Redis | RedisCluster":
        """redis-py's own client of all of it."""

    def call(self, command: Command) -> Any:
        """One command, its reply as it comes: bytes, numbers, lists."""

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        """Replies in the same order, one round trip for each server; an error stands in its command's place.

        A slot that is between two masters, or has none, is not waited for: batches come again.
        """

    def place(self, key: str) -> str:
        """The server that owns the key now, as `host:port`."""

    def masters(self) -> "dict[str, redis.Redis]":
        """A client of each server that owns keys, by its place."""

    def replicas(self) -> "dict[str, redis.Redis]":
        """A client of each server that may own keys after a failover, by its place; none without a cluster."""


class Server:
    """One Redis server."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        pool = _Pool.from_url(url, retry=Retry(NoBackoff(), 0), **_connections(timeout_s))
        self._client = redis.Redis(connection_pool=pool)
        self._lane = _Lane(self._client)
        made = pool.connection_kwargs
        self._place = f"{made.get('host', 'localhost')}:{made.get('port', 6379)}"

    @property
    def client(self) -> "redis.Redis":
        return self._client

    def call(self, command: Command) -> Any:
        return self._lane.ask(command.words)

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        return _pipelined(self._client, commands)

    def place(self, key: str) -> str:
        return self._place

    def masters(self) -> "dict[str, redis.Redis]":
        return {self._place: self._client}

    def replicas(self) -> "dict[str, redis.Redis]":
        return {}


class Cluster:
    """A Redis Cluster; its URLs need not name every node. A database number other than 0 does not exist there."""

    def __init__(self, urls: Sequence[str], *, timeout_s: float) -> None:
        try:
            self._cluster = RedisCluster(
                url=urls[0],
                startup_nodes=[_node(url) for url in urls[1:]],
                require_full_coverage=False,  # the slots that have a master are served
                retry=Retry(NoBackoff(), 0),
                connection_pool_class=_Pool,
                **_connections(timeout_s),
            )
        except (RedisClusterException, IndexError) as error:  # IndexError: nodes that have met and own no slot
            raise Undecided(f"No node of the cluster tells who owns its slots: {error}") from error
        self._nodes = self._cluster.nodes_manager
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._refreshing: threading.Thread | None = None
        self._refreshed_at = time.monotonic()

    @property
    def client(self) -> RedisCluster:
        return self._cluster

    def call(self, command: Command) -> Any:
        return self._call(command, waits=True)

    def call_many(self, commands: Sequence[Command]) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        places = [self.place(command.key) for command in commands]
        self._send_each(commands, places, range(len(commands)), replies)
        lost = [number for number, reply in enumerate(replies) if isinstance(reply, _LOST)]
        if lost:
            self._refresh(time.monotonic() + self._timeout_s)
            moved = [number for number in lost if self.place(commands[number].key) != places[number]]
            self._send_each(commands, [self.place(command.key) for command in commands], moved, replies)
        for number, reply in enumerate(replies):
            if isinstance(reply, AskError):
                try:
                    replies[number] = self._call(commands[number], waits=False)
                except (RedisError, SlotNotCoveredError) as error:
                    replies[number] = error
        return [_undecided(reply) if isinstance(reply, _NOT_DONE) else reply for reply in replies]

    def _send_each(
        self, commands: Sequence[Command], places: Sequence[str], numbers: Iterable[int], replies: list[Any]
    ) -> None:
        """Sends these commands, one round trip to each place, and puts what comes of each into its place."""
        by_place: dict[str, list[int]] = {}
        for number in numbers:
            by_place.setdefault(places[number], []).append(number)
        for together in by_place.values():
            batch = [commands[number] for number in together]
            try:
                answered = _pipelined(self._client_of(self._owner(batch[0].key)), batch)
            except (*_LOST, SlotNotCoveredError) as error:
                answered = [error] * len(batch)
            for number, reply in zip(together, answered, strict=True):
                replies[number] = reply

    def place(self, key: str) -> str:
        try:
            return str(self._owner(key).name)
        except SlotNotCoveredError:
            return "nobody"

    def masters(self) -> "dict[str, redis.Redis]":
        return {node.name: self._client_of(node) for node in self._nodes.get_nodes_by_server_type("primary")}

    def replicas(self) -> "dict[str, redis.Redis]":
        return {node.name: self._client_of(node) for node in self._nodes.get_nodes_by_server_type("replica")}

    def _call(self, command: Command, *, waits: bool) -> Any:
        """Sends a command until it is done or its time is over; unless it `waits`, a slot in between is left alone."""
        deadline = time.monotonic() + self._timeout_s
        asked: redis.Redis | None = None
        lost = False
        for _ in range(REDIRECTS_MAX):
            place = self.place(command.key)
            try:
                return self._send(command, asked)
            except PoolExhausted:
                raise
            except _LOST:
                self._refresh(deadline)
                if lost or self.place(command.key) == place:
                    raise
                asked, lost = None, True
            except _NOT_DONE as error:
                if time.monotonic() >= deadline or not (waits or isinstance(error, AskError)):
                    raise _undecided(error) from error
                asked = self._heed(error, deadline)
        raise Undecided("The cluster sent the command round and round.")

    def _send(self, command: Command, asked: "redis.Redis | None") -> Any:
        if asked is None:
            owner = self._client_of(self._owner(command.key))
            return owner.execute_command(*command.words)  # type: ignore[no-untyped-call]
        # ASKING counts for the next command of the same connection.
        reply = _pipelined(asked, [Command(command.key, ("ASKING",)), command])[1]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _heed(self, failure: Exception, deadline: float) -> "redis.Redis | None":
        """Does what an answer asks for; returns the node to be asked when the slot is half-way there."""
        if isinstance(failure, MovedError):
            try:
                self._nodes.move_slot(failure)
            except KeyError:  # a slot that nobody owned
                self._refresh(deadline)
        elif isinstance(failure, AskError):
            node = self._nodes.get_node(host=failure.host, port=failure.port)
            if node is not None:
                return self._client_of(node)
            self._refresh(deadline)  # a master that is new to us
        elif isinstance(failure, TryAgainError):
            time.sleep(PAUSE_S)
        else:
            self._refresh(deadline)
            time.sleep(PAUSE_S)
        return None

    def _owner(self, key: str) -> ClusterNode:
        return self._nodes.get_node_from_slot(key_slot(key.encode()))

    def _client_of(self, node: ClusterNode) -> "redis.Redis":
        return self._cluster.get_redis_connection(node)

    def _refresh(self, deadline: float) -> None:
        """Has the map of slots read again, by one thread at a time, and waits for it until the deadline.

        The reading asks one node after the other and may take several timeouts, so no caller reads it itself.
        """
        with self._lock:
            if self._refreshing is None or not self._refreshing.is_alive():
                if time.monotonic() < self._refreshed_at + REFRESH_EVERY_S:
                    return
                self._refreshing = threading.Thread(target=self._read_map, daemon=True, name="redis-cluster-map")
                self._refreshing.start()
            refreshing = self._refreshing
        refreshing.join(max(0.0, deadline - time.monotonic()))

    def _read_map(self) -> None:
        try:
            # Connections are kept: another thread may be about to use one.
            self._nodes.initialize(disconnect_startup_nodes_pools=False)
        except (RedisClusterException, RedisError, IndexError) as error:
            log.warning("redis_cluster_unmapped", error=type(error).__name__, reason=str(error)[:300])
        self._refreshed_at = time.monotonic()


def _undecided(answer: Exception) -> Undecided:
    kind = OnTheMove if isinstance(answer, (AskError, TryAgainError)) else Undecided
    return kind(f"No master took the command in its time: {answer}")


def _node(url: str) -> ClusterNode:
    parts = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    return ClusterNode(parts.get("host", "localhost"), parts.get("port", 6379))  # type: ignore[no-untyped-call]


def _connections(timeout_s: float) -> dict[str, Any]:
    """What every connection keeps to: it belongs to this process and answers in time."""
    return {
        "max_connections": CONNECTIONS_MAX,
        "timeout": timeout_s,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
    }


class _Lane:
    """A quick way over a client's pool: its connections are handed on as they are.

    redis-py's own call takes a lock and polls the socket, looks at every word, at callbacks and at telemetry, which takes as
    long as all else of a call. An idle connection that the server has closed meanwhile shows when it is used: then the pool
    gives a new one, and the command goes again, which is harmless for a script with an operation id.
    """

    def __init__(self, client: "redis.Redis") -> None:
        self._pool = client.connection_pool
        self._idle: deque[Any] = deque()

    def ask(self, words: tuple[Word, ...]) -> Any:
        """The reply to one command as it comes, or its error."""
        packed = [hiredis.pack_command(words)]  # type: ignore[arg-type]
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._exchange(self._pool.get_connection(), packed)
        try:
            return self._exchange(connection, packed)
        except redis.exceptions.ConnectionError:
            while self._idle:
                self._pool.release(self._idle.pop())
            return self._exchange(self._pool.get_connection(), packed)

    def _exchange(self, connection: Any, packed: list[bytes]) -> Any:
        try:
            connection.send_packed_command(packed)
            reply = connection.read_response()
        except BaseException:
            self._pool.release(connection)  # redis-py has closed it, unless the error was the answer
            raise
        self._idle.append(connection)
        return reply


def _pipelined(client: "redis.Redis", commands: Sequence[Command]) -> list[Any]:
    """One round trip; an error reply stands in its command's place. Raises when the connection fails."""
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command.words)  # type: ignore[no-untyped-call]
    return list(pipeline.execute(raise_on_error=False))
