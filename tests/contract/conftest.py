"""The product behind a real socket, for requests as they are written in documents."""

import threading
from collections.abc import Iterator

import pytest
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

from config.wsgi import application


class QuietHandler(WSGIRequestHandler):
    """Serves without a log line for each request."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def base_url(stores: None) -> Iterator[str]:
    """The address of a server of this test's own."""
    server = ThreadedWSGIServer(("127.0.0.1", 0), QuietHandler)
    server.daemon_threads = True
    server.set_app(application)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(5)
    server.server_close()
