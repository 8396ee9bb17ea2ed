"""What is read of an account's credits for people and programs to see."""

from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db.models import Q

from accounts.models import Account
from config.redis import RedisUnavailable
from credits import counters
from credits.models import CreditGrant

log = structlog.get_logger(__name__)

GRANTS_SHOWN_MAX = 1000


@dataclass(frozen=True, slots=True)
class Credits:
    """An account's credits: `available` can be spent now, `held` belongs to requests under way, `ledger` is booked."""

    available: int
    held: int
    ledger: int
    grants: list[CreditGrant]


def credits_of(*, account_number: int, now: datetime) -> Credits:
    """Live and booked credits with the grants that can still pay, in the order in which they expire."""
    account = Account.objects.get(number=account_number)
    available, held = account.balance, 0
    try:
        live = counters.inspect(account_number)
        if live.usable:
            available, held = live.available, live.held
    except RedisUnavailable as error:
        log.warning("live_balance_unknown", account=account_number, error=type(error).__name__)
    open_grants = CreditGrant.objects.filter(
        Q(expires_at=None) | Q(expires_at__gt=now), account=account, remaining__gt=0, voided_at=None
    ).order_by("expires_at", "created_at")
    return Credits(available, held, account.balance, list(open_grants[:GRANTS_SHOWN_MAX]))
