"""The breaker: who may ask a server that does not answer."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from config.breaker import Breaker, breaker_of, forget_breakers


def test_everybody_may_ask_a_server_that_answers() -> None:
    breaker = Breaker()
    assert (breaker.is_open, breaker.lets(now=0.0), breaker.lets(now=0.0)) == (False, True, True)


def test_nobody_asks_after_a_failure() -> None:
    breaker = Breaker()
    breaker.failed(now=10.0)
    assert (breaker.is_open, breaker.lets(now=10.0), breaker.lets(now=10.999)) == (True, False, False)


def test_one_caller_a_second_finds_out() -> None:
    breaker = Breaker()
    breaker.failed(now=10.0)
    asked = [breaker.lets(now=now) for now in (11.0, 11.0, 11.9, 12.0, 12.1)]
    assert asked == [True, False, False, True, False]


def test_one_of_many_callers_at_once_finds_out() -> None:
    breaker = Breaker()
    breaker.failed(now=10.0)
    start = threading.Barrier(8)

    def ask(_: int) -> bool:
        start.wait()
        return breaker.lets(now=11.5)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 1


def test_an_answer_closes_it() -> None:
    breaker = Breaker()
    breaker.failed(now=10.0)
    assert breaker.lets(now=11.0)
    breaker.succeeded()
    assert (breaker.is_open, breaker.lets(now=11.0), breaker.lets(now=11.0)) == (False, True, True)


def test_a_probe_that_fails_keeps_it_open_for_another_second() -> None:
    breaker = Breaker()
    breaker.failed(now=10.0)
    assert breaker.lets(now=11.0)
    breaker.failed(now=11.25)
    assert [breaker.lets(now=now) for now in (12.0, 12.25)] == [False, True]


@pytest.mark.usefixtures("stores")
def test_partitions_of_one_server_share_a_breaker() -> None:
    forget_breakers()
    first = breaker_of(3, now=0.0)
    first.failed(now=0.0)
    assert breaker_of(60, now=0.0) is first
    forget_breakers()
    assert breaker_of(3, now=0.0).is_open is False
