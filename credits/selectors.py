"""What is read of an account's credits for people and programs to see."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db.models import Q, Sum

from accounts.models import Account
from config.redis import RedisUnavailable
from credits import counters
from credits.models import CreditGrant

log = structlog.get_logger(__name__)

GRANTS_SHOWN_MAX = 1000
EXPIRING_SOON = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Credits:
    """An account's credits: `available` can be spent now, `held` belongs to requests under way, `ledger` is booked.

    `expiring` of them expire within 30 days; `scheduled` grants do not count yet.
    """

    available: int
    held: int
    ledger: int
    expiring: int
    grants: list[CreditGrant]
    scheduled: list[CreditGrant]


def live_balances(numbers: Sequence[int]) -> list[counters.LiveBalance | None]:
    """What Redis says of these accounts, in their order, in one round trip; None for each when Redis is away."""
    try:
        return list(counters.inspect_many(numbers, quick=True))
    except RedisUnavailable as error:
        log.warning("live_balances_unknown", accounts=len(numbers), error=type(error).__name__)
        return [None] * len(numbers)


@dataclass(frozen=True, slots=True)
class Expiring:
    """What expires within a time: `total` credits, and the grants they are in, the first to expire first."""

    total: int
    grants: list[CreditGrant]


def expiring_soon(*, account: Account, now: datetime, within: timedelta) -> Expiring:
    """Credits of the account that expire unless they are spent within that time; at most 1,000 grants are listed."""
    expiring = CreditGrant.objects.filter(
        account=account, remaining__gt=0, expires_at__gt=now, expires_at__lte=now + within, ending_at=None
    )
    total = expiring.aggregate(total=Sum("remaining"))["total"]
    return Expiring(int(total or 0), list(expiring.order_by("expires_at", "created_at")[:GRANTS_SHOWN_MAX]))


def expiring_of_all(*, now: datetime) -> int:
    """Credits of all customers that expire within 30 days unless they are spent."""
    expiring = CreditGrant.objects.filter(
        remaining__gt=0, expires_at__gt=now, expires_at__lte=now + EXPIRING_SOON, ending_at=None
    )
    return int(expiring.aggregate(total=Sum("remaining"))["total"] or 0)


def scheduled_grants(*, account: Account) -> list[CreditGrant]:
    """Grants that do not count yet, the next first; at most 1,000."""
    scheduled = CreditGrant.objects.filter(account=account, entered_at=None, voided_at=None)
    return list(scheduled.order_by("effective_at")[:GRANTS_SHOWN_MAX])


def credits_of(*, account_number: int, now: datetime) -> Credits:
    """Live and booked credits with the grants that can still pay, in the order in which they expire."""
    account = Account.objects.get(number=account_number)
    (live,) = live_balances([account_number])
    available, held = (live.available, live.held) if live is not None and live.usable else (account.balance, 0)
    open_grants = CreditGrant.objects.filter(
        Q(expires_at=None) | Q(expires_at__gt=now), account=account, remaining__gt=0, voided_at=None
    ).order_by("expires_at", "created_at")
    return Credits(
        available=available,
        held=held,
        ledger=account.balance,
        expiring=expiring_soon(account=account, now=now, within=EXPIRING_SOON).total,
        grants=list(open_grants[:GRANTS_SHOWN_MAX]),
        scheduled=scheduled_grants(account=account),
    )
