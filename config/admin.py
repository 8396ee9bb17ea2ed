"""The operators' home page: a few true figures, each leading to its list, and which store answers."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog
from django.db import OperationalError
from django.db.models import Q, Sum
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

import config.admin_schedule  # noqa: F401 - registers the schedule
from accounts.models import Account, ApiKey
from config.display import Tile, quiet, short_figure
from config.health import stores
from config.redis import RedisUnavailable
from credits import counters, drain_figures, verification
from credits.admin_verification import result_tile
from credits.models import CreditTransaction
from credits.selectors import expiring_of_all
from ingestion.models import IngestionJob

log = structlog.get_logger(__name__)

JOBS_SHOWN = 5
LAG_WARNING_S = 5
_STORES = {
    "postgres": ("PostgreSQL", "accounts, keys, ledger"),
    "redis": ("Redis", "live balances, rate limits"),
    "clickhouse": ("ClickHouse", "records, usage"),
}


def home(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's dashboard callback. A store that is away costs its figures, never the page."""
    up = stores()
    return {
        **context,
        "title": "Home",
        "now": timezone.now(),
        "tiles": [_filled(tile) for permission, tile in _TILES if request.user.has_perm(permission)],
        "stores": [
            {"name": name, "serves": serves, "up": up[store], "word": "answers" if up[store] else "does not answer"}
            for store, (name, serves) in _STORES.items()
        ],
        "jobs": _jobs() if request.user.has_perm("ingestion.view_ingestionjob") else None,
    }


def _filled(tile: "Callable[[], Tile]") -> Tile:
    try:
        return tile()
    except (OperationalError, *RedisUnavailable) as error:
        log.warning("figure_unknown", figure=tile.__name__, error=type(error).__name__)
        return Tile((tile.__doc__ or "").rstrip("."), quiet("unknown"), "its store does not answer", tone="warning")


def _customers() -> Tile:
    """Customers."""
    suspended = Account.objects.filter(state=Account.State.SUSPENDED).count()
    note = f"{suspended:,} suspended" if suspended else "none suspended"
    return Tile("Customers", short_figure(Account.objects.count()), note, _list("accounts_account"))


def _keys() -> Tile:
    """Active keys."""
    active = ApiKey.objects.filter(state=ApiKey.State.ACTIVE).count()
    return Tile("Active keys", short_figure(active), "not revoked", _list("accounts_apikey", "state__exact=active"))


def _balances() -> Tile:
    """Credits in balances."""
    total = Account.objects.aggregate(total=Sum("balance"))["total"] or 0
    return Tile("Credits in balances", short_figure(total), "booked, all customers", _list("accounts_account", "o=-3"))


def _topped_up() -> Tile:
    """Topped up."""
    topped_up = _credits_of_the_last_day(Q(kind=CreditTransaction.Kind.TOP_UP))
    return Tile(
        "Topped up",
        short_figure(topped_up),
        "credits, last 24 hours",
        _list("credits_credittransaction", "kind__exact=top_up"),
    )


def _spent() -> Tile:
    """Spent."""
    spent = _credits_of_the_last_day(Q(kind=CreditTransaction.Kind.USAGE))
    return Tile(
        "Spent", short_figure(spent), "credits, last 24 hours", _list("credits_credittransaction", "kind__exact=usage")
    )


def _credits_of_the_last_day(which: Q) -> int:
    since = timezone.now() - timedelta(days=1)
    return int(
        CreditTransaction.objects.filter(which, created_at__gte=since).aggregate(total=Sum("amount"))["total"] or 0
    )


def _expiring() -> Tile:
    """Expiring in 30 days."""
    expiring = expiring_of_all(now=timezone.now())
    return Tile(
        "Expiring in 30 days",
        short_figure(expiring),
        "credits that nobody has spent",
        _list("credits_creditgrant", "expiring=30"),
    )


def _journal() -> Tile:
    """Journal."""
    return Tile("Journal", short_figure(counters.journal_length()), "events kept in Redis")


def _drain() -> Tile:
    """Drain."""
    waiting = drain_figures.backlog()
    _, alive = drain_figures.drained()
    lag_s = max(waiting.ledger_lag_s, waiting.usage_lag_s)
    if not alive:
        return Tile("Drain", quiet("none runs"), f"the journal waits for {lag_s:.0f} s", tone="warning")
    behind = f"{lag_s:.1f} s behind" if lag_s < 10 else f"{lag_s:,.0f} s behind"
    tone = "warning" if lag_s > LAG_WARNING_S else ""
    return Tile("Drain", behind if lag_s else "up to date", f"{alive} running", tone=tone)


def _ledger_check() -> Tile:
    """Ledger check."""
    return result_tile(verification.last_run(), url=_list("credits_verificationrun"))


_TILES: tuple[tuple[str, Callable[[], Tile]], ...] = (
    ("accounts.view_account", _customers),
    ("accounts.view_apikey", _keys),
    ("accounts.view_account", _balances),
    ("credits.view_credittransaction", _topped_up),
    ("credits.view_credittransaction", _spent),
    ("credits.view_creditgrant", _expiring),
    ("credits.view_credittransaction", _journal),
    ("credits.view_credittransaction", _drain),
    ("credits.view_verificationrun", _ledger_check),
)


def _list(model: str, query: str = "") -> str:
    return reverse(f"admin:{model}_changelist") + (f"?{query}" if query else "")


def _jobs() -> list[IngestionJob]:
    return list(IngestionJob.objects.order_by("-created_at")[:JOBS_SHOWN])
