"""HTTP/1.1 over a blocking socket: requests in, plain, compressed or chunked answers out."""

from __future__ import annotations

import base64
import binascii
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

BytesLike = bytes | bytearray | memoryview

HEAD_MAX_BYTES = 4 * 1024 * 1024
LINE_MAX_BYTES = 64 * 1024
RECEIVE_BYTES = 256 * 1024
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Payload Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


class ProtocolError(Exception):
    """The client did not speak HTTP that we can answer; the connection must close."""


class ClientGoneError(Exception):
    """The client closed its connection in the middle of a request or an answer."""


@dataclass(slots=True)
class Request:
    """One request whose body may still be on the wire (`Channel.body` reads it)."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    keep_alive: bool
    content_length: int
    chunked: bool

    def credentials(self) -> tuple[str, str]:
        """(user, password), from the headers, basic authentication or the query string, in ClickHouse's order."""
        user = self.headers.get("x-clickhouse-user")
        if user is not None:
            return user, self.headers.get("x-clickhouse-key", "")
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise ProtocolError("malformed basic authentication") from error
            return name or "default", password
        return self.params.get("user", "default"), self.params.get("password", "")


@dataclass(slots=True)
class Channel:
    """One client connection: reads requests and bodies, writes answers. One worker uses it at a time."""

    sock: socket.socket
    buffer: bytearray = field(default_factory=bytearray)
    body_left: int = 0
    body_chunked: bool = False
    body_done: bool = True
    head_sent: bool = False

    def receive(self) -> bool:
        """Append what the client sent to the buffer; False at the end of the connection."""
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except OSError:
            return False
        self.buffer += data
        return bool(data)

    def read_request(self) -> Request | None:
        """The next request, or None when the client closed the connection between two."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if len(self.buffer) > HEAD_MAX_BYTES:
                raise ProtocolError("the request's head is too long")
            if not self.receive():
                return None
        head = self.buffer[:end].decode("latin-1")
        del self.buffer[: end + 4]
        request = parse_head(head)
        self.body_left, self.body_chunked = request.content_length, request.chunked
        self.body_done = not request.chunked and request.content_length == 0
        self.head_sent = False
        if request.headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return request

    def body(self) -> Iterator[bytes]:
        """The request's body in pieces, as they arrive; raises ClientGoneError when it breaks off."""
        if self.body_chunked:
            yield from self._chunks()
        else:
            while self.body_left:
                if not self.buffer and not self.receive():
                    raise ClientGoneError
                piece = bytes(self.buffer[: self.body_left])
                del self.buffer[: len(piece)]
                self.body_left -= len(piece)
                yield piece
        self.body_done = True

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size_text = self._line().partition(b";")[0].strip()
            try:
                size = int(size_text, 16)
            except ValueError as error:
                raise ProtocolError("malformed chunk size") from error
            if size == 0:
                while self._line():
                    pass
                return
            while size:
                if not self.buffer and not self.receive():
                    raise ClientGoneError
                piece = bytes(self.buffer[:size])
                del self.buffer[: len(piece)]
                size -= len(piece)
                yield piece
            if self._line():
                raise ProtocolError("malformed chunk")

    def _line(self) -> bytes:
        while (end := self.buffer.find(b"\r\n")) < 0:
            if len(self.buffer) > LINE_MAX_BYTES:
                raise ProtocolError("a chunk's line is too long")
            if not self.receive():
                raise ClientGoneError
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 2]
        return line

    def send(self, *parts: BytesLike) -> None:
        """Write all the parts; raises ClientGoneError when the client is not there to take them."""
        views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
        try:
            while views:
                sent = self.sock.sendmsg(views)
                while views and sent >= len(views[0]):
                    sent -= len(views.pop(0))
                if sent:
                    views[0] = views[0][sent:]
        except OSError as error:
            raise ClientGoneError from error

    def answer(self, status: int, headers: Iterable[tuple[str, str]], body: BytesLike) -> None:
        """A whole answer of known length."""
        length = memoryview(body).nbytes
        self.head_sent = True
        self.send(render_head(status, [*headers, ("Content-Length", str(length))]), body)

    def begin_stream(self, headers: Iterable[tuple[str, str]]) -> None:
        """Open a chunked answer with status 200."""
        self.head_sent = True
        self.send(render_head(200, [*headers, ("Transfer-Encoding", "chunked")]))

    def stream(self, *parts: BytesLike) -> None:
        """One chunk of a chunked answer, made of the parts; empty ones are left out."""
        size = sum(memoryview(part).nbytes for part in parts)
        if size:
            self.send(b"%x\r\n" % size, *parts, b"\r\n")

    def end_stream(self) -> None:
        """Close a chunked answer."""
        self.send(b"0\r\n\r\n")

    def close(self) -> None:
        """Close the socket; safe to call twice."""
        self.sock.close()


def parse_head(head: str) -> Request:
    """The request line and headers of one request (without the blank line)."""
    lines = head.split("\r\n")
    try:
        method, target, version = lines[0].split(" ")
    except ValueError as error:
        raise ProtocolError("malformed request line") from error
    if version not in {"HTTP/1.1", "HTTP/1.0"}:
        raise ProtocolError("only HTTP/1.0 and HTTP/1.1 are spoken here")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise ProtocolError("malformed header")
        headers[name.strip().lower()] = value.strip()
    path, _, query = target.partition("?")
    if "://" in target:
        parts = urlsplit(target)
        path, query = parts.path, parts.query
    length_text = headers.get("content-length", "0")
    if not length_text.isdigit():
        raise ProtocolError("malformed Content-Length")
    connection = headers.get("connection", "").lower()
    return Request(
        method=method,
        path=path or "/",
        params=dict(parse_qsl(query, keep_blank_values=True)),
        headers=headers,
        keep_alive=connection == "keep-alive" if version == "HTTP/1.0" else connection != "close",
        content_length=int(length_text),
        chunked=headers.get("transfer-encoding", "").lower() == "chunked",
    )


def render_head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """Status line and headers; line breaks in values are flattened, so that a message cannot end the head."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}".replace("\r", " ").replace("\n", " ") for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace")


def form_fields(request: Request, body: bytes) -> Mapping[str, bytes]:
    """The fields of a multipart/form-data body: how clickhouse-connect sends parameters too long for a URL."""
    kind, _, rest = request.headers.get("content-type", "").partition(";")
    options = dict(part.strip().partition("=")[::2] for part in rest.split(";"))
    boundary = options.get("boundary", "").strip('"')
    if kind.strip().lower() != "multipart/form-data" or not boundary:
        return {}
    fields: dict[str, bytes] = {}
    for part in body.split(b"--" + boundary.encode())[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        _, _, after = head.partition(b'name="')
        fields[after.partition(b'"')[0].decode()] = value.removesuffix(b"\r\n")
    return fields
