"""Taking credits back: expiry, void, negative adjustment (credits/README.md, step 7).

Redis gives only what is neither held nor spent, in `take` commands that are booked when the drain meets their events. What it
could not give is asked for again, at most once a second, until the target is met or nothing remains.
"""

from datetime import datetime

import structlog
from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef

from accounts.models import Account
from config.errors import DomainError, InvalidRequest
from config.redis import PARTITIONS
from credits import counters, ledger, ledger_rows
from credits.ledger_rows import LockedAccount
from credits.models import Command, CreditGrant, Decrease
from credits.services import TOP_UP_MAX, spendable, tell_redis

log = structlog.get_logger(__name__)

DUE_MAX = 500


class GrantEnding(DomainError):
    """409: the grant is empty, or is being taken back already."""

    status = 409


def void_grant(*, grant: CreditGrant, reason: str, actor: str, now: datetime) -> Decrease:
    """Takes back what a grant has left after what was spent until now. Raises `GrantEnding`, `InvalidRequest` without a
    reason, `RedisUnavailable`: without Redis nobody knows what is held."""
    if not reason.strip():
        raise InvalidRequest("Say why the grant is voided.", details={"reason": "required"})
    ledger.catch_up(grant.account.number % PARTITIONS, now=now)
    decrease = _begin(grant, kind=Decrease.Kind.VOID, reason=reason.strip(), actor=actor, now=now)
    tell_redis(grant.account)
    return decrease


def deduct(*, account: Account, amount: int, reason: str, actor: str, now: datetime) -> Decrease:
    """Takes `amount` credits from the account, grants in burn-down order: a negative adjustment.

    Raises `InvalidRequest` without a reason, or for an amount outside 1 to what the account can spend now.
    """
    available = spendable(account)
    if not reason.strip():
        raise InvalidRequest("Say why credits are taken.", details={"reason": "required"})
    if not 1 <= amount <= min(TOP_UP_MAX, available):
        raise InvalidRequest(
            f"Between 1 and {available:,} credits can be taken now.", details={"amount": f"1 to {available}"}
        )
    with transaction.atomic():
        locked = ledger_rows.lock_accounts([account.number])[account.number]
        decrease = Decrease.objects.create(
            account=account,
            kind=Decrease.Kind.ADJUSTMENT,
            target=amount,
            reason=reason.strip()[:255],
            actor=actor[:254],
            created_at=now,
        )
        _add_take(locked, decrease, amount, now=now)
    tell_redis(account)
    return decrease


def expire_due(*, now: datetime) -> int:
    """Begins the decrease of each grant whose expiry has passed; how many.

    What was spent before its moment may still be drawn from it, so the account's journal is drained first.
    """
    due = CreditGrant.objects.filter(remaining__gt=0, expires_at__lte=now, ending_at=None).select_related("account")
    begun = 0
    for grant in due.order_by("expires_at")[:DUE_MAX]:
        ledger.catch_up(grant.account.number % PARTITIONS, now=now)
        try:
            _begin(grant, kind=Decrease.Kind.EXPIRY, reason="Expired", actor="", now=now)
        except GrantEnding:
            continue  # spent meanwhile, or another drain was first
        tell_redis(grant.account)
        begun += 1
    return begun


def ask_again(*, now: datetime) -> int:
    """Sends another take for each open decrease whose takes are all applied; how many."""
    waiting = Command.objects.filter(decrease=OuterRef("pk"), confirmed_at=None)
    open_decreases = Decrease.objects.filter(~Exists(waiting), closed_at=None, booked__lt=F("target"))
    asked = 0
    for decrease in open_decreases.select_related("account").order_by("created_at")[:DUE_MAX]:
        live = counters.inspect(decrease.account.number)
        if live.usable and live.available == 0 and live.balance > 0:
            continue  # all of it is held: a take would get nothing
        ledger.catch_up(decrease.account.number % PARTITIONS, now=now)
        if _take_rest(decrease, now=now):
            tell_redis(decrease.account)
            asked += 1
    return asked


@transaction.atomic
def _begin(grant: CreditGrant, *, kind: Decrease.Kind, reason: str, actor: str, now: datetime) -> Decrease:
    locked = ledger_rows.lock_accounts([grant.account.number])[grant.account.number]
    remaining = (
        CreditGrant.objects.filter(pk=grant.pk, remaining__gt=0, ending_at=None)
        .values_list("remaining", flat=True)
        .first()
    )
    if remaining is None:
        raise GrantEnding("This grant is empty, or is being taken back already.")
    voided_at = now if kind == Decrease.Kind.VOID else None
    CreditGrant.objects.filter(pk=grant.pk).update(ending_at=now, voided_at=voided_at)
    decrease = Decrease.objects.create(
        account_id=grant.account_id,
        grant=grant,
        kind=kind,
        target=remaining,
        reason=reason[:255],
        actor=actor[:254],
        created_at=now,
    )
    _add_take(locked, decrease, remaining, now=now)
    return decrease


@transaction.atomic
def _take_rest(decrease: Decrease, *, now: datetime) -> bool:
    """Adds a take for what is still open; False when nothing is."""
    locked = ledger_rows.lock_accounts([decrease.account.number])[decrease.account.number]
    decrease.refresh_from_db()
    rest = min(decrease.target - decrease.booked, locked.balance)
    if decrease.grant_id is not None:
        rest = min(rest, CreditGrant.objects.values_list("remaining", flat=True).get(pk=decrease.grant_id))
    if decrease.closed_at is not None:
        return False
    if rest == 0:
        # Usage has drawn the rest of it: there is nothing left to take.
        Decrease.objects.filter(pk=decrease.pk).update(closed_at=now)
        return False
    _add_take(locked, decrease, rest, now=now)
    return True


def _add_take(locked: LockedAccount, decrease: Decrease, amount: int, *, now: datetime) -> None:
    locked.credit_seq += 1
    Command.objects.create(
        account_id=locked.id,
        credit_seq=locked.credit_seq,
        kind=Command.Kind.TAKE,
        amount=amount,
        decrease=decrease,
        created_at=now,
    )
    with connection.cursor() as cursor:
        cursor.execute("UPDATE accounts_account SET credit_seq = %s WHERE id = %s", [locked.credit_seq, locked.id])
