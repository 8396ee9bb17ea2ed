"""The worker and its broker: a broker that dies and comes back, without a hand and without a task run twice."""

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kombu.exceptions import OperationalError

from config.celery import app
from credits.models import VerificationRun
from credits.tasks import verify_ledger
from embedded import ports, processes
from embedded.redis import Redis
from tests.faults.processes import Worker

pytestmark = [pytest.mark.usefixtures("stores"), pytest.mark.timeout(180)]

SOON_S = 60.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Redis]:
    """A broker of this test's own."""
    pids, logs = tmp_path / "pids", tmp_path / "log"
    redis = Redis(tmp_path / "redis", pids=pids, logs=logs, port=ports.free_port(), name="broker")
    redis.start(dies_with_parent=True)
    yield redis
    redis.stop()


@pytest.fixture
def worker(broker: Redis) -> Iterator[Worker]:
    process = Worker(environment={"CELERY_BROKER_URL": broker.urls["CELERY_BROKER_URL"]})
    yield process
    process.close()


def _queue(broker: Redis) -> None:
    with app.connection_for_write(broker.urls["CELERY_BROKER_URL"]) as connection:
        app.send_task(verify_ledger.name, connection=connection)


def _runs_since(last: int) -> int:
    return VerificationRun.objects.filter(id__gt=last, trigger="task", finished_at__isnull=False).count()


def _wait_for_runs(last: int, count: int) -> int:
    deadline = time.monotonic() + SOON_S
    while _runs_since(last) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return _runs_since(last)


def test_the_worker_goes_on_when_its_broker_was_killed_and_came_back(broker: Redis, worker: Worker) -> None:
    last = VerificationRun.objects.order_by("-id").values_list("id", flat=True).first() or 0
    _queue(broker)
    assert _wait_for_runs(last, 1) == 1
    victim = processes.recorded(broker.program)
    assert victim is not None
    port = broker.port
    victim.kill()
    psutil.wait_procs([victim], timeout=10)
    broker.start(dies_with_parent=True)
    assert broker.port == port
    _queue(broker)
    assert _wait_for_runs(last, 2) == 2
    assert worker.terminate() == 0


def test_who_queues_a_task_without_a_broker_is_told_so() -> None:
    with app.connection_for_write("redis://127.0.0.1:1/2") as connection, pytest.raises(OperationalError):
        app.send_task(verify_ledger.name, connection=connection)
