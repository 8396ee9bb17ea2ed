"""`python -m embedded.clickhouse --data DIR --port N`: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from embedded.clickhouse.engine import leave_signals_alone
from embedded.clickhouse.server import Server
from embedded.clickhouse.service import Service

STOP_PATIENCE_S = 5.0
CLOSE_PATIENCE_S = 5.0


def main() -> int:
    """Open the data folder, serve, and close it in order."""
    parser = argparse.ArgumentParser(prog="python -m embedded.clickhouse", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the data folder; one process at a time owns it")
    parser.add_argument("--port", type=int, required=True, help="loopback port; 0 takes a free one")
    parser.add_argument("--database", default="default", help="created when it is not there")
    parser.add_argument("--sessions", type=int, default=8, help="queries at once, for each user")
    options = parser.parse_args()

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    leave_signals_alone()
    data = options.data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    # The engine resolves bare table names to files of its working directory: give it one without any.
    empty = data / "empty"
    empty.mkdir(exist_ok=True)
    os.chdir(empty)
    try:
        service = Service(data / "store", sessions=options.sessions, database=options.database)
    except RuntimeError as error:
        print(f"ClickHouse cannot open {data}: {error}", file=sys.stderr)
        return 1
    try:
        # Beside the queries at work there may be as many that wait for a session, and a KILL QUERY must get through.
        server = Server(service, port=options.port, workers=12 * options.sessions)
    except OSError as error:
        print(f"ClickHouse cannot listen on port {options.port}: {error}", file=sys.stderr)
        os._exit(1)
    print(f"ready on http://127.0.0.1:{server.port}", flush=True)
    stop.wait()
    server.stop(patience_s=STOP_PATIENCE_S)
    # The data is safe at this point whatever happens: closing must not keep the process from ending.
    threading.Timer(CLOSE_PATIENCE_S, os._exit, [0]).start()
    service.close()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
