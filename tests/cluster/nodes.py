"""A Redis Cluster of three masters and three replicas from the embedded redis-server, to be killed and resharded.

It is built by commands alone, as redis-cli would; time limits are small, so that a failover takes about two seconds.
"""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import psutil
import redis
from django.test import override_settings
from redis.crc import key_slot

from config.redis import forget_clients, partition_tag, route
from embedded import processes
from embedded.ports import LOOPBACK, is_free
from embedded.processes import Program
from embedded.redis import binary

MASTERS, REPLICAS = 3, 3
SLOTS = 16384
NODE_TIMEOUT_MS = 1000
START_TIMEOUT_S = 60.0
BUS = 10_000  # the nodes talk to each other on their port + 10,000
_LINES = (
    "cluster-enabled yes",
    f"cluster-node-timeout {NODE_TIMEOUT_MS}",
    "cluster-require-full-coverage no",
    "repl-backlog-ttl 0",
    "repl-diskless-sync yes",
    "repl-diskless-sync-delay 0",
    "maxmemory-policy noeviction",
    "appendonly no",
    'save ""',
    "set-proc-title no",
)


def slot_of(partition: int) -> int:
    """The slot that all keys of a partition have."""
    return int(key_slot(partition_tag(partition).encode()))


class Node:
    """One redis-server of the cluster; `kill` is kill -9, and `start` brings it back with what it knew of the cluster."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.place = f"{LOOPBACK}:{port}"
        folder.mkdir()
        configuration = folder / "redis.conf"
        configuration.write_text("\n".join([*_LINES, f"bind {LOOPBACK}", f"port {port}", f"dir {folder}"]) + "\n")
        self._program = Program(
            name=f"redis-{port}",
            argv=[str(binary()), str(configuration)],
            marker=str(configuration),
            pid_file=folder / "pid",
            log_file=folder / "log",
            cwd=folder,
        )
        self._process: psutil.Process | None = None
        self.client = redis.Redis(host=LOOPBACK, port=port, socket_timeout=10)

    def start(self) -> None:
        self._process = processes.start(self._program, dies_with_parent=True)
        processes.wait_until(self.answers, self._program, self._process, timeout_s=START_TIMEOUT_S)

    def stop(self) -> None:
        self.client.close()
        processes.stop(self._program)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=10)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered."""
        assert self._process is not None
        self._process.suspend()

    def thaw(self) -> None:
        assert self._process is not None
        self._process.resume()

    def cut_off(self, master: "Node") -> None:
        """This replica receives nothing any more: it tries to log in as somebody whom its master does not know."""
        self.client.config_set("masteruser", "nobody")
        self.client.config_set("masterauth", "wrong")
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.client.info("replication")["master_link_status"] != "down":
            master.client.execute_command("CLIENT KILL", "TYPE", "replica")  # type: ignore[no-untyped-call]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def follow_again(self) -> None:
        self.client.config_set("masteruser", "")
        self.client.config_set("masterauth", "")

    def is_running(self) -> bool:
        return processes.recorded(self._program) is not None

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def cluster(self, *words: str | int) -> Any:
        """A CLUSTER command, its reply as redis-py reads it."""
        return self.client.execute_command(f"CLUSTER {words[0]}", *words[1:])  # type: ignore[no-untyped-call]

    def owners(self) -> dict[tuple[int, int], int]:
        """The port of the master of each range of slots, as this node sees it."""
        return {(first, last): master[1] for first, last, master, *_ in self.cluster("SLOTS")}

    @property
    def identity(self) -> str:
        return str(self.client.execute_command("CLUSTER MYID").decode())  # type: ignore[no-untyped-call]

    @property
    def role(self) -> str:
        return str(self.client.info("replication")["role"])


class Nodes:
    """The six nodes."""

    def __init__(self, folder: Path) -> None:
        ports = _free_ports(MASTERS + REPLICAS)
        self.nodes = [Node(folder / str(port), port) for port in ports]

    @property
    def url(self) -> str:
        """REDIS_URL: three of the six, so that the others have to be found."""
        return ",".join(f"redis://{node.place}/0" for node in self.nodes[::2])

    def start(self) -> None:
        for number, node in enumerate(self.nodes, start=1):
            node.start()
            node.cluster("SET-CONFIG-EPOCH", number)
        masters, replicas = self.nodes[:MASTERS], self.nodes[MASTERS:]
        for number, node in enumerate(masters):
            node.cluster("ADDSLOTS", *range(SLOTS * number // MASTERS, SLOTS * (number + 1) // MASTERS))
        for node in self.nodes[1:]:
            node.cluster("MEET", LOOPBACK, self.nodes[0].port)
        self._until(lambda: all(len(node.cluster("NODES")) == len(self.nodes) for node in self.nodes))
        for master, replica in zip(masters, replicas, strict=True):
            replica.cluster("REPLICATE", master.identity)
        self.wait_until_whole()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def heal(self) -> None:
        """Starts what was killed and waits until every master has its replica again."""
        for node in self.nodes:
            if not node.is_running():
                node.start()
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Waits until all nodes agree on three masters that own all slots, each with a replica that has its data."""
        self._until(self._is_whole)

    def _is_whole(self) -> bool:
        try:
            views = [node.owners() for node in self.nodes]
            states = [node.cluster("INFO")["cluster_state"] for node in self.nodes]
            replications = [node.client.info("replication") for node in self.nodes]
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        masters = [replication for replication in replications if replication["role"] == "master"]
        replicas = [replication for replication in replications if replication["role"] == "slave"]
        return (
            all(view == views[0] for view in views)
            and states == ["ok"] * len(self.nodes)
            and len(masters) == MASTERS
            and all(master["connected_slaves"] >= 1 for master in masters)
            and all(replica["master_link_status"] == "up" for replica in replicas)
        )

    def masters(self) -> list[Node]:
        return [node for node in self.nodes if node.answers() and node.role == "master"]

    def owner(self, partition: int) -> Node:
        """The master that serves a partition, asked from the nodes themselves."""
        slot = slot_of(partition)
        for node in self.nodes:
            if not node.is_running():
                continue
            for (first, last), port in node.owners().items():
                if first <= slot <= last:
                    return self.at(port)
        raise LookupError(f"nobody serves slot {slot}")

    def replica_of(self, master: Node) -> Node:
        """A replica that has the master's data."""
        return next(
            node
            for node in self.nodes
            if node.role == "slave" and node.client.info("replication")["master_port"] == master.port
        )

    def at(self, port: int) -> Node:
        return next(node for node in self.nodes if node.port == port)

    def wait_for_promotion(self, lost: Node) -> float:
        """Waits until the slots of a master that was killed or frozen have another one; seconds it took."""
        began = time.monotonic()
        others = [node for node in self.nodes if node is not lost]

        def taken_over() -> bool:
            return all(lost.port not in node.owners().values() for node in others)

        self._until(taken_over)
        return time.monotonic() - began

    def begin_move(self, partition: int, *, source: Node, target: Node) -> None:
        """From now on keys of the partition that the source does not have are looked for at the target."""
        target.cluster("SETSLOT", slot_of(partition), "IMPORTING", source.identity)
        source.cluster("SETSLOT", slot_of(partition), "MIGRATING", target.identity)

    def move_keys(self, partition: int, *, source: Node, target: Node, at_most: int = 1_000_000) -> int:
        """Moves up to `at_most` keys of a slot on the move; how many."""
        moved = 0
        while moved < at_most:
            keys = source.client.execute_command(  # type: ignore[no-untyped-call]
                "CLUSTER GETKEYSINSLOT", slot_of(partition), min(10, at_most - moved)
            )
            if not keys:
                break
            moved += len(keys)
            source.client.migrate(LOOPBACK, target.port, keys, 0, 5000)
        return moved

    def end_move(self, partition: int, *, source: Node, target: Node) -> None:
        """The target owns the slot; target and source are told first, as redis-cli does."""
        for node in (target, source, *(node for node in self.masters() if node not in (source, target))):
            node.cluster("SETSLOT", slot_of(partition), "NODE", target.identity)

    def move(self, partition: int, *, target: Node) -> None:
        """Moves a partition with all its keys to another master."""
        source = self.owner(partition)
        self.begin_move(partition, source=source, target=target)
        while self.move_keys(partition, source=source, target=target):
            pass
        self.end_move(partition, source=source, target=target)

    def _until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            assert time.monotonic() < deadline, "the cluster did not become what it should"
            time.sleep(0.02)


def _free_ports(count: int) -> Sequence[int]:
    """Ports whose bus port is free, too."""
    found: list[int] = []
    random = Random()
    while len(found) < count:
        port = random.randrange(20_000, 50_000)
        if port not in found and is_free(port) and is_free(port + BUS):
            found.append(port)
    return found


@contextlib.contextmanager
def running() -> Iterator[Nodes]:
    """Six nodes in a temporary folder, ended with the block."""
    folder = Path(tempfile.mkdtemp(prefix="mh-cluster-"))
    nodes = Nodes(folder)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def in_use(nodes: Nodes) -> Iterator[None]:
    """The product's settings and clients lead to the cluster, and holds are short.

    Afterwards they lead to this worker's own server again, emptied: accounts that were loaded in the cluster have gone on
    to later epochs.
    """
    with override_settings(REDIS_URL=nodes.url, REDIS_CLUSTER=True, REDIS_TIMEOUT_MS=250, HOLD_S=3):
        forget_clients()
        try:
            yield
        finally:
            forget_clients()
    forget_clients()
    for server in route().masters().values():
        server.flushall()
