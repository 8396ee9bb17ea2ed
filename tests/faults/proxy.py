"""A TCP proxy that can be told to fail: one stands between a process and a store, so that this process alone is cut off."""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import Enum
from types import TracebackType
from typing import Any, Self, TypeVar

from embedded.ports import LOOPBACK

Result = TypeVar("Result")
Upstream = tuple[str, int] | str
"""Host and port, or the path of a unix socket."""

_CHUNK_BYTES = 65536
_CALL_TIMEOUT_S = 10
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with 0 s: closing sends RST


class Mode(Enum):
    """PASS forwards. CUT resets what is open and what comes. FREEZE accepts and forwards nothing until it ends, then
    everything. DROP_REPLIES forwards requests and swallows their answers. LOSSY forwards every request, but resets the
    connection instead of bringing some of the answers. DELAY holds each chunk back for a while."""

    PASS = "pass"
    CUT = "cut"
    FREEZE = "freeze"
    DROP_REPLIES = "drop replies"
    LOSSY = "lossy"
    DELAY = "delay"


class _Link:
    """One client's connection and the one to the store behind it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.store: asyncio.StreamWriter | None = None
        self.lost_replies = False

    def reset(self) -> None:
        for writer in (self.client, self.store):
            if writer is None:
                continue
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class Proxy:
    """Listens on a loopback port for `upstream`. Made by `Proxies.add`; its methods may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, upstream: Upstream) -> None:
        self.upstream = upstream
        self.port = 0
        self.mode = Mode.PASS
        self._delay_s = 0.0
        self._loss = 0.0
        self._loop = loop
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None

    def set(self, mode: Mode, *, delay_s: float = 0.0, loss: float = 0.0) -> None:
        """Changes the mode for connections that are open and for those to come; returns when it holds.

        `delay_s` is for DELAY, `loss` the share of answers that LOSSY loses.
        """
        _run(self._loop, self._set(mode, delay_s, loss))

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._reset_all()
        self._flowing.set()

    def _reset_all(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _set(self, mode: Mode, delay_s: float, loss: float) -> None:
        self.mode, self._delay_s, self._loss = mode, delay_s, loss
        if mode is Mode.CUT:
            self._reset_all()
        for link in list(self._links):
            if link.lost_replies:
                link.reset()  # the next answer would be taken for the one that was swallowed
        if mode is Mode.FREEZE:
            self._flowing.clear()
        else:
            self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        if self.mode is Mode.CUT:
            link.reset()
            return
        self._links.add(link)
        try:
            await self._flowing.wait()
            store_reader, link.store = await self._connect()
            await asyncio.gather(
                self._pump(reader, link.store, link, replies=False),
                self._pump(store_reader, writer, link, replies=True),
            )
        except OSError:
            link.reset()
        finally:
            self._links.discard(link)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.upstream, str):
            return await asyncio.open_unix_connection(self.upstream)
        return await asyncio.open_connection(*self.upstream)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link, *, replies: bool
    ) -> None:
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                await self._flowing.wait()
                if replies and self.mode is Mode.DROP_REPLIES:
                    link.lost_replies = True
                    continue
                if replies and self.mode is Mode.LOSSY and random.random() < self._loss:
                    link.reset()
                    return
                if self.mode is Mode.DELAY:
                    await asyncio.sleep(self._delay_s)
                writer.write(chunk)
                await writer.drain()
        finally:
            writer.close()  # what was written is still sent


class Proxies:
    """Proxies that share one thread. `with Proxies() as proxies: proxies.add(("127.0.0.1", 6379)).port`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._all: list[Proxy] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _run(self._loop, self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=_CALL_TIMEOUT_S)
        self._loop.close()

    def add(self, upstream: Upstream) -> Proxy:
        """A new proxy that passes everything on to `upstream`."""
        return _run(self._loop, self._add(upstream))

    async def _add(self, upstream: Upstream) -> Proxy:
        proxy = Proxy(self._loop, upstream)
        await proxy.listen()
        self._all.append(proxy)
        return proxy

    async def _close(self) -> None:
        for proxy in self._all:
            await proxy.close()
        own = asyncio.current_task()
        links = [task for task in asyncio.all_tasks() if task is not own]
        if links:
            await asyncio.wait(links, timeout=_CALL_TIMEOUT_S / 2)


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run_coroutine_threadsafe(work, loop).result(timeout=_CALL_TIMEOUT_S)
