"""Whether the service lives, can work, and which of its stores answer. Open to anybody; tells nothing else."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow

import structlog
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from config.clickhouse.client import reader
from config.redis import route

log = structlog.get_logger(__name__)

# All three are asked at once; whoever has not answered by then counts as down.
DEADLINE_S = 2.0
_askers = ThreadPoolExecutor(max_workers=12, thread_name_prefix="health")


def _postgres() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()


def _redis() -> None:
    for master in route().masters().values():
        master.ping()


def _clickhouse() -> None:
    if not reader().ping(timeout=DEADLINE_S):
        raise ConnectionError("no answer to ping")


_STORES: dict[str, Callable[[], None]] = {"postgres": _postgres, "redis": _redis, "clickhouse": _clickhouse}


def stores() -> dict[str, bool]:
    """Which of postgres, redis and clickhouse answer now; takes at most `DEADLINE_S`."""
    deadline = time.monotonic() + DEADLINE_S
    asked = {name: _askers.submit(ask) for name, ask in _STORES.items()}
    return {name: _answers(name, future, deadline) for name, future in asked.items()}


def _answers(name: str, future: "Future[None]", deadline: float) -> bool:
    try:
        future.result(timeout=max(0.0, deadline - time.monotonic()))
    except TooSlow:
        future.cancel()
        log.warning("store_slow", store=name)
        return False
    except Exception as error:  # noqa: BLE001 - whatever the store's driver raises, the answer is "down"
        log.warning("store_down", store=name, error=type(error).__name__)
        return False
    return True


@require_safe
def alive(request: HttpRequest) -> JsonResponse:
    """Liveness: the process answers. Asks no store, so a store that is away never gets the process killed."""
    return JsonResponse({"ok": True, "status": "ok"})


@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """Readiness: 503 only when requests can be neither decided (Redis) nor answered (ClickHouse)."""
    up = stores()
    is_ready = up["redis"] or up["clickhouse"]
    body = {"ready": is_ready, "can_decide": up["redis"], "can_answer": up["clickhouse"]}
    return JsonResponse(body, status=200 if is_ready else 503)


@require_safe
def report(request: HttpRequest) -> JsonResponse:
    """`{"ok", "status", "postgres", "redis", "clickhouse"}`; 503 when one of them is down."""
    up = stores()
    ok = all(up.values())
    return JsonResponse({"ok": ok, "status": "ok" if ok else "degraded", **up}, status=200 if ok else 503)
