"""Connections to ClickHouse that send a short request in one piece.

http.client writes head and body one after the other. Between the two the server wakes up for a request that is not whole:
under load that cost a query 3 % of the server's CPU time and a turn of the scheduler.
"""

from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

# Longer bodies are inserts: copying them to join them would cost more than it saves.
JOINED_BYTES_MAX = 65_536


class _OneSend:
    """Mixed into urllib3's connections: what one request writes is kept back until it is whole."""

    _kept: list[bytes] | None = None

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        """Makes a request; see `urllib3.connection.HTTPConnection.request`."""
        if not isinstance(body, bytes) or len(body) > JOINED_BYTES_MAX:
            super().request(method, url, body, headers, **options)  # type: ignore[misc]
            return
        kept: list[bytes] = []
        self._kept = kept
        try:
            super().request(method, url, body, headers, **options)  # type: ignore[misc]
        finally:
            self._kept = None
        self.send(b"".join(kept))

    def send(self, data: Any) -> None:
        """Writes `data`, or keeps it back while a request is being put together."""
        if self._kept is None:
            super().send(data)  # type: ignore[misc]
        else:
            self._kept.append(data)


class _PlainConnection(_OneSend, HTTPConnection):
    pass


class _SecureConnection(_OneSend, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def send_in_one_piece(manager: PoolManager) -> PoolManager:
    """Lets every connection that `manager` opens from now on send short requests in one write."""
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
    return manager
