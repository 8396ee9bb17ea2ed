"""A customer's own server: real HTTP or HTTPS on the loopback, in a thread, that keeps what it is sent.

`receiver.pem` is a certificate for hooks.example.com that is its own authority, with its key: for these tests alone.
"""

import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CERTIFICATE = Path(__file__).parent / "receiver.pem"
NAME = "hooks.example.com"
DRIPS = 100


@dataclass(frozen=True, slots=True)
class Received:
    """One request, with the names of its headers in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Receiver:
    """`statuses` answers the next requests, then 200 always; `delay_s` passes before each answer."""

    port: int = 0
    scheme: str = "http"
    statuses: list[int] = field(default_factory=list)
    delay_s: float = 0
    drip: bool = False
    dripped: int = 0
    location: str = ""
    received: list[Received] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{NAME}:{self.port}/credits?tenant=7"


@contextlib.contextmanager
def receiving(*, tls: bool = False) -> Iterator[Receiver]:
    receiver = Receiver(scheme="https" if tls else "http")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append(Received(self.path, headers, body))
            if receiver.drip:
                self._drip()
                return
            receiver.ended.wait(receiver.delay_s)
            with contextlib.suppress(OSError):
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                if receiver.location:
                    self.send_header("Location", receiver.location)
                self.end_headers()

        def _drip(self) -> None:
            """A status line that does not end for long, byte after byte."""
            with contextlib.suppress(OSError):
                for _ in range(DRIPS):
                    self.wfile.write(b"H")
                    receiver.dripped += 1
                    if receiver.ended.wait(0.05):
                        return

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        # A handshake that fails is the client's to report.
        def handle_error(self, *_: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def loopback(host: str, port: int) -> list[str]:
    """A resolver to whom every name is the loopback's."""
    return ["127.0.0.1"]


def trusting_receiver() -> ssl.SSLContext:
    """A client's context to which the receiver's certificate is an authority."""
    return ssl.create_default_context(cafile=str(CERTIFICATE))
