"""Where the cycles take place: engines of their own, web and drain processes, and proxies between them."""

import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import redis

from embedded import environment, ports, processes
from embedded.clickhouse_server import ClickHouse
from embedded.errors import EmbeddedError
from embedded.ports import LOOPBACK
from embedded.postgres import Postgres
from embedded.redis import Redis
from embedded.stack import Engine
from tests.faults.observed import Observer
from tests.faults.proxy import Proxies, Proxy

DATABASE = "meterhouse"
HOLD_S = 5
SETTINGS = {
    "IGNORE_ENV_FILES": "1",
    "HOLD_S": str(HOLD_S),
    "QUERY_TIMEOUT_S": "2",
    "UNAUTHENTICATED_RATE": "1000000/m",
    "LOG_LEVEL": "WARNING",
    **{name: f"{name.lower()}-of-the-cycles-0123456789" for name in ("SECRET_KEY", "ADMIN_SECRET", "KEY_PEPPER")},
}
RECORDS = 12_000
WEBS, DRAINS = 2, 2
START_TRIES = 3


class Program:
    """A web or drain process, started again after it was killed, and the proxies through which it sees the stores."""

    def __init__(self, name: str, make: Callable[[], Any], *, to_redis: Proxy, to_postgres: Proxy) -> None:
        self.name = name
        self._make = make
        self.to_redis, self.to_postgres = to_redis, to_postgres
        self.process = make()

    def start_again(self) -> None:
        self.process = self._make()


class Ground:
    """`with Ground() as ground:`; afterwards everything that it started has ended."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mh-cycles-"))
        self.folder.chmod(0o711)
        pids, logs = self.folder / "pids", self.folder / "log"
        self.redis = Redis(self.folder / "redis", pids=pids, logs=logs, port=ports.free_port())
        self.postgres = Postgres(self.folder / "postgres", pids=pids, logs=logs, database=DATABASE)
        self.clickhouse = ClickHouse(
            self.folder / "clickhouse", pids=pids, logs=logs, port=ports.free_port(), database=DATABASE
        )
        self.webs: list[Program] = []
        self.drains: list[Program] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for name in (*environment.ENGINE_URLS, "CLICKHOUSE_READER_URL", "RATE_LIMIT_RPM", "SENTRY_DSN", "DEBUG"):
            os.environ.pop(name, None)
        os.environ.update(SETTINGS)
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        try:
            for engine in self._engines():
                self._stack.callback(engine.stop)
                engine.start(dies_with_parent=True)
                os.environ.update(engine.urls)
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _engines(self) -> list[Engine]:
        return [self.redis, self.postgres, self.clickhouse]

    def _open(self) -> None:
        """Brings the schemas up, loads records, starts the product's processes. Django reads its settings here."""
        os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
        import django
        from django.core.management import call_command

        django.setup()
        logging.disable()  # this process, too, sees every store go; what the others say is in their logs
        call_command("migrate", verbosity=0)
        records = self.folder / "records.csv"
        with (self.folder / "commands.log").open("w") as said:
            call_command("migrate_clickhouse", stdout=said)
            call_command("generate_records", rows=RECORDS, out=records, stdout=said)
            call_command("ingest", str(records), as_json=True, stdout=said)
        self.proxies = self._stack.enter_context(Proxies())
        self.webs = [self._program("web", number) for number in range(WEBS)]
        self.drains = [self._program("drain", number) for number in range(DRAINS)]

    def _program(self, name: str, number: int) -> Program:
        from tests.faults.processes import Drain, Web

        to_redis = self.proxies.add((LOOPBACK, self.redis.port))
        to_postgres = self.proxies.add(f"{self._sockets()}/.s.PGSQL.5432")
        changes = {
            **SETTINGS,
            "REDIS_URL": f"redis://{LOOPBACK}:{to_redis.port}/0",
            "DATABASE_URL": f"postgresql://postgres@{LOOPBACK}:{to_postgres.port}/{DATABASE}",
            "REDIS_TIMEOUT_MS": str(_default("REDIS_TIMEOUT_MS")),
        }
        log = self.folder / f"{name}-{number}.log"

        def make() -> Web | Drain:
            made = (Web if name == "web" else Drain)(environment=changes, log=log)
            self._stack.callback(made.close)
            return made

        return Program(f"{name}-{number}", make, to_redis=to_redis, to_postgres=to_postgres)

    def _sockets(self) -> str:
        return self.postgres.urls["DATABASE_URL"].partition("?host=")[2]

    @property
    def urls(self) -> list[str]:
        """Where the web processes listen."""
        return [program.process.url for program in self.webs]

    def observer(self) -> Observer:
        """Reads the stores past every proxy."""
        urls = {name: url for engine in self._engines() for name, url in engine.urls.items()}
        return Observer(
            database_url=urls["DATABASE_URL"], redis_url=urls["REDIS_URL"], clickhouse_url=urls["CLICKHOUSE_URL"]
        )

    def everybody(self) -> list[Program]:
        return [*self.webs, *self.drains]

    def ended(self) -> list[str]:
        """Processes that have ended by themselves, and what they said last."""
        return [
            f"{program.name}: {processes.tail(self.folder / f'{program.name}.log')[-1500:]}"
            for program in self.everybody()
            if not program.process.is_running
        ]

    def money(self) -> "redis.Redis":
        """A client of Redis, past every proxy."""
        return redis.Redis(host=LOOPBACK, port=self.redis.port, socket_timeout=10, socket_connect_timeout=10)

    @property
    def redis_data(self) -> Path:
        """What Redis keeps on disk."""
        return self.folder / "redis" / "data"

    def kill(self, engine: Redis | Postgres | ClickHouse) -> None:
        """kill -9 of an engine's process and its children."""
        for process in _family(engine):
            _send(process, signal.SIGKILL)
        for process in _family(engine):
            _send(process, signal.SIGKILL)

    def pause(self, engine: Redis | Postgres | ClickHouse) -> Callable[[], None]:
        """SIGSTOP of an engine's process and its children; returns what lets them go on."""
        family = _family(engine)
        for process in family:
            _send(process, signal.SIGSTOP)

        def resume() -> None:
            for process in family:
                _send(process, signal.SIGCONT)

        return resume

    def start(self, engine: Redis | Postgres | ClickHouse) -> None:
        """Starts an engine again where it was, and points the proxies at it."""
        for tries_left in reversed(range(START_TRIES)):
            try:
                engine.start(dies_with_parent=True)
                break
            except EmbeddedError:
                if not tries_left:
                    raise
                time.sleep(0.5)
        if any(os.environ[name] != url for name, url in engine.urls.items()):
            raise EmbeddedError(f"{engine.name} came back on another port: {engine.urls}")

    def logs(self) -> dict[str, str]:
        """The last words of every process."""
        files = [*self.folder.glob("*.log"), *(self.folder / "log").glob("*.log")]
        return {path.name: processes.tail(path) for path in files}


def _default(name: str) -> Any:
    from django.conf import settings

    return getattr(settings, name)


def _family(engine: Redis | Postgres | ClickHouse) -> list[psutil.Process]:
    process = processes.recorded(engine.program)
    if process is None:
        return []
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return [process]


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
