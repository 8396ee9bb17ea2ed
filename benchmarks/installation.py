"""An installation of its own to measure: engines, data and processes in `.local/bench`, beside any demo."""

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from embedded import environment, ports, processes
from embedded.processes import Program
from embedded.stack import Stack

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".local" / "bench"
ROWS = 1_000_000
THREADS = 8
COMMAND_TIMEOUT_S = 900
START_TIMEOUT_S = 60


def granian(processes_count: int, threads: int, pid_file: Path, port: int) -> list[str]:
    """The web server's command line as `make up` runs it."""
    return [
        "-m", "granian", "--interface", "wsgi", "--host", ports.LOOPBACK, "--port", str(port),
        "--workers", str(processes_count), "--blocking-threads", str(threads), "--pid-file", str(pid_file),
        "config.wsgi:application",
    ]  # fmt: skip


def gunicorn(processes_count: int, threads: int, pid_file: Path, port: int) -> list[str]:
    """The other server that was considered: gunicorn with threads that keep connections."""
    return [
        "-m", "gunicorn", "--worker-class", "gthread", "--bind", f"{ports.LOOPBACK}:{port}", "--workers", str(processes_count),
        "--threads", str(threads), "--keep-alive", "30", "--pid", str(pid_file), "config.wsgi:application",
    ]  # fmt: skip


@dataclass(frozen=True)
class Installation:
    """The engines are up; `environment` is what processes of the product need to find them."""

    environment: dict[str, str]

    def manage(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Runs a management command; its output. Raises `subprocess.CalledProcessError` with what it said."""
        done = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=timeout_s,
            check=True,
            text=True,
        )
        return done.stdout

    @contextmanager
    def web(self, server: str = "granian", *, processes_count: int = 1, threads: int = THREADS) -> Iterator[int]:
        """A web server; the port it listens on."""
        port = ports.free_port()
        pid_file = FOLDER / "pids" / "web-server.pid"
        command = {"granian": granian, "gunicorn": gunicorn}[server](processes_count, threads, pid_file, port)
        with self._running("web", command, marker=str(pid_file)) as (program, process):
            processes.wait_until(lambda: _answers(port), program, process, timeout_s=START_TIMEOUT_S)
            yield port

    @contextmanager
    def drain(self) -> Iterator[None]:
        """The drain, as it runs beside every web server."""
        # The option changes nothing; the path in it is how the process is recognised.
        command = [str(ROOT / "manage.py"), "drain", "--pythonpath", str(FOLDER)]
        with self._running("drain", command, marker=f"drain --pythonpath {FOLDER}"):
            yield

    @contextmanager
    def _running(self, name: str, arguments: Sequence[str], *, marker: str) -> Iterator[tuple[Program, psutil.Process]]:
        program = Program(
            name=name,
            argv=[sys.executable, *arguments],
            marker=marker,
            pid_file=FOLDER / "pids" / f"{name}.pid",
            log_file=FOLDER / "log" / f"{name}.log",
            cwd=ROOT,
            environment=self.environment,
        )
        processes.stop(program)
        process = processes.start(program, dies_with_parent=True)
        try:
            yield program, process
        finally:
            processes.stop(program)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(ports.LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/api/v1/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def installation() -> Iterator[Installation]:
    """Starts the engines, brings the schemas up to date and stops everything at the end. The data stays for the next run."""
    for name in environment.ENGINE_URLS:
        os.environ.pop(name, None)  # a shell that has sourced a demo's .local/env must not have it measured
    stack = Stack(FOLDER)
    with stack.locked():
        stack.start(dies_with_parent=True)
        try:
            values = stack.remember({})
            measured = Installation({**os.environ, **values, "IGNORE_ENV_FILES": "1", "LOG_LEVEL": "WARNING"})
            measured.manage("migrate", "--verbosity", "0")
            measured.manage("migrate_clickhouse", "--verbosity", "0")
            yield measured
        finally:
            stack.stop()
