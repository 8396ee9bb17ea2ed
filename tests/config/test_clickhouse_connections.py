"""A short request leaves in one write; everything else is sent as before."""

import socket
import threading
from collections.abc import Iterator

import pytest
from urllib3 import PoolManager

from config.clickhouse.client import reader, writer
from config.clickhouse.connections import JOINED_BYTES_MAX, send_in_one_piece

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Listener:
    """Takes one connection and keeps what arrives in each read."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.reads: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.getsockname()[1]}/"

    def _serve(self) -> None:
        client, _ = self._server.accept()
        with client:
            client.settimeout(5)
            while b"END" not in b"".join(self.reads[-2:]) and (data := client.recv(1_048_576)):
                self.reads.append(data)
            client.sendall(ANSWER)

    def close(self) -> None:
        self._thread.join(5)
        self._server.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    yield found
    found.close()


def post(listener: Listener, body: object) -> bytes:
    with send_in_one_piece(PoolManager()) as manager:
        return manager.request("POST", listener.url, body=body, retries=False).data  # type: ignore[arg-type]


def test_a_short_request_arrives_in_one_piece(listener: Listener) -> None:
    assert post(listener, b"SELECT 1 END") == b"ok"
    (whole,) = listener.reads
    assert whole.startswith(b"POST / HTTP/1.1\r\n")
    assert b"\r\nContent-Length: 12\r\n" in whole
    assert whole.endswith(b"\r\n\r\nSELECT 1 END")


@pytest.mark.parametrize("size", [JOINED_BYTES_MAX + 1, 300_000])
def test_a_long_request_arrives_whole(listener: Listener, size: int) -> None:
    body = b"x" * size + b"END"
    assert post(listener, body) == b"ok"
    assert b"".join(listener.reads).endswith(b"\r\n\r\n" + body)


def test_a_request_in_pieces_arrives_whole(listener: Listener) -> None:
    assert post(listener, iter([b"SELECT 1 ", b"END"])) == b"ok"
    assert b"SELECT 1 " in b"".join(listener.reads)


def test_a_connection_serves_one_request_after_another(stores: None) -> None:
    for client in (reader(), writer()):
        assert [client.raw_query(f"SELECT {number} FORMAT TSV") for number in range(3)] == [b"0\n", b"1\n", b"2\n"]
