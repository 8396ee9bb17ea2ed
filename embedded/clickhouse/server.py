"""Sockets and threads of the server.

Idle connections wait in one epoll set. Whichever worker thread is free takes the next readable one, reads the request,
runs it and writes the answer on the blocking socket, then puts the connection back: no hand-over between threads,
natural back-pressure on streams, and the threads live as long as the process.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
import traceback

from embedded.clickhouse.codecs import CorruptBodyError, UnknownEncodingError
from embedded.clickhouse.errors import CANNOT_DECOMPRESS, refusal
from embedded.clickhouse.http import Channel, ClientGoneError, ProtocolError, Request
from embedded.clickhouse.service import Service

SEND_TIMEOUT_S = 300.0
CLIENTS_MAX = 4096
_WATCH_EVERY_S = 0.1
# With no room for another client, how long to wait before looking again.
_FULL_PAUSE_S = 0.1
_DRAIN_MAX_BYTES = 8 * 1024 * 1024
_ONCE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT


class Server:
    """Listens on loopback and serves until `stop`."""

    def __init__(self, service: Service, *, port: int, workers: int) -> None:
        self._service = service
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), _ONCE)
        self._channels: dict[int, Channel] = {}
        self._busy = 0
        self._busy_lock = threading.Lock()
        self.stopping = threading.Event()
        for target, count in ((self._work, workers), (self._watch, 1)):
            for _ in range(count):
                threading.Thread(target=target, daemon=True).start()

    def _work(self) -> None:
        while not self.stopping.is_set():
            for descriptor, _ in self._epoll.poll(1.0, 1):
                if descriptor == self._listener.fileno():
                    self._accept()
                    continue
                channel = self._channels[descriptor]
                with self._busy_lock:
                    self._busy += 1
                try:
                    stays = self._serve(channel)
                except Exception:  # noqa: BLE001 - a worker must survive whatever one request does
                    traceback.print_exc()
                    stays = False
                finally:
                    with self._busy_lock:
                        self._busy -= 1
                if stays:
                    self._epoll.modify(descriptor, _ONCE)
                else:
                    self._drop(descriptor)

    def _accept(self) -> None:
        try:
            while len(self._channels) < CLIENTS_MAX:
                client, _ = self._listener.accept()
                client.settimeout(SEND_TIMEOUT_S)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._channels[client.fileno()] = Channel(client)
                self._epoll.register(client.fileno(), _ONCE)
            self.stopping.wait(_FULL_PAUSE_S)
        except BlockingIOError:
            pass  # nobody else is waiting
        except OSError:
            self.stopping.wait(_FULL_PAUSE_S)  # out of file descriptors, or stopping
        if not self.stopping.is_set():
            self._epoll.modify(self._listener.fileno(), _ONCE)

    def _drop(self, descriptor: int) -> None:
        channel = self._channels.pop(descriptor)
        self._epoll.unregister(descriptor)
        channel.close()

    def _serve(self, channel: Channel) -> bool:
        """Answer the requests that have arrived; False when the connection is over."""
        while True:
            try:
                request = channel.read_request()
                if request is None:
                    return False
                self._answer(request, channel)
            except ProtocolError as error:
                with contextlib.suppress(ClientGoneError):
                    channel.answer(400, [("Connection", "close")], f"{error}\n".encode())
                return False
            except ClientGoneError:
                return False
            if not request.keep_alive or not _drained(channel):
                return False
            if not channel.buffer:
                return True

    def _answer(self, request: Request, channel: Channel) -> None:
        try:
            self._service.answer(request, channel)
        except (CorruptBodyError, UnknownEncodingError) as error:
            said = refusal(CANNOT_DECOMPRESS, str(error), "CANNOT_DECOMPRESS")
            channel.answer(400, [("X-ClickHouse-Exception-Code", str(said.code))], f"{said.text}\n".encode())

    def _watch(self) -> None:
        """Cancel the queries whose clients have gone."""
        while not self.stopping.wait(_WATCH_EVERY_S):
            for running in self._service.running.older_than(_WATCH_EVERY_S):
                poll = select.poll()
                try:
                    poll.register(running.channel.sock.fileno(), select.POLLRDHUP)
                    gone = bool(poll.poll(0))
                except (OSError, ValueError):
                    gone = True
                if gone:
                    self._service.running.kill(running, wait=False)

    def stop(self, *, patience_s: float) -> None:
        """Take no more requests, give the running ones this long, then cancel them."""
        self.stopping.set()
        self._listener.close()
        deadline = time.monotonic() + patience_s
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.02)
        for running in self._service.running.older_than(0):
            self._service.running.kill(running, wait=True)


def _drained(channel: Channel) -> bool:
    """Read what the request's body has left, within reason; False when it is too much."""
    if channel.body_done:
        return True
    if channel.body_chunked or channel.body_left > _DRAIN_MAX_BYTES:
        return False
    for _ in channel.body():
        pass
    return True
