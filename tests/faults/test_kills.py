"""Money through real processes: many threads, two web processes, kill -9 of web and drain in the middle."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from django.utils import timezone

from credits import counters, drain, verify
from credits.models import CreditTransaction
from tests.factories import Customer, make_customer
from tests.faults.processes import Drain, ServerProcess, Web

pytestmark = [pytest.mark.usefixtures("stores"), pytest.mark.timeout(180)]

CREDITS, CALLS, THREADS = 50, 200, 20
UNANSWERED = (0, 503, 504)
SHORT_HOLDS = {"QUERY_TIMEOUT_S": "4", "HOLD_S": "5"}
BODY = json.dumps({"filters": {"city": "Nowhere at all"}, "limit": 1})


@pytest.fixture
def running() -> Iterator[Callable[[ServerProcess], ServerProcess]]:
    """Registers processes so that none outlives its test."""
    with ExitStack() as stack:

        def register(process: ServerProcess) -> ServerProcess:
            stack.callback(process.close)
            return process

        yield register


def query(port: int, api_key: str) -> int:
    """The status of one one-credit query; 0 when the answer was lost."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/api/v1/query", BODY, {"X-API-Key": api_key, "Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def spent(customer: Customer) -> int:
    entries = CreditTransaction.objects.filter(account=customer.account, type="debit")
    return sum(entries.values_list("amount", flat=True))


def assert_proven(customer: Customer) -> None:
    result = verify.verify(now=timezone.now())
    assert [d for d in result.differences if d.account_number == customer.number] == []
    assert customer.number not in result.behind


def test_two_web_processes_spend_exactly_the_credits_there_are(
    running: Callable[[ServerProcess], ServerProcess],
) -> None:
    customer = make_customer(credits=CREDITS)
    webs = [Web(), Web()]
    for process in webs:
        running(process)
    running(Drain())
    with ThreadPoolExecutor(THREADS) as pool:
        statuses = Counter(pool.map(lambda n: query(webs[n % 2].port, customer.api_key), range(CALLS)))
    drain.drain_once()
    live = counters.inspect(customer.number)
    assert statuses == {200: CREDITS, 402: CALLS - CREDITS}
    assert (spent(customer), live.balance, live.held) == (CREDITS, 0, 0)
    assert_proven(customer)


def test_kill_9_of_web_and_drain_changes_nothing_in_the_sum(
    running: Callable[[ServerProcess], ServerProcess],
) -> None:
    customer = make_customer(credits=CREDITS)
    first, second, draining = Web(environment=SHORT_HOLDS), Web(environment=SHORT_HOLDS), Drain(environment=SHORT_HOLDS)
    for process in (first, second, draining):
        running(process)
    statuses: Counter[int] = Counter()
    killing = threading.Event()
    lock = threading.Lock()

    def call(number: int) -> None:
        status = query((first, second)[number % 2].port, customer.api_key)
        with lock:
            statuses[status] += 1
            if statuses[200] >= CREDITS // 4:
                killing.set()

    with ThreadPoolExecutor(THREADS) as pool:
        calls = [pool.submit(call, number) for number in range(CALLS)]
        assert killing.wait(timeout=60)
        first.kill()
        draining.kill()
        for done in calls:
            done.result()
    # What the killed process held comes back when its deadline has passed; then the rest can be spent.
    running(Drain(environment=SHORT_HOLDS))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        statuses[query(second.port, customer.api_key)] += 1
        live = counters.inspect(customer.number)
        if live.balance == 0 and live.held == 0:
            break
        time.sleep(0.05)
    drain.drain_once()
    live = counters.inspect(customer.number)
    assert (spent(customer), live.balance, live.held) == (CREDITS, 0, 0)
    # Every success was charged; what was charged beyond them are answers that the kill, or a busy machine, cut off.
    assert set(statuses) <= {200, 402, *UNANSWERED}
    unanswered = sum(statuses[status] for status in UNANSWERED)
    assert CREDITS - unanswered <= statuses[200] <= CREDITS
    assert_proven(customer)


def test_a_drain_stops_on_sigterm_after_the_pass_under_way(
    running: Callable[[ServerProcess], ServerProcess],
) -> None:
    draining = Drain()
    running(draining)
    assert draining.terminate() == 0
