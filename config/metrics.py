"""What this process counts about the requests it serves, in Prometheus' form.

Several web processes on one machine count together when PROMETHEUS_MULTIPROC_DIR names a folder, empty at their start, that
they share; without it a scrape answers for the one process that it reached. Labels have few values: no account, key or id.
"""

import os
import time
from collections.abc import Callable
from functools import lru_cache

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SCRIPT_SECONDS = (0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nothing here needs
_registry = CollectorRegistry()
_requests = Counter("meterhouse_http_requests", "Requests answered.", ["endpoint", "status"], registry=_registry)
_request_seconds = Histogram(
    "meterhouse_http_request_seconds",
    "Time until an answer began to leave.",
    ["endpoint"],
    buckets=_SECONDS,
    registry=_registry,
)
_refusals = Counter("meterhouse_refusals", "Requests refused, by the error's code.", ["code"], registry=_registry)
_script_seconds = Histogram(
    "meterhouse_redis_script_seconds",
    "Time of one Redis script of a request, such as admit and settle, the way there and back included.",
    ["script"],
    buckets=_SCRIPT_SECONDS,
    registry=_registry,
)
_reserve = Counter(
    "meterhouse_reserve_calls",
    "Calls that the reserve decided or paid because Redis did not answer.",
    ["step"],
    registry=_registry,
)


@lru_cache(maxsize=1024)
def _answered(endpoint: str, status: int) -> Counter:
    return _requests.labels(endpoint, str(status))


@lru_cache(maxsize=256)
def _lasted(endpoint: str) -> Histogram:
    return _request_seconds.labels(endpoint)


class MeasureRequests:
    """Counts and times every request by the name of its address; unknown addresses share one name."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.perf_counter()
        response = self.get_response(request)
        match = request.resolver_match
        endpoint = "unknown" if match is None else "admin" if "admin" in match.app_names else match.view_name
        _answered(endpoint, response.status_code).inc()
        _lasted(endpoint).observe(time.perf_counter() - started)
        return response


def count_refusal(code: str) -> None:
    """Notes a refusal by its code."""
    _refusals.labels(code).inc()


@lru_cache(maxsize=64)
def _script(name: str) -> Histogram:
    return _script_seconds.labels(name)


def count_reserve(step: str) -> None:
    """One call that went without Redis; `step` is decided or paid."""
    _reserve.labels(step).inc()


def observe_script(name: str, seconds: float) -> None:
    """Notes how long a call of the script with that name took."""
    _script(name).observe(seconds)


_figures: list[Callable[[], list[Metric]]] = []


def add_figures(ask: Callable[[], list[Metric]]) -> None:
    """Has every scrape answer with what `ask` reads from PostgreSQL, too; for an app's `ready`."""
    if ask not in _figures:
        _figures.append(ask)


def added_figures() -> list[Metric]:
    """What the apps read from PostgreSQL at this moment."""
    return [metric for ask in _figures for metric in ask()]


def exposition(*collectors: Collector) -> bytes:
    """This machine's request metrics and what the collectors give, as text for Prometheus."""
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(_registry)
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)
