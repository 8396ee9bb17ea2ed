"""The load client: a process that keeps some connections busy and does as little as it can besides.

Plain non-blocking sockets under one `epoll`, requests made as bytes beforehand, answers only searched for their end. It
takes some 30 µs of CPU a request, the same on either side of a comparison.
"""

import json
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

HOST = "127.0.0.1"
ANSWER_TIMEOUT_S = 30
RECEIVE_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Load:
    """What a load gave: answers a second, and the times of single answers in milliseconds."""

    requests: int
    rate: float
    p50_ms: float
    p95_ms: float


def http_request(method: str, target: str, *, headers: dict[str, str], body: bytes = b"") -> bytes:
    """A request of HTTP/1.1 as it goes over the wire, on a connection that stays open."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {HOST}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def run_load(port: int, requests: Sequence[bytes], *, connections: int, seconds: float, warm_up_s: float = 0.5) -> Load:
    """Runs the load in a process of its own. Raises RuntimeError when an answer was anything but 200."""
    task = {
        "port": port,
        "requests": [request.decode("latin-1") for request in requests],
        "connections": connections,
        "seconds": seconds,
        "warm_up_s": warm_up_s,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=seconds + warm_up_s + 2 * ANSWER_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the load client gave up: {done.stderr.strip().splitlines()[-1][:500]}")
    return Load(**json.loads(done.stdout))


class _Connection:
    """One open connection; `begun` is when its request under way was sent."""

    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=ANSWER_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._requests = requests
        self._received = b""
        self._length = -1  # of the whole answer, once its head is known; 0: sent in chunks
        self.begun = 0.0

    def send(self) -> None:
        self._received, self._length = b"", -1
        self.begun = time.perf_counter()
        self.socket.sendall(next(self._requests))

    def receive(self) -> bool:
        """Reads what there is; True when the answer is complete."""
        part = self.socket.recv(RECEIVE_BYTES)
        if not part:
            raise RuntimeError("the server closed a connection")
        self._received = self._received + part if self._received else part
        if self._length < 0:
            self._read_head()
        if self._length == 0:
            return self._received.endswith(b"0\r\n\r\n")
        return len(self._received) >= self._length > 0

    def _read_head(self) -> None:
        head, separator, _ = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        if b" 200 " not in head[:20]:
            raise RuntimeError(f"the server answered {self._received[:400]!r}")
        names = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
        length = names.get(b"content-length")
        self._length = len(head) + 4 + int(length) if length is not None else 0


def _cycle(requests: list[bytes], start: int) -> Iterator[bytes]:
    place = start
    while True:
        yield requests[place % len(requests)]
        place += 1


def _measure(port: int, requests: list[bytes], connections: int, seconds: float, warm_up_s: float) -> Load:
    selector = selectors.EpollSelector()
    for number in range(connections):
        connection = _Connection(port, _cycle(requests, number * len(requests) // connections))
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.send()
    begun = time.perf_counter() + warm_up_s
    end = begun + seconds
    times: list[float] = []
    while (now := time.perf_counter()) < end:
        ready = selector.select(timeout=ANSWER_TIMEOUT_S)
        if not ready:
            raise RuntimeError(f"no answer for {ANSWER_TIMEOUT_S} s")
        for key, _ in ready:
            connection = key.data
            if not connection.receive():
                continue
            now = time.perf_counter()
            if now >= begun:
                times.append(now - connection.begun)
            connection.send()
    if len(times) < 2:
        raise RuntimeError(f"only {len(times)} answers in {seconds} s")
    cuts = statistics.quantiles(times, n=20)
    return Load(len(times), len(times) / (now - begun), cuts[9] * 1000, cuts[18] * 1000)


if __name__ == "__main__":
    task = json.load(sys.stdin)
    task["requests"] = [request.encode("latin-1") for request in task["requests"]]
    print(json.dumps(asdict(_measure(**task))))
