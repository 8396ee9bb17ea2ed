"""Every command of docker-compose.yml, run without containers: it comes up, says that it is healthy, and stops when asked.

Our own processes run in a folder that holds what the Dockerfile copies and nothing else, with the environment that the file
gives them; only the stores' addresses are those of the tests.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings

from config.clickhouse.client import reader_url
from credits.checks import _durability
from embedded import ports
from embedded.redis import binary
from ingestion import generator
from tests.deploy.composed import ROOT, copied, made, services, stages
from tests.deploy.processes import ComposedProcess, environment_of_image
from tests.faults.processes import database_url

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("stores"), pytest.mark.timeout(300)]

HEALTHY_S = 120.0
PRODUCT = ("web", "drain", "worker", "ingestion", "beat")
# Python and the JVM say with 128 + 15 that it was SIGTERM.
ENDED = {0, 143, -15}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the image's /app."""
    folder = tmp_path_factory.mktemp("image") / "app"
    folder.mkdir()
    for source, target in copied(stages()["application"]):
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / source, folder / target)
    return folder


def _stores(service: Mapping[str, Any]) -> dict[str, str]:
    """The addresses of the tests' stores in place of those that the service is given."""
    urls = {
        "DATABASE_URL": database_url(),
        "REDIS_URL": settings.REDIS_URL,
        "CACHE_URL": settings.CACHE_URL,
        "CELERY_BROKER_URL": settings.CELERY_BROKER_URL,
        "CLICKHOUSE_URL": settings.CLICKHOUSE_URL,
        "CLICKHOUSE_READER_URL": reader_url(),
    }
    return urls if "DATABASE_URL" in service["environment"] else {}


@pytest.fixture
def started(image: Path, tmp_path: Path) -> Iterator[Any]:
    """Starts a service by its name, ends it after the test."""
    processes: list[ComposedProcess] = []

    def start(
        name: str, *, renamed: Mapping[str, str], changes: Mapping[str, str], command: list[str] | None = None
    ) -> ComposedProcess:
        service = services()[name] | ({"command": command} if command else {})
        own = {"/tmp/alive": str(tmp_path / "alive"), "/run/metrics": str(tmp_path)}  # noqa: S108 - in the container
        own["/data/scratch"] = str(tmp_path)
        built = environment_of_image(stages()["application"].last("ENV") or "") if "build" in service else {}
        process = ComposedProcess(
            service,
            folder=image if "build" in service else tmp_path,
            changes={**changes, **_stores(service)},
            renamed={**own, **renamed},
            image=built,
            log=tmp_path / f"{name}.log",
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.close()


def _wait_until_healthy(process: ComposedProcess) -> None:
    deadline = time.monotonic() + HEALTHY_S
    while not process.is_healthy():
        assert process.exit_code is None, process.log
        assert time.monotonic() < deadline, process.log
        time.sleep(0.2)


@pytest.mark.parametrize("name", PRODUCT)
def test_a_process_of_the_product_becomes_healthy_and_stops(started: Any, name: str) -> None:
    port = str(ports.free_port())
    changes = {"GRANIAN_HOST": "127.0.0.1", "GRANIAN_PORT": port} if name == "web" else {}
    process = started(name, renamed={"127.0.0.1:8000": f"127.0.0.1:{port}"}, changes=changes)
    _wait_until_healthy(process)
    assert process.stop() in ENDED, process.log


def test_migrating_ends_by_itself_and_may_be_repeated(started: Any) -> None:
    process = started("migrate", renamed={}, changes={})
    deadline = time.monotonic() + HEALTHY_S
    while process.exit_code is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert process.exit_code == 0, process.log
    assert "0 applied, ClickHouse is up to date." in process.log


def test_the_redis_of_credits_keeps_what_it_is_told(
    started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, port = _start_redis("redis", started, tmp_path, monkeypatch)
    try:
        with redis.Redis(port=port, password=made()["REDIS_PASSWORD"], decode_responses=True) as client:
            assert _durability("redis", client.config_get("*")) == []
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    finally:
        assert server.stop() == 0


def test_the_redis_of_the_cache_evicts_and_keeps_nothing(
    started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, port = _start_redis("cache", started, tmp_path, monkeypatch)
    try:
        with redis.Redis(port=port, password=made()["CACHE_PASSWORD"], decode_responses=True) as client:
            found = client.config_get("*")
        assert (found["maxmemory-policy"], found["appendonly"], found["save"]) == ("allkeys-lru", "no", "")
    finally:
        assert server.stop() == 0


def test_the_spark_of_the_file_loads_a_file(started: Any, tmp_path: Path) -> None:
    master, master_page, worker_page = (str(ports.free_port()) for _ in range(3))
    address = f"spark://127.0.0.1:{master}"
    listens = {"SPARK_MASTER_HOST": "127.0.0.1", "SPARK_MASTER_PORT": master, "SPARK_MASTER_WEBUI_PORT": master_page}
    on_master = started("spark-master", renamed={"127.0.0.1:8080": f"127.0.0.1:{master_page}"}, changes=listens)
    _wait_until_healthy(on_master)
    on_worker = started(
        "spark-worker",
        renamed={"127.0.0.1:8081": f"127.0.0.1:{worker_page}"},
        changes={"SPARK_MASTER": address, "SPARK_WORKER_WEBUI_PORT": worker_page},
    )
    _wait_until_healthy(on_worker)
    path = tmp_path / "people.csv"
    generator.write(path, rows=2_000, seed=uuid.uuid4().int % 2**32)
    here = {"driver.host=ingestion": "driver.host=127.0.0.1", "bindAddress=0.0.0.0": "bindAddress=127.0.0.1"}
    command = ["python", "manage.py", "ingest", str(path), "--engine", "spark", "--json"]
    loads = started("ingestion", renamed=here, changes={"SPARK_MASTER": address}, command=command)
    deadline = time.monotonic() + HEALTHY_S
    while loads.exit_code is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert loads.exit_code in (0, 1), loads.log + on_worker.log
    (job,) = json.loads(loads.log[loads.log.index("[{") :].splitlines()[0])
    assert (job["engine"], job["read"]) == ("spark", 2_000)
    assert on_worker.stop() in ENDED
    assert on_master.stop() in ENDED


def _start_redis(
    name: str, started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ComposedProcess, int]:
    monkeypatch.setenv("PATH", f"{binary().parent}{os.pathsep}{os.environ['PATH']}")
    port = ports.free_port()
    here = {"--dir /data": f"--dir {tmp_path}", "--dir /tmp": f"--dir {tmp_path}", "redis-cli": f"redis-cli -p {port}"}
    listen = {"redis-server": f"redis-server --bind 127.0.0.1 --port {port}"}
    process = started(name, renamed={**here, **listen}, changes={})
    _wait_until_healthy(process)
    return process, port
