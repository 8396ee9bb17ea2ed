"""`GET /metrics`: how the service does, for Prometheus. Sums and ages alone: nothing of any account.

Each store is asked in a thread of its own, within one deadline; what does not answer is left out and said to be down.
"""

import hmac
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow

import structlog
from django.conf import settings
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from config import metrics
from config.errors import error_body
from config.middleware import client_address, is_within
from credits import drain_figures, verification

log = structlog.get_logger(__name__)

DEADLINE_S = 2.0
_askers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="metrics")
_SUMS = {
    "events": "Journal events that the ledger's consumer has passed.",
    "entries": "Ledger entries written by drains.",
    "usage": "Journal events that the usage log's consumer has passed.",
    "swept": "Holds released after their deadline.",
}


@require_safe
def view(request: HttpRequest) -> HttpResponse:
    """The metrics, for callers with METRICS_TOKEN or an address in METRICS_NETWORKS; 404 where neither is set."""
    if not (settings.METRICS_TOKEN or settings.METRICS_NETWORKS or settings.DEBUG):
        raise Http404
    if not _may_read(request):
        message = "Send METRICS_TOKEN as `Authorization: Bearer …`, or ask from one of METRICS_NETWORKS."
        response = JsonResponse(error_body("METRICS_REFUSED", message), status=401)
        response["WWW-Authenticate"] = "Bearer"
        return response
    return HttpResponse(metrics.exposition(_Figures()), content_type=CONTENT_TYPE_LATEST)


def _may_read(request: HttpRequest) -> bool:
    if not (settings.METRICS_TOKEN or settings.METRICS_NETWORKS):
        return True  # DEBUG
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if settings.METRICS_TOKEN and scheme.lower() == "bearer":
        expected: bytes = settings.METRICS_TOKEN.encode()
        if hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), expected):
            return True
    return is_within(client_address(request), settings.METRICS_NETWORKS)


class _Figures(Collector):
    """What the stores say at the moment of the scrape."""

    def collect(self) -> Iterator[Metric]:
        deadline = time.monotonic() + DEADLINE_S
        asked = {name: _askers.submit(ask) for name, ask in _STORES.items()}
        answers = {name: _answer(name, future, deadline) for name, future in asked.items()}
        up = GaugeMetricFamily(
            "meterhouse_store_up", "1 when the store answered this scrape in time, else 0.", labels=["store"]
        )
        for name, answer in answers.items():
            up.add_metric([name], 0 if answer is None else 1)
        yield up
        for answer in answers.values():
            yield from answer or ()


def _answer(name: str, future: "Future[list[Metric]]", deadline: float) -> list[Metric] | None:
    try:
        return future.result(timeout=max(0.0, deadline - time.monotonic()))
    except TooSlow:
        future.cancel()
        log.warning("metrics_store_slow", store=name)
    except Exception as error:  # noqa: BLE001 - whatever the store's driver raises, its figures are missing
        log.warning("metrics_store_down", store=name, error=type(error).__name__)
    return None


def _of_redis() -> list[Metric]:
    waiting = drain_figures.backlog()
    sums, alive = drain_figures.drained()
    lag = GaugeMetricFamily(
        "meterhouse_drain_lag_seconds",
        "Age of the oldest journal event that the consumer has not passed; 0 when there is none.",
        labels=["consumer"],
    )
    lag.add_metric(["ledger"], waiting.ledger_lag_s)
    lag.add_metric(["usage"], waiting.usage_lag_s)
    aside = CounterMetricFamily(
        "meterhouse_events_set_aside", "Journal events that were not booked, by reason.", labels=["reason"]
    )
    for reason in ("late", "bad", "paid"):
        aside.add_metric([reason], sums.get(f"aside_{reason}", 0))
    return [
        lag,
        _gauge("meterhouse_journal_events", "Events that the journals keep.", waiting.journal_events),
        _gauge("meterhouse_holds", "Holds of requests under way.", waiting.holds),
        _gauge("meterhouse_holds_due", "Holds past their deadline that wait for the sweep.", waiting.holds_due),
        _gauge("meterhouse_drains_alive", "Drains heard of in the last ten seconds.", alive),
        *(CounterMetricFamily(f"meterhouse_drain_{name}", text, sums.get(name, 0)) for name, text in _SUMS.items()),
        aside,
    ]


def _of_postgres() -> list[Metric]:
    try:
        work, last = drain_figures.open_work(), verification.last_run()
        state = "none" if last is None else verification.state_now(last)
        added = metrics.added_figures()
    finally:
        connection.close()
    found = [
        _gauge("meterhouse_commands_open", "Commands that Redis has not confirmed.", work.commands),
        _gauge("meterhouse_commands_open_age_seconds", "Age of the oldest of them.", work.commands_age_s),
        _gauge("meterhouse_decreases_open", "Expiries, voids and deductions under way.", work.decreases),
        _gauge("meterhouse_decreases_open_age_seconds", "Age of the oldest of them.", work.decreases_age_s),
        _gauge(
            "meterhouse_ledger_proven", "1 when the last ledger check proved every balance.", int(state == "proven")
        ),
    ]
    if last is not None:
        age_s = max(0.0, (timezone.now() - last.started_at).total_seconds())
        found.append(_gauge("meterhouse_ledger_check_age_seconds", "Since the last ledger check began.", age_s))
    return found + added


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


_STORES: dict[str, Callable[[], list[Metric]]] = {"redis": _of_redis, "postgres": _of_postgres}
