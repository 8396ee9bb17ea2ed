"""Choosing loopback ports."""

from __future__ import annotations

import socket

from embedded.errors import EmbeddedError

LOOPBACK = "127.0.0.1"


class PortBusyError(EmbeddedError):
    """The port that the user asked for is taken."""


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Some free port."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def choose(preferred: int) -> int:
    """The preferred port when it is free, else some other."""
    return preferred if is_free(preferred) else free_port()


def insist(port: int, what: str) -> int:
    """The port, or PortBusyError that names the way out."""
    if not is_free(port):
        raise PortBusyError(
            f"Port {port} is taken by another program, so {what} cannot use it. "
            "Choose another with PORT=, or leave PORT out and a free one is taken."
        )
    return port
