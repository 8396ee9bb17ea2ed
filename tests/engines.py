"""The engines behind the tests, as a plugin that pytest loads before Django reads its settings.

The controlling process starts one PostgreSQL, one Redis and one ClickHouse in a temporary folder, of their own and beside
any demo, and ends them with the run. Every xdist worker works in a database of its own (pytest-django names it), in a
Redis server of its own, so that it may flush it, and in a ClickHouse database of its own.
"""

import atexit
import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest

from embedded import ports
from embedded.clickhouse_server import ClickHouse
from embedded.postgres import Postgres
from embedded.redis import Redis
from embedded.stack import Engine

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
_FOLDER = "METERHOUSE_TEST_ENGINES"
_CLICKHOUSE_URL = "METERHOUSE_TEST_CLICKHOUSE"
_TEST_SECRETS = {
    name: f"{name.lower()}-of-the-tests-0123456789" for name in ("SECRET_KEY", "ADMIN_SECRET", "KEY_PEPPER")
}


def clickhouse_database() -> str:
    """This worker's ClickHouse database."""
    return f"test_{WORKER or 'main'}"


class _Engines:
    """What this process has started: everything in the controller, a Redis alone in a worker."""

    def __init__(self) -> None:
        self._started: list[Engine] = []
        self._folder: Path | None = None

    def start(self) -> None:
        if WORKER:
            folder = Path(os.environ[_FOLDER])
        else:
            self._folder = folder = Path(tempfile.mkdtemp(prefix="mh-test-"))
            folder.chmod(0o711)
            os.environ[_FOLDER] = str(folder)
        name = f"redis-{WORKER or 'main'}"
        places = {"pids": folder / "pids", "logs": folder / "log"}
        self._up(Redis(folder / name, port=ports.free_port(), name=name, fast=True, **places))
        if not WORKER:
            self._up(Postgres(folder / "postgres", database="meterhouse", fast=True, **places))
            clickhouse = ClickHouse(folder / "clickhouse", port=ports.free_port(), database="unused", **places)
            self._up(clickhouse)
            os.environ[_CLICKHOUSE_URL] = clickhouse.urls["CLICKHOUSE_URL"].rpartition("/")[0]
        os.environ["CLICKHOUSE_URL"] = f"{os.environ[_CLICKHOUSE_URL]}/{clickhouse_database()}"

    def _up(self, engine: Engine) -> None:
        self._started.append(engine)
        engine.start(dies_with_parent=True)
        os.environ.update(engine.urls)

    def stop(self) -> None:
        while self._started:
            self._started.pop().stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


_engines = _Engines()


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start the engines and point the settings at them, ahead of pytest-django."""
    options = early_config.known_args_namespace
    if options.help or options.version:
        return
    # `.env` and `.local/env` belong to a demo; a test must not depend on them.
    os.environ["IGNORE_ENV_FILES"] = "1"
    os.environ.update(_TEST_SECRETS)
    os.environ["REDIS_TIMEOUT_MS"] = "3000"  # a busy machine is no outage
    for name in ("CLICKHOUSE_READER_URL", "REDIS_CLUSTER", "RATE_LIMIT_RPM", "SENTRY_DSN", "DEBUG", "WEB_PROCESSES"):
        os.environ.pop(name, None)
    signal.signal(signal.SIGTERM, _leave)
    atexit.register(_engines.stop)  # when loading the tests fails, pytest never comes to its own end
    _engines.start()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Stop what this process has started: at the end, after an error and after Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        _engines.stop()
