"""Where a webhook may go: to a public address, by HTTPS, and nowhere inside.

A customer names the host, so the host decides what its name resolves to. Therefore each attempt resolves the name anew,
checks every address it gets and connects to one of those it has checked, never to the name.
"""

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

from config.errors import DomainError
from credits.alert_models import URL_LENGTH_MAX

RESOLVE_TIMEOUT_S = 3.0
ADDRESSES_MAX = 32
PORT_UNPRIVILEGED_MIN = 1024

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[str]]

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
# Not public either, though some versions of the standard library count them as global.
_NOT_PUBLIC = [
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # relays of 6to4
        "::/96",  # IPv4-compatible
        "64:ff9b:1::/48",  # NAT64 inside one network
        "100::/64",  # discarded
        "2001::/23",  # protocol assignments, Teredo among them
        "2002::/16",  # 6to4: names an IPv4 address that a relay would reach
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # site-local
    )
]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class WebhookAddressRefused(DomainError):
    """400: this service does not send to that address; `details["webhook_url"]` says why."""

    code = "WEBHOOK_ADDRESS_REFUSED"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The webhook's address cannot be used: {reason}.", details={"webhook_url": reason})
        self.reason = reason


class NameUnresolved(Exception):
    """The host's name has no address, or nobody answered in time. Trying later may help."""


@dataclass(frozen=True, slots=True)
class WebhookAddress:
    """A webhook's URL taken apart. `host` is a name in lower case or an address without brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


_DEFAULT_PORTS = {"https": 443, "http": 80}


def parse(url: str) -> WebhookAddress:
    """The URL's parts, checked by themselves, before any name is resolved. Raises `WebhookAddressRefused`."""
    if len(url) > URL_LENGTH_MAX:
        raise WebhookAddressRefused(f"longer than {URL_LENGTH_MAX} characters")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise WebhookAddressRefused("only printable ASCII without spaces or backslashes; write other names as xn--…")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise WebhookAddressRefused("not a URL such as https://example.com/credits") from None
    schemes = ("https", "http") if settings.ALERT_WEBHOOK_ALLOW_HTTP else ("https",)
    if parts.scheme not in schemes:
        raise WebhookAddressRefused(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if "@" in parts.netloc:
        raise WebhookAddressRefused("must not hold a user name or password; requests are signed instead")
    if "#" in url:
        raise WebhookAddressRefused("must not have a part after #")
    host = _host(parts.hostname or "")
    port = _DEFAULT_PORTS[parts.scheme] if port is None else port
    if port not in _DEFAULT_PORTS.values() and port < PORT_UNPRIVILEGED_MIN:
        raise WebhookAddressRefused("the port must be 443, or from 1024 to 65535")
    path = parts.path or "/"
    return WebhookAddress(parts.scheme, host, port, f"{path}?{parts.query}" if parts.query else path)


def _host(name: str) -> str:
    name = name.lower().removesuffix(".")
    address = _as_address(name)
    if address is not None:
        return str(address)
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # 2130706433, 0x7f.1 and 0177.0.0.1 are 127.0.0.1 to the system's resolver.
        raise WebhookAddressRefused("write an IPv4 address as four decimal numbers")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise WebhookAddressRefused("the host is not a name or an address")
    if len(labels) < 2 or labels[-1] in ("localhost", "local", "internal"):
        raise WebhookAddressRefused("the host must be a full public name, such as hooks.example.com")
    return name


def _as_address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host by the system's resolver. Raises `NameUnresolved`, after 3 s at the latest.

    `getaddrinfo` cannot be told a deadline, so it runs in a thread that is left to itself when it is late.
    """
    found: list[str] = []
    failed: list[str] = []

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            failed.append(type(error).__name__)
            return
        found.extend(dict.fromkeys(str(answer[4][0]) for answer in answers))

    thread = threading.Thread(target=look_up, name="resolve-webhook", daemon=True)
    thread.start()
    thread.join(RESOLVE_TIMEOUT_S)
    if thread.is_alive():
        raise NameUnresolved(f"the name {host} could not be resolved within {RESOLVE_TIMEOUT_S:g} s")
    if failed or not found:
        raise NameUnresolved(f"the name {host} could not be resolved")
    return found


def public_addresses(address: WebhookAddress, *, resolver: Resolver = resolve) -> list[str]:
    """The addresses to connect to, every one of them public. Raises `WebhookAddressRefused` when only one is not, and
    `NameUnresolved`."""
    literal = _as_address(address.host)
    found = [address.host] if literal is not None else list(resolver(address.host, address.port))[:ADDRESSES_MAX]
    if not found:
        raise NameUnresolved(f"the name {address.host} has no address")
    for text in found:
        if not may_connect(text):
            # Which address it was stays unsaid: names inside are nothing to be found out here.
            raise WebhookAddressRefused("the host is, or resolves to, an address that is not public")
    return found


def may_connect(text: str) -> bool:
    """Whether an address is public, or in a network of ALERT_WEBHOOK_ALLOWED_NETWORKS."""
    address = _as_address(text)
    if address is None or (isinstance(address, ipaddress.IPv6Address) and address.scope_id):
        return False
    allowed = (ipaddress.ip_network(network) for network in settings.ALERT_WEBHOOK_ALLOWED_NETWORKS)
    if any(address in network for network in allowed):
        return True
    return _is_public(address)


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(address.ipv4_mapped)
        if address in _NAT64:
            return _is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not any(address in network for network in _NOT_PUBLIC)
    )
