"""ClickHouse as a process of the stack: `python -m embedded.clickhouse` on a data folder."""

from __future__ import annotations

import http.client
import os
import sys
from pathlib import Path

from embedded import ports, processes
from embedded.ports import LOOPBACK
from embedded.processes import Program

START_TIMEOUT_S = 60.0
_PACKAGE_ROOT = Path(__file__).resolve().parent.parent


class ClickHouse:
    """One server with its data in `folder`."""

    name = "clickhouse"

    def __init__(self, folder: Path, *, pids: Path, logs: Path, port: int, database: str) -> None:
        self._folder = folder
        self._pids = pids
        self._logs = logs
        self._database = database
        self.port = port

    @property
    def urls(self) -> dict[str, str]:
        """CLICKHOUSE_URL of the user that may do all; `reader` is its user that only reads."""
        return {"CLICKHOUSE_URL": f"http://default:@{LOOPBACK}:{self.port}/{self._database}"}

    @property
    def program(self) -> Program:
        """The server process."""
        server = [sys.executable, "-m", "embedded.clickhouse", "--data", str(self._folder), "--port", str(self.port)]
        return Program(
            name=self.name,
            argv=[*server, "--database", self._database],
            marker=f"--data {self._folder} ",
            pid_file=self._pids / "clickhouse.pid",
            log_file=self._logs / "clickhouse.log",
            cwd=_PACKAGE_ROOT,
            environment={**os.environ, "PYTHONPATH": str(_PACKAGE_ROOT)},
        )

    def start(self, *, dies_with_parent: bool) -> None:
        """Start the server; a busy port is exchanged for a free one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        processes.stop(self.program)
        self.port = ports.choose(self.port)
        process = processes.start(self.program, dies_with_parent=dies_with_parent)
        processes.wait_until(self.is_healthy, self.program, process, timeout_s=START_TIMEOUT_S)

    def stop(self) -> None:
        """End the server in order."""
        processes.stop(self.program)

    def is_running(self) -> bool:
        """Whether the server process is there."""
        return processes.recorded(self.program) is not None

    def is_healthy(self) -> bool:
        """Whether the server answers."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=2)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().read() == b"Ok.\n"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
