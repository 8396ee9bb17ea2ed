"""The three engines together, with their state in one folder."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from embedded import environment
from embedded.clickhouse_server import ClickHouse
from embedded.errors import EmbeddedError
from embedded.postgres import Postgres
from embedded.redis import Redis

DATABASE = "meterhouse"
REDIS_PORT = 6379
CLICKHOUSE_PORT = 8123
FREE_DISK_MIN_BYTES = 300 * 1024 * 1024


class Engine(Protocol):
    """A database server as the stack handles it."""

    @property
    def name(self) -> str: ...
    @property
    def urls(self) -> dict[str, str]: ...
    def start(self, *, dies_with_parent: bool) -> None: ...
    def stop(self) -> None: ...
    def is_running(self) -> bool: ...
    def is_healthy(self) -> bool: ...


class Stack:
    """The engines of one checkout (`root`); their state, logs and pids live in `root/.local`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.state = self.root / ".local"
        self.pids = self.state / "pids"
        self.logs = self.state / "log"
        self.env_file = self.state / "env"
        self._own_urls = self.state / "engine-urls.json"
        self.given = environment.given_urls(self.root, self._own_urls)
        known = environment.read(self.env_file)
        self.engines: list[Engine] = []
        if "DATABASE_URL" not in self.given:
            self.engines.append(
                Postgres(self.state / "postgres", pids=self.pids, logs=self.logs, database=DATABASE),
            )
        if not {"REDIS_URL", "CACHE_URL", "CELERY_BROKER_URL"} <= self.given.keys():
            port = _known_port(known.get("REDIS_URL"), REDIS_PORT)
            self.engines.append(Redis(self.state / "redis", pids=self.pids, logs=self.logs, port=port))
        if "CLICKHOUSE_URL" not in self.given:
            port = _known_port(known.get("CLICKHOUSE_URL"), CLICKHOUSE_PORT)
            self.engines.append(
                ClickHouse(self.state / "clickhouse", pids=self.pids, logs=self.logs, port=port, database=DATABASE),
            )

    @property
    def urls(self) -> dict[str, str]:
        """Every engine's URLs; what the user has given comes first."""
        return {name: url for engine in self.engines for name, url in engine.urls.items()} | self.given

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands off this stack while one changes it; raises EmbeddedError when one is at it."""
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise EmbeddedError(
                    f"Another command works on {self.state} at the moment (a `make demo` that is still open?)."
                ) from error
            yield

    def start(self, *, dies_with_parent: bool) -> list[Engine]:
        """Start what does not run yet, write `.local/env`, and return the engines that this call has started.

        On an error they are stopped again.
        """
        self.pids.mkdir(parents=True, exist_ok=True)
        self._check_disk()
        started: list[Engine] = []
        try:
            for engine in self.engines:
                if not (engine.is_running() and engine.is_healthy()):
                    started.append(engine)
                    engine.start(dies_with_parent=dies_with_parent)
            environment.remember_own(
                self._own_urls, {name: url for engine in self.engines for name, url in engine.urls.items()}
            )
            self.remember({})
            return started
        except BaseException:
            for engine in reversed(started):
                engine.stop()
            raise

    def revive(self) -> list[str]:
        """Start engines whose process has ended, to live as long as this one; returns their names."""
        ended = [engine for engine in self.engines if not engine.is_running()]
        for engine in ended:
            engine.start(dies_with_parent=True)
        if ended:
            self.remember({})
        return [engine.name for engine in ended]

    def remember(self, values: dict[str, str]) -> dict[str, str]:
        """Put values into `.local/env` beside the engines' URLs, the secrets and an outbox for e-mails; returns all of them."""
        known = environment.read(self.env_file)
        outbox = {"EMAIL_URL": f"filemail:///{quote(str(self.state / 'outbox'))}"}
        everything = environment.with_secrets({**known, **outbox, **self.urls, **values})
        if everything != known:
            environment.write(self.env_file, everything)
        return everything

    def stop(self) -> None:
        """Stop every engine of this stack that runs."""
        for engine in reversed(self.engines):
            engine.stop()

    def status(self) -> dict[str, str]:
        """For each engine: healthy, not answering, or stopped."""
        return {
            engine.name: "stopped" if not engine.is_running() else "healthy" if engine.is_healthy() else "not answering"
            for engine in self.engines
        }

    def _check_disk(self) -> None:
        free = shutil.disk_usage(self.state).free
        if free < FREE_DISK_MIN_BYTES:
            raise EmbeddedError(
                f"The disk is almost full: {free // 2**20} MB are free for {self.state}, and the engines need at least "
                f"{FREE_DISK_MIN_BYTES // 2**20} MB. Make room and try again."
            )


def _known_port(url: str | None, default: int) -> int:
    """The port of the last run, so that URLs stay the same, or the default."""
    return (urlsplit(url).port if url else None) or default
