"""The web server and the drain as processes of the stack."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from embedded import ports, processes
from embedded.product import Product
from embedded.stack import Stack

SERVER = (
    "import os, socket, sys, time\n"
    "listening = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
    "os.fork()\n"
    "time.sleep(60)\n"
)


def test_workers_of_a_killed_web_server_give_the_asked_port_back(checkout: Path) -> None:
    port = ports.free_port()
    product = Product(Stack(checkout), port=port)
    argv = [sys.executable, "-c", SERVER, str(port), *product.web.marker.split()]
    server = processes.start(replace(product.web, argv=argv), dies_with_parent=False)
    try:
        deadline = time.monotonic() + 20
        while not server.children() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(server.pid, 9)
        server.wait(timeout=20)
        assert not ports.is_free(port)
        product.check_port()
        assert ports.is_free(port)
    finally:
        product.stop()
