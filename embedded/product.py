"""The product's own processes on top of the engines (web, drain, worker, ingestion, beat), and its management commands."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from embedded import environment, ports, processes
from embedded.errors import EmbeddedError
from embedded.ports import LOOPBACK
from embedded.processes import Program
from embedded.stack import Stack

WEB_PORT = 8000
START_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 600.0
REQUEST_TIMEOUT_S = 30.0
_SHOWN_LINES = 12
_QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")
_SETTING = re.compile(r"^#?\s*(?:export\s+)?([A-Z][A-Z0-9_]+)=", re.MULTILINE)


class CommandFailedError(EmbeddedError):
    """A management command ended with an error; carries what it said."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the web server answered; `body` is the parsed JSON."""

    status: int
    body: Any
    headers: Mapping[str, str]


class Product:
    """Web server, drain, workers and beat of one checkout; `port` 0 means the last one, the default or a free one."""

    def __init__(self, stack: Stack, *, port: int = 0) -> None:
        self._stack = stack
        self._asked_port = port
        self.port = port or urlsplit(environment.read(stack.env_file).get("BASE_URL", "")).port or WEB_PORT
        self._processes = _count("WEB_PROCESSES", 1)
        self._threads = _count("WEB_THREADS", 8)

    @property
    def base_url(self) -> str:
        """Where the web server listens."""
        return f"http://{LOOPBACK}:{self.port}"

    def environment(self) -> dict[str, str]:
        """What the product's processes see: the user's environment, then `.env`, then `.local/env`.

        The addresses of the engines come from the stack: a shell may carry those of an earlier run.
        """
        dotenv = environment.read(self._stack.root / ".env")
        known = environment.read(self._stack.env_file)
        return {**known, **dotenv, **os.environ, **self._stack.urls, "PYTHONUNBUFFERED": "1"}

    @property
    def web(self) -> Program:
        """The web server: granian with threads."""
        server = [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", LOOPBACK, "--port", str(self.port)]
        server += ["--workers", str(self._processes), "--blocking-threads", str(self._threads)]
        server += ["--respawn-failed-workers", "--working-dir", str(self._stack.root), "config.wsgi:application"]
        program = self._program("web", server, marker=f"--working-dir {self._stack.root} config.wsgi:application")
        if self._processes == 1:
            return program
        # One scrape reaches one process: they count together in files.
        return replace(program, environment={**program.environment, "PROMETHEUS_MULTIPROC_DIR": str(self._metrics)})

    @property
    def _metrics(self) -> Path:
        return self._stack.state / "metrics"

    @property
    def drain(self) -> Program:
        """The process that moves the journal into the ledger."""
        manage = str(self._stack.root / "manage.py")
        return self._program("drain", [sys.executable, manage, "drain"], marker=f"{manage} drain")

    @property
    def worker(self) -> Program:
        """The process that runs background tasks."""
        return self._celery("worker", "worker", "--queues", "celery", *_QUIET)

    @property
    def ingestion(self) -> Program:
        """The process that loads files in the background: one at a time, each in a process of its own."""
        options = (
            "--hostname",
            "ingestion@%h",
            "--concurrency",
            "1",
            "--max-tasks-per-child",
            "1",
            "--disable-prefetch",
        )
        return self._celery("ingestion", "worker", "--queues", "ingestion", *options, *_QUIET)

    @property
    def beat(self) -> Program:
        """The process that queues the tasks that are due."""
        return self._celery("beat", "beat", "--pidfile=")

    def _celery(self, name: str, *command: str) -> Program:
        folder = str(self._stack.root)
        argv = [sys.executable, "-m", "celery", "--app", "config.celery", "--workdir", folder, *command]
        return self._program(name, argv, marker=" ".join(["--workdir", folder, *command[:3]]))

    def _program(self, name: str, argv: list[str], *, marker: str) -> Program:
        return Program(
            name=name,
            argv=argv,
            marker=marker,
            pid_file=self._stack.pids / f"{name}.pid",
            log_file=self._stack.logs / f"{name}.log",
            cwd=self._stack.root,
            environment=self.environment(),
        )

    def migrate(self) -> None:
        """Bring the schemas of PostgreSQL and ClickHouse up to date."""
        self.manage("migrate", "--verbosity", "0")
        self.manage("migrate_clickhouse", "--verbosity", "0")

    def start(self, *, dies_with_parent: bool) -> bool:
        """Start what does not run, or runs with other settings than now; True when anything was started."""
        started = self.serve(dies_with_parent=dies_with_parent)
        for program in (self.worker, self.ingestion, self.beat):
            started |= self._bring_up_to_date(program, dies_with_parent=dies_with_parent)
        return started

    def serve(self, *, dies_with_parent: bool) -> bool:
        """The web server and the drain alone, which calls need; as `start`."""
        started = False
        if self._is_outdated(self.web):
            processes.stop(self.web)
            self._choose_port()
            shutil.rmtree(self._metrics, ignore_errors=True)
            self._metrics.mkdir(parents=True)
            process = processes.start(self.web, dies_with_parent=dies_with_parent)
            started = True
            processes.wait_until(self.is_healthy, self.web, process, timeout_s=START_TIMEOUT_S)
            self._stack.remember({"BASE_URL": self.base_url})
        return self._bring_up_to_date(self.drain, dies_with_parent=dies_with_parent) or started

    def _bring_up_to_date(self, program: Program, *, dies_with_parent: bool) -> bool:
        if not self._is_outdated(program):
            return False
        processes.stop(program)
        processes.start(program, dies_with_parent=dies_with_parent)
        return True

    @property
    def programs(self) -> list[Program]:
        """Every process, in the order in which they are stopped."""
        return [self.web, self.beat, self.ingestion, self.worker, self.drain]

    def check_port(self) -> None:
        """Raise PortBusyError when the port that the user asked for is taken, by another than this web server."""
        serves = processes.recorded(self.web)
        if serves is None:
            processes.stop(self.web)  # workers of a server that was killed may still hold the port
        if self._asked_port and (serves is None or f"--port {self._asked_port} " not in " ".join(serves.cmdline())):
            ports.insist(self._asked_port, "the web server")

    def _choose_port(self) -> None:
        if self._asked_port:
            self.port = ports.insist(self._asked_port, "the web server")
        else:
            self.port = ports.choose(self.port)

    def _is_outdated(self, program: Program) -> bool:
        process = processes.recorded(program)
        if process is None:  # or only workers are left of it
            return True
        try:
            seen = process.environ()
            arguments = " ".join(process.cmdline())
        except psutil.Error:
            return True
        wanted = program.environment
        changed = any(seen.get(name) != wanted.get(name) for name in self._setting_names())
        return changed or (program.name == "web" and " ".join(program.argv[1:]) not in arguments)

    def _setting_names(self) -> set[str]:
        """Every setting there is: `.env.example` lists them all."""
        example = self._stack.root / ".env.example"
        listed = _SETTING.findall(example.read_text()) if example.exists() else []
        return {*listed, *environment.ENGINE_URLS}

    def stop(self) -> None:
        """Stop the web server, then what works behind it."""
        for program in self.programs:
            processes.stop(program)

    def status(self) -> dict[str, str]:
        """For each process: healthy or running, not answering, or stopped."""
        web = processes.recorded(self.web)
        return {
            "web": "stopped"
            if web is None
            else f"healthy at {self.base_url}"
            if self.is_healthy()
            else "not answering",
        } | {
            program.name: "stopped" if processes.recorded(program) is None else "running"
            for program in (self.drain, self.worker, self.ingestion, self.beat)
        }

    def is_running(self) -> bool:
        """Whether the web server is there."""
        return processes.recorded(self.web) is not None

    def is_healthy(self) -> bool:
        """Whether the web server answers."""
        try:
            return self.request("GET", "/api/v1/health").status == 200
        except EmbeddedError:
            return False

    def request(self, method: str, path: str, *, key: str = "", body: Mapping[str, Any] | None = None) -> Answer:
        """One call of the product's HTTP API; raises EmbeddedError when it cannot be reached."""
        headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=REQUEST_TIMEOUT_S)
        try:
            connection.request(method, path, body=json.dumps(body) if body is not None else None, headers=headers)
            response = connection.getresponse()
            text = response.read()
            return Answer(response.status, json.loads(text) if text else None, dict(response.headers))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EmbeddedError(
                f"The web server at {self.base_url} does not answer {method} {path}: {error}"
            ) from error
        finally:
            connection.close()

    def manage(self, *arguments: str, show: bool = False) -> str:
        """Run a management command; its output, or shown as it goes. Raises CommandFailedError with what it said."""
        done = subprocess.run(
            [sys.executable, str(self._stack.root / "manage.py"), *arguments],
            cwd=self._stack.root,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
        if done.returncode != 0:
            said = (done.stdout or "") + (done.stderr or "")
            last = "\n".join(said.strip().splitlines()[-_SHOWN_LINES:])
            raise CommandFailedError(f"`manage.py {arguments[0]}` failed. {processes.hint(said)}\n{last}".strip())
        return done.stdout or ""


def _count(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdigit() or not 1 <= int(value) <= 64:
        raise EmbeddedError(f"{name}={value} is not a number from 1 to 64.")
    return int(value)
