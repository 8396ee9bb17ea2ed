"""Taking credits back: expiry, void, negative adjustment (credits/README.md, step 7).

What the reserve covers is booked at once. Of the rest Redis gives only what is neither held nor spent, in `take`
commands that are booked when the drain meets their events. What it could not give is asked for again, at most once a
second, until the target is met or nothing remains.
"""

from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef

from accounts.models import Account
from config.errors import DomainError, InvalidRequest
from config.redis import PARTITIONS
from credits import counters, ledger, ledger_rows
from credits.ledger_rows import Batch, LockedAccount, OpenDecrease
from credits.models import Command, CreditGrant, Decrease
from credits.services import (
    ACTOR_LENGTH_MAX,
    REASON_LENGTH_MAX,
    TOP_UP_MAX,
    PaymentMismatch,
    cancel_scheduled,
    check_external_id,
    spendable,
    tell_redis,
)

log = structlog.get_logger(__name__)

DUE_MAX = 500


class GrantEnding(DomainError):
    """409: the grant is empty, or is being taken back already."""

    status = 409


@dataclass(frozen=True, slots=True)
class Deduction:
    """A deduction that was begun. `repeated`: by an earlier call with the same id, nothing was done now."""

    decrease: Decrease
    repeated: bool


def void_grant(*, grant: CreditGrant, reason: str, actor: str, now: datetime) -> Decrease | None:
    """Takes back what a grant has left after what was spent until now; None for a scheduled grant, which never counted.

    Raises `GrantEnding`, `InvalidRequest` without a reason, `RedisUnavailable`: without Redis nobody knows what is held.
    """
    if not reason.strip():
        raise InvalidRequest("Say why the grant is voided.", details={"reason": "required"})
    if grant.entered_at is None and cancel_scheduled(grant=grant, reason=reason.strip(), actor=actor, now=now):
        return None
    ledger.catch_up(grant.account.number % PARTITIONS, now=now)
    decrease = _begin(grant, kind=Decrease.Kind.VOID, reason=reason.strip(), actor=actor, now=now)
    tell_redis(grant.account)
    return decrease


def deduct(
    *, account: Account, amount: int, reason: str, actor: str, now: datetime, external_id: str | None = None
) -> Deduction:
    """Takes `amount` credits from the account, grants in burn-down order: a negative adjustment.

    The same `external_id` is taken once; again with another account or amount it raises `PaymentMismatch`. Raises
    `InvalidRequest` without a reason, or for an amount outside 1 to what the account can spend now.
    """
    if not reason.strip():
        raise InvalidRequest("Say why credits are taken.", details={"reason": "required"})
    check_external_id(external_id)
    wanted = Decrease(
        account=account,
        kind=Decrease.Kind.ADJUSTMENT,
        target=amount,
        external_id=external_id,
        reason=reason.strip()[:REASON_LENGTH_MAX],
        actor=actor[:ACTOR_LENGTH_MAX],
        created_at=now,
    )
    if known := _known_deduction(wanted):
        return Deduction(known, True)
    available = spendable(account)
    if not 1 <= amount <= min(TOP_UP_MAX, available):
        raise InvalidRequest(
            f"Between 1 and {available:,} credits can be taken now.", details={"amount": f"1 to {available}"}
        )
    try:
        done = _begin_deduction(wanted, now=now)
    except IntegrityError:
        # Another account was deducted under the same id at this moment: the second look finds it.
        done = _begin_deduction(wanted, now=now)
    tell_redis(account)
    return done


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


def _known_deduction(wanted: Decrease) -> Decrease | None:
    """The deduction that has this id already. Raises `PaymentMismatch` when the id stands for something else."""
    if wanted.external_id is None:
        return None
    known = Decrease.objects.filter(external_id=wanted.external_id).first()
    is_same = known is not None and (known.account_id, known.target) == (wanted.account_id, wanted.target)
    if not is_same and (known or CreditGrant.objects.filter(external_id=wanted.external_id).exists()):
        raise PaymentMismatch(
            "This id was used before with another account or amount. Use a new one for a new deduction.",
            details={"external_id": wanted.external_id},
        )
    return known


@transaction.atomic
def _begin_deduction(wanted: Decrease, *, now: datetime) -> Deduction:
    locked = ledger_rows.lock_accounts([wanted.account.number])[wanted.account.number]
    # Looked for again under the lock: the same call may have come twice at once.
    if known := _known_deduction(wanted):
        return Deduction(known, True)
    wanted.save(force_insert=True)
    _take_back(locked, wanted, now=now)
    return Deduction(wanted, False)


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
        reason=reason[:REASON_LENGTH_MAX],
        actor=actor[:ACTOR_LENGTH_MAX],
        created_at=now,
    )
    _take_back(locked, decrease, now=now)
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
    _take_back(locked, decrease, now=now)
    return True


def _take_back(locked: LockedAccount, decrease: Decrease, *, now: datetime) -> None:
    """Books at once what the account's reserve covers, and has Redis asked for the rest."""
    wanted = OpenDecrease(
        decrease.pk,
        decrease.grant_id,
        decrease.kind,
        decrease.target,
        decrease.booked,
        decrease.reason,
        decrease.actor,
    )
    batch = Batch()
    rest = ledger.book_from_reserve(batch, locked, wanted, now=now)
    booked, decrease.booked = wanted.booked - decrease.booked, wanted.booked
    if rest:
        batch.tell(locked, Command.Kind.TAKE, rest, decrease_id=decrease.pk)
    elif booked:
        batch.tell(locked, Command.Kind.NOTE, booked)
    ledger_rows.write_batch(batch, [locked])
