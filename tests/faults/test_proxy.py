"""The proxy fails as it is told, on a real socket with an echo behind it."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Mode, Proxies, Proxy

PATIENCE_S = 10
SILENCE_S = 0.3


class Echo:
    """Sends back what it gets and remembers it."""

    def __init__(self) -> None:
        self.heard = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = ("127.0.0.1", self.listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while said := connection.recv(100):
                    self.heard += said
                    connection.sendall(said)
            except OSError:
                return


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxies() as proxies:
        yield proxies.add(echo.address)


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_S)


def exchange(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(100)


def is_refused(proxy: Proxy) -> bool:
    """Whether a new connection ends before anything comes back."""
    try:
        with connected(proxy) as client:
            return exchange(client, b"one") == b""
    except ConnectionError:
        return True


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE_S)
    try:
        connection.recv(100)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(PATIENCE_S)
    return False


def test_it_passes_requests_and_answers_on(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert exchange(client, b"one") == b"one"


def test_a_cut_resets_what_is_open(proxy: Proxy) -> None:
    with connected(proxy) as client:
        exchange(client, b"one")
        proxy.set(Mode.CUT)
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_a_cut_resets_what_comes(proxy: Proxy) -> None:
    proxy.set(Mode.CUT)
    assert is_refused(proxy)


def test_what_was_frozen_arrives_when_it_thaws(proxy: Proxy, echo: Echo) -> None:
    with connected(proxy) as client:
        exchange(client, b"one")
        proxy.set(Mode.FREEZE)
        client.sendall(b"two")
        assert is_silent(client)
        assert echo.heard == b"one"
        proxy.set(Mode.PASS)
        assert client.recv(100) == b"two"


def test_dropped_replies_leave_the_request_delivered(proxy: Proxy, echo: Echo) -> None:
    with connected(proxy) as client:
        exchange(client, b"one")
        proxy.set(Mode.DROP_REPLIES)
        client.sendall(b"two")
        assert is_silent(client)
        assert echo.heard == b"onetwo"


def test_a_connection_that_lost_a_reply_is_reset(proxy: Proxy) -> None:
    with connected(proxy) as client:
        proxy.set(Mode.DROP_REPLIES)
        client.sendall(b"one")
        assert is_silent(client)
        proxy.set(Mode.PASS)
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_a_lossy_proxy_resets_instead_of_answering(proxy: Proxy, echo: Echo) -> None:
    with connected(proxy) as client:
        exchange(client, b"one")
        proxy.set(Mode.LOSSY, loss=1)
        client.sendall(b"two")
        with pytest.raises(ConnectionResetError):
            client.recv(100)
        assert echo.heard == b"onetwo"


def test_a_lossy_proxy_answers_what_it_does_not_lose(proxy: Proxy) -> None:
    proxy.set(Mode.LOSSY, loss=0)
    with connected(proxy) as client:
        assert exchange(client, b"one") == b"one"


def test_a_delayed_answer_arrives(proxy: Proxy) -> None:
    proxy.set(Mode.DELAY, delay_s=0.05)
    with connected(proxy) as client:
        assert exchange(client, b"one") == b"one"


def test_a_store_that_refuses_resets_the_client(proxy: Proxy) -> None:
    proxy.upstream = ("127.0.0.1", 1)
    assert is_refused(proxy)
