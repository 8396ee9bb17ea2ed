"""Web and drain as real processes on the test engines, to be killed."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings

from embedded.ports import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
START_TIMEOUT_S = 30


def database_url() -> str:
    """The database that pytest-django has made for this worker."""
    url = urlsplit(os.environ["DATABASE_URL"])
    return urlunsplit(url._replace(path=f"/{settings.DATABASES['default']['NAME']}"))


def environment_of(changes: dict[str, str]) -> dict[str, str]:
    """This test's environment, with this worker's database."""
    return {**os.environ, "DATABASE_URL": database_url(), "LOG_LEVEL": "WARNING", "REDIS_TIMEOUT_MS": "5000", **changes}


class ServerProcess:
    """One process of the product; `kill` is kill -9 of it and all it started."""

    def __init__(self, *command: str, environment: dict[str, str] | None = None, log: Path | None = None) -> None:
        with log.open("ab") if log else nullcontext() as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command] if command[0] != "manage.py" else [sys.executable, *command],
                cwd=ROOT,
                env=environment_of(environment or {}),
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP of it and all it started."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def terminate(self) -> int:
        """SIGTERM, then its exit code."""
        self._process.terminate()
        return self._process.wait(timeout=15)

    def close(self) -> None:
        if self._process.poll() is None:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)
        self._process.wait(timeout=15)


class Web(ServerProcess):
    """A web process on a port of its own, answering when the constructor returns."""

    def __init__(self, *, environment: dict[str, str] | None = None, log: Path | None = None) -> None:
        self.port = free_port()
        super().__init__(
            "granian",
            "--interface=wsgi",
            "--workers=1",
            "--blocking-threads=8",
            "--no-ws",
            "--log-level=error",
            f"--port={self.port}",
            "config.wsgi:application",
            environment=environment,
            log=log,
        )
        self.url = f"http://127.0.0.1:{self.port}"
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/api/v1/health", timeout=2) as answer:
                    assert answer.status == 200
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.close()
                    raise
                time.sleep(0.1)


class LoggedProcess(ServerProcess):
    """A process that is at work, by what it logs, when the constructor returns."""

    def __init__(
        self, *command: str, says: str, environment: dict[str, str] | None = None, log: Path | None = None
    ) -> None:
        with tempfile.NamedTemporaryFile(prefix="mh-process-") as own:
            log = log or Path(own.name)
            said_before = log.stat().st_size if log.exists() else 0
            super().__init__(*command, environment={**(environment or {}), "LOG_LEVEL": "INFO"}, log=log)
            deadline = time.monotonic() + START_TIMEOUT_S
            while says.encode() not in log.read_bytes()[said_before:]:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.close()
                    raise TimeoutError(log.read_text()[-2000:])
                time.sleep(0.05)


class Drain(LoggedProcess):
    """A drain process."""

    def __init__(self, *, environment: dict[str, str] | None = None, log: Path | None = None) -> None:
        super().__init__("manage.py", "drain", says="drain_started", environment=environment, log=log)


class Worker(LoggedProcess):
    """A process that runs background tasks."""

    def __init__(self, *, environment: dict[str, str] | None = None) -> None:
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        super().__init__(
            "celery", "--quiet", "--app=config.celery", "worker", *quiet, says=" ready.", environment=environment
        )


class IngestionWorker(LoggedProcess):
    """A process that loads files in the background, as the Procfile starts it."""

    def __init__(self, *, environment: dict[str, str] | None = None) -> None:
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--disable-prefetch")
        alone = ("--queues", "ingestion", "--concurrency", "1", "--max-tasks-per-child", "1")
        super().__init__(
            *("celery", "--quiet", "--app=config.celery", "worker", *alone, *quiet),
            says=" ready.",
            environment=environment,
        )


class Beat(LoggedProcess):
    """The process that queues what is due."""

    def __init__(self, *, environment: dict[str, str] | None = None) -> None:
        super().__init__(
            "celery",
            "--quiet",
            "--app=config.celery",
            "beat",
            "--pidfile=",
            says="beat: Starting",
            environment=environment,
        )
