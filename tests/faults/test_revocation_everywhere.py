"""C9 with real processes: three web processes and a drain on stores of their own, which are killed and frozen.

The criterion is one second from the call to the last process's refusal. Here it is waited for longer, since a busy machine
proves nothing; every test prints what it measured (`pytest -s`).
"""

import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis
from django.conf import settings

from embedded import ports, processes
from embedded.postgres import Postgres
from embedded.redis import Redis
from tests.faults.processes import ROOT, Drain, Web, environment_of

pytestmark = [pytest.mark.usefixtures("clickhouse_schema"), pytest.mark.timeout(240)]

WEBS = 3
PATIENCE_S = 60.0


class Site:
    """PostgreSQL, Redis, three web processes and a drain."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        pids, logs = folder / "pids", folder / "log"
        self.postgres = Postgres(folder / "postgres", pids=pids, logs=logs, database="meterhouse", fast=True)
        self._redis = Redis(folder / "redis", pids=pids, logs=logs, port=ports.free_port(), fast=True)
        for engine in (self.postgres, self._redis):
            stack.callback(engine.stop)
            engine.start(dies_with_parent=True)
        self.environment = {**self.postgres.urls, **self._redis.urls, "REDIS_TIMEOUT_MS": "1000"}
        self.manage("migrate", "--verbosity=0")
        self._stack = stack
        self.webs = [self.start_web() for _ in range(WEBS)]
        drain = Drain(environment=self.environment)
        stack.callback(drain.close)
        self.account = str(json.loads(self.manage("create_customer", "--email=a@example.com", "--json"))["number"])

    def manage(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=environment_of(self.environment),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout

    def start_web(self) -> Web:
        web = Web(environment=self.environment)
        self._stack.callback(web.close)
        return web

    def make_key(self) -> tuple[str, str]:
        """(whole key, its id), known to every process."""
        made = json.loads(self.manage("create_key", f"--account={self.account}", "--rpm=0", "--json"))
        assert [call(web.port, made["api_key"]) for web in self.webs] == [200] * WEBS
        return made["api_key"], made["key_id"]

    def state_in_postgres(self, key_id: str) -> str | None:
        """The key's state as the table says; None while PostgreSQL is away."""
        try:
            with psycopg.connect(self.postgres.urls["DATABASE_URL"], connect_timeout=2) as connection:
                row = connection.execute("SELECT state FROM accounts_apikey WHERE public_id = %s", [key_id]).fetchone()
        except psycopg.OperationalError:
            return None
        return row[0] if row else None

    def flushall(self) -> None:
        with redis.Redis.from_url(self._redis.urls["REDIS_URL"]) as client:
            client.flushall()

    def is_noted(self, key_id: str) -> bool:
        with redis.Redis.from_url(self._redis.urls["REDIS_URL"]) as client:
            return any(client.hexists(f"{{p{partition:02d}}}:revocations", key_id) for partition in range(64))

    def postgres_processes(self) -> list[psutil.Process]:
        server = processes.recorded(self.postgres.program)
        assert server is not None
        return [server, *server.children(recursive=True)]


def call(port: int, api_key: str) -> int:
    """The status of a free call that asks Redis alone; 0 when there was no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/api/v1/fields", headers={"X-API-Key": api_key})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def revoke(port: int, key_id: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"X-Admin-Secret": settings.ADMIN_SECRET, "Content-Type": "application/json"}
    try:
        connection.request("POST", "/admin/revoke-key", json.dumps({"key": key_id}), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def wait_for(what: Callable[[], bool]) -> float:
    """Seconds until it was so; fails after PATIENCE_S."""
    started = time.monotonic()
    while not what():
        assert time.monotonic() - started < PATIENCE_S
        time.sleep(0.01)
    return time.monotonic() - started


def seconds_until_refused_everywhere(site: Site, api_key: str, begin: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds from the beginning of `begin` to the last process's refusal, what it returned)."""
    refused: list[float] = []
    started = time.monotonic()

    def watch(port: int) -> None:
        wait_for(lambda: call(port, api_key) == 401)
        refused.append(time.monotonic() - started)

    watchers = [threading.Thread(target=watch, args=(web.port,)) for web in site.webs]
    for watcher in watchers:
        watcher.start()
    returned = begin()
    for watcher in watchers:
        watcher.join()
    assert len(refused) == len(site.webs)
    assert [call(web.port, api_key) for web in site.webs] == [401] * len(site.webs)
    return max(refused), returned


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mh-revocation-")))
        folder.chmod(0o711)
        yield Site(folder, stack)


def test_every_process_refuses_a_revoked_key_also_after_flushall(site: Site) -> None:
    api_key, key_id = site.make_key()
    seconds, (status, body) = seconds_until_refused_everywhere(site, api_key, lambda: revoke(site.webs[0].port, key_id))
    sys.stdout.write(f"both stores up: refused by {WEBS} processes after {seconds * 1000:.0f} ms\n")
    assert (status, body["state"]) == (200, "revoked")
    site.flushall()
    assert [call(web.port, api_key) for web in site.webs] == [401] * WEBS


def test_every_process_refuses_a_revoked_key_while_postgres_is_killed(site: Site) -> None:
    api_key, key_id = site.make_key()
    other_key, _ = site.make_key()
    for process in site.postgres_processes():
        process.kill()
    try:
        seconds, (status, body) = seconds_until_refused_everywhere(
            site, api_key, lambda: revoke(site.webs[0].port, key_id)
        )
        sys.stdout.write(f"PostgreSQL killed: refused by {WEBS} processes after {seconds * 1000:.0f} ms\n")
        assert (status, body["state"], body["known_by"]) == (202, "pending", ["redis"])
        assert [call(web.port, other_key) for web in site.webs] == [200] * WEBS
    finally:
        site.postgres.start(dies_with_parent=True)
    seconds = wait_for(lambda: site.state_in_postgres(key_id) == "revoked" and not site.is_noted(key_id))
    sys.stdout.write(f"PostgreSQL back: it knows the revocation after {seconds:.1f} s\n")
    site.flushall()
    assert [call(web.port, api_key) for web in site.webs] == [401] * WEBS
    assert [call(web.port, other_key) for web in site.webs] == [200] * WEBS


def test_a_process_killed_between_the_two_writes_leaves_a_revocation_that_goes_on(site: Site) -> None:
    api_key, key_id = site.make_key()
    victim = site.webs.pop(0)

    def ask() -> None:
        with pytest.raises((OSError, http.client.HTTPException)):
            revoke(victim.port, key_id)

    frozen = site.postgres_processes()
    for process in frozen:
        process.suspend()
    try:
        asking = threading.Thread(target=ask)
        asking.start()
        seconds, _ = seconds_until_refused_everywhere(site, api_key, lambda: wait_for(lambda: site.is_noted(key_id)))
        victim.kill()
        asking.join()
        sys.stdout.write(f"PostgreSQL frozen: refused by {len(site.webs)} processes after {seconds * 1000:.0f} ms\n")
    finally:
        for process in frozen:
            process.resume()
        site.webs.insert(0, site.start_web())
    wait_for(lambda: site.state_in_postgres(key_id) == "revoked" and not site.is_noted(key_id))
    site.flushall()
    assert [call(web.port, api_key) for web in site.webs] == [401] * WEBS
