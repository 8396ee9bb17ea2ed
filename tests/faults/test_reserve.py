"""redis-server is killed under load: the reserve answers, nothing is overspent, and balances agree when Redis is back."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
from django.db import connection
from django.test import override_settings

from config import redis
from config.breaker import forget_breakers
from credits import counters, loading, verify
from credits.models import CreditTransaction
from embedded import ports, processes
from embedded.redis import Redis
from tests.factories import Customer, make_customer
from tests.faults.processes import Drain, Web
from tests.faults.test_kills import query

pytestmark = [pytest.mark.usefixtures("stores"), pytest.mark.timeout(240)]

log = structlog.get_logger(__name__)

THREADS = 8
RICH, POOR = 60_000, 600  # their reserves: 1,000 and 12
ANSWER_TIMEOUT_S, RETURN_TIMEOUT_S = 30.0, 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One query for one credit; `status` 0 when its answer was lost."""

    customer: int
    began: float
    ended: float
    status: int


class Load:
    """Threads that ask until they are told to stop."""

    def __init__(self, webs: list[Web], customers: list[Customer]) -> None:
        self._webs, self._customers = webs, customers
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.asked: list[Asked] = []
        self._threads = [threading.Thread(target=self._work, args=[number], daemon=True) for number in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int) -> None:
        customer = self._customers[number % len(self._customers)]
        while not self._stopping.is_set():
            began = time.monotonic()
            status = query(self._webs[number % len(self._webs)].port, customer.api_key)
            with self._lock:
                self.asked.append(Asked(customer.number, began, time.monotonic(), status))

    def first_success(self, *, since: float, timeout_s: float) -> float:
        """When the first query that began after `since` was answered."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with self._lock:
                ended = [asked.ended for asked in self.asked if asked.began > since and asked.status == 200]
            if ended:
                return min(ended)
            time.sleep(0.01)
        raise TimeoutError("No query was answered.")

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=60)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """A server that may be killed, and that keeps what it has confirmed."""
    engine = Redis(tmp_path / "redis", port=ports.free_port(), pids=tmp_path / "pids", logs=tmp_path / "log")
    engine.start(dies_with_parent=True)
    try:
        with override_settings(REDIS_URL=engine.urls["REDIS_URL"]):
            redis.forget_clients()
            redis.money().config_set("appendfsync", "always")
            yield engine
    finally:
        redis.forget_clients()
        forget_breakers()
        engine.stop()


def kill(engine: Redis) -> None:
    running = processes.recorded(engine.program)
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)


def agree(customers: list[Customer]) -> bool:
    """Whether Redis says of each customer what the ledger says; drains nothing and loads nothing."""
    numbers = [customer.number for customer in customers]
    try:
        lives = counters.inspect_many(numbers)
    except redis.RedisUnavailable:
        return False
    with connection.cursor() as cursor:
        cuts = [[getattr(live, part) for live in lives] for part in ("epoch", "seq", "applied")]
        cursor.execute(verify._LIVE_SQL, [numbers, *cuts])
        rows = {row[0]: row[1:] for row in cursor.fetchall()}
    for number, live in zip(numbers, lives, strict=True):
        same_epoch, is_drained, reserve, expected = rows[number]
        if not (live.usable and same_epoch and is_drained and live.balance == expected):
            return False
        if reserve is not None and live.reserve != reserve:
            return False
    return True


def spent(customer: Customer) -> int:
    entries = CreditTransaction.objects.filter(account=customer.account, type="debit")
    return sum(entries.values_list("amount", flat=True))


def test_the_reserve_answers_while_redis_is_killed_under_load(own_redis: Redis) -> None:
    customers = [make_customer(credits=given) for given in (RICH, RICH, RICH, POOR)]
    for customer in customers:
        loading.load_account(customer.number)
    seen = {**own_redis.urls, "HOLD_S": "5", "QUERY_TIMEOUT_S": "2", "REDIS_TIMEOUT_MS": "250"}
    webs, drain = [Web(environment=seen), Web(environment=seen)], Drain(environment=seen)
    load = Load(webs, customers)
    try:
        load.first_success(since=time.monotonic(), timeout_s=ANSWER_TIMEOUT_S)
        time.sleep(1)
        kill(own_redis)
        killed = time.monotonic()
        answered = load.first_success(since=killed, timeout_s=ANSWER_TIMEOUT_S)
        time.sleep(3)
        entries = CreditTransaction.objects.filter(account__in=[c.account for c in customers], kind="usage", seq=None)
        assert entries.count() > 0
        own_redis.start(dies_with_parent=True)
        returned = time.monotonic()
        while not agree(customers):
            assert time.monotonic() < returned + RETURN_TIMEOUT_S
            time.sleep(0.05)
        agreed = time.monotonic()
        load.first_success(since=agreed, timeout_s=ANSWER_TIMEOUT_S)
        load.stop()
        deadline = time.monotonic() + RETURN_TIMEOUT_S
        while not (agree(customers) and not any(live.held for live in held(customers))):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        load.stop()
        for process in (*webs, drain):
            process.close()
    log.info("redis_killed", answered_after_s=round(answered - killed, 3), agreed_after_s=round(agreed - returned, 3))
    for customer in customers:
        assert_charged_once(customer, [asked.status for asked in load.asked if asked.customer == customer.number])


def held(customers: list[Customer]) -> list[counters.LiveBalance]:
    return counters.inspect_many([customer.number for customer in customers])


def assert_charged_once(customer: Customer, statuses: list[int]) -> None:
    """Each success was charged, nothing else but answers that the kill or a timeout has cut off; never past the balance."""
    answered, unanswered = statuses.count(200), sum(statuses.count(status) for status in (0, 503, 504))
    assert set(statuses) <= {200, 402, 0, 503, 504}
    assert answered <= spent(customer) <= answered + unanswered
    customer.account.refresh_from_db()
    assert 0 <= customer.account.reserve <= customer.account.balance
    assert verify._ledger_differences([customer.number]) == []
