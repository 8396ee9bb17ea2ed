"""Signed requests to customers' own servers, as the Standard Webhooks specification has them.

Headers: `webhook-id`, the same at every attempt, `webhook-timestamp` in seconds, and `webhook-signature`, one `v1,<base64>` for
each secret that is valid now, an HMAC-SHA256 of `id.timestamp.body`.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from django.conf import settings

from credits import webhook_addresses
from credits.webhook_addresses import Resolver, WebhookAddress

CONNECT_TIMEOUT_S = 3.0
ATTEMPT_TIMEOUT_S = 10.0
RESPONSE_BYTES_MAX = 4096
SECRET_PREFIX = "whsec_"  # noqa: S105 - the published beginning of every secret, not one


class WebhookFailed(Exception):
    """The receiver did not take the event; `status` is its answer, if there was one. The text may be shown."""

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook that was taken: the status it was answered with."""

    status: int


def new_salt() -> str:
    """What makes a new signing secret, together with the pepper."""
    return secrets.token_hex(16)


def secret_of(salt: str) -> str:
    """The signing secret as the customer sees it: `whsec_` and 32 bytes in base64."""
    return SECRET_PREFIX + base64.b64encode(_secret_bytes(salt)).decode()


def _secret_bytes(salt: str) -> bytes:
    return hmac.digest(settings.KEY_PEPPER.encode(), f"webhook-signing:{salt}".encode(), hashlib.sha256)


def signature(*, salts: Sequence[str], event_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header: one signature for each salt, apart by spaces."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    digests = [hmac.digest(_secret_bytes(salt), signed, hashlib.sha256) for salt in salts]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


@lru_cache(maxsize=1)
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()


def send(
    *,
    url: str,
    salts: Sequence[str],
    event_id: str,
    body: bytes,
    timestamp: int,
    resolver: Resolver = webhook_addresses.resolve,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = ATTEMPT_TIMEOUT_S,
) -> Delivery:
    """POSTs a signed body. Raises `WebhookFailed` unless it is answered with 2xx, `WebhookAddressRefused`, `NameUnresolved`.

    Takes `timeout_s` and the time to resolve at most, reads no more than 4 KB of the answer, follows no redirect and knows
    no proxy. The connection goes to an address that was checked; the certificate must be of the host.
    """
    address = webhook_addresses.parse(url)
    targets = webhook_addresses.public_addresses(address, resolver=resolver)
    headers = {
        "Host": address.host_header,
        "Content-Type": "application/json",
        "User-Agent": "Meterhouse-Webhooks/1",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(salts=salts, event_id=event_id, timestamp=timestamp, body=body),
    }
    deadline = time.monotonic() + timeout_s
    try:
        raw = _connect(targets, address.port, deadline)
        with raw, _cut_off_at(raw, deadline):
            status = _post(raw, address, body, headers, tls or _trusted())
    except ssl.SSLCertVerificationError as error:
        raise WebhookFailed(f"the certificate is not valid for {address.host}: {error.verify_message}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = time.monotonic() >= deadline or isinstance(error, TimeoutError)
        reason = f"no answer within {timeout_s:g} s" if late else f"the connection failed: {type(error).__name__}"
        raise WebhookFailed(reason) from error
    if 300 <= status < 400:
        raise WebhookFailed(f"answered {status}; redirects are not followed", status=status)
    if not 200 <= status < 300:
        raise WebhookFailed(f"answered {status}", status=status)
    return Delivery(status)


def _connect(targets: Sequence[str], port: int, deadline: float) -> socket.socket:
    """A connection to the first address that takes one."""
    failure: OSError = TimeoutError("no time left")
    for target in targets:
        left = min(CONNECT_TIMEOUT_S, deadline - time.monotonic())
        if left <= 0:
            break
        try:
            connected = socket.create_connection((target, port), timeout=left)
        except OSError as error:
            failure = error
        else:
            connected.settimeout(max(0.001, deadline - time.monotonic()))
            return connected
    raise failure


@contextlib.contextmanager
def _cut_off_at(connected: socket.socket, deadline: float) -> Iterator[None]:
    """Ends the connection at the deadline, whatever is going on: a receiver that sends a byte now and then never times out."""
    same = connected.dup()  # TLS takes the socket over; this one stays ours

    def cut() -> None:
        with contextlib.suppress(OSError):
            same.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        same.close()


def _post(
    raw: socket.socket, address: WebhookAddress, body: bytes, headers: dict[str, str], tls: ssl.SSLContext
) -> int:
    connected = tls.wrap_socket(raw, server_hostname=address.host) if address.scheme == "https" else raw
    with connected:
        connection = http.client.HTTPConnection(address.host, address.port)
        connection.sock = connected
        connection.request("POST", address.path, body=body, headers=headers)
        response = connection.getresponse()
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError), response:
            # Of no use to us: read so that a receiver is not cut off in its answer. The status has said it all.
            response.read(RESPONSE_BYTES_MAX)
        return response.status
