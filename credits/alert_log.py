"""What an account was told, in pages."""

import uuid
from dataclasses import dataclass

from accounts.models import Account
from config.errors import InvalidRequest
from credits import alert_messages
from credits.alert_models import Alert

PAGE_DEFAULT = 20
PAGE_MAX = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Alerts with their deliveries, newest first; `next` is the event id to go on after, None at the end."""

    alerts: list[Alert]
    next: str | None


def page_of(*, account: Account, limit: int, before: str = "") -> Page:
    """Up to `limit` alerts older than the event `before`. Raises `InvalidRequest` for an id that is not the account's."""
    found = Alert.objects.filter(account=account)
    if before:
        found = found.filter(pk__lt=_row(account, before))
    rows = found.select_related("account").prefetch_related("deliveries").order_by("-pk")
    alerts = list(rows[: limit + 1])
    more = len(alerts) > limit
    return Page(alerts[:limit], alert_messages.event_id(alerts[limit - 1]) if more else None)


def _row(account: Account, event: str) -> int:
    unknown = InvalidRequest("There is no such alert.", details={"before": "give the value of `next`"})
    try:
        event_id = uuid.UUID(event.removeprefix("evt_"))
    except ValueError:
        raise unknown from None
    row = Alert.objects.filter(account=account, event_id=event_id).values_list("pk", flat=True).first()
    if row is None:
        raise unknown
    return row
