"""Refunds: credits of a charged operation go back to the grants that paid it (credits/README.md, step 7).

The draws of the operation are returned in the reverse of their order. What was drawn from a grant that has expired, was
voided or is being taken back goes into one new grant of kind refund, which never expires unless the operator says when.
The charge itself stands: the operation stays paid, so a repetition under its idempotency key is free as before.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import F, Sum
from django.db.models.functions import Coalesce

from accounts.models import Account
from config.errors import InvalidRequest, NotFound
from credits import ledger, ledger_rows
from credits.amounts import CREDITS_MAX
from credits.models import CreditGrant, CreditTransaction, GrantDraw, GrantReturn, Refund
from credits.services import (
    ACTOR_LENGTH_MAX,
    REASON_LENGTH_MAX,
    PaymentMismatch,
    check_external_id,
    spendable,
    tell_redis,
)


@dataclass(frozen=True, slots=True)
class Part:
    """`amount` credits of one draw. `goes_back`: into the grant that paid, else into a new grant of kind refund."""

    draw_id: int
    grant: CreditGrant
    amount: int
    goes_back: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a refund of `amount` credits would do. Of the operation `charged` were taken and `refunded` given back before."""

    charged: int
    refunded: int
    amount: int
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Refunded:
    """A refund in the ledger. `balance` is what the account can spend now, `repeated` that it had been booked before."""

    refund: Refund
    balance: int
    repeated: bool


def charge_of(entry_id: int) -> tuple[Account, uuid.UUID]:
    """(account, operation) of the usage entry with this number.

    Raises `NotFound`, and `InvalidRequest` for an entry of another kind.
    """
    entry = CreditTransaction.objects.select_related("account").filter(pk=entry_id).first()
    if entry is None:
        raise NotFound(f"The ledger has no entry {entry_id}. The admin shows the entries with their numbers.")
    if entry.operation is None or not is_refundable(entry):
        raise InvalidRequest(
            f"Entry {entry_id} is no charge for usage. Give or take credits by an adjustment instead.",
            details={"entry": "must be a debit of kind usage"},
        )
    return entry.account, entry.operation


def is_refundable(entry: CreditTransaction) -> bool:
    """Whether a refund can reverse this entry: a charge for usage."""
    return entry.kind == CreditTransaction.Kind.USAGE and entry.operation is not None


def preview(*, account: Account, operation: uuid.UUID, amount: int | None = None, now: datetime) -> Plan:
    """Which grants would get what, were `amount` credits (None: all that is left) refunded now. Changes nothing.

    Raises as `refund`.
    """
    draws = _draws_of(account, operation)
    charged, returned = sum(draw.amount for draw, _ in draws), sum(returned for _, returned in draws)
    rest = charged - returned
    if not draws:
        raise NotFound("No charge of this customer has this operation. Charges are booked about a second after a call.")
    if rest == 0:
        raise InvalidRequest(
            f"All {charged:,} credits of this operation were refunded before.", details={"amount": "nothing is left"}
        )
    wanted = rest if amount is None else amount
    if not 1 <= wanted <= rest:
        raise InvalidRequest(
            f"Between 1 and {rest:,} credits of this operation can be refunded.", details={"amount": f"1 to {rest}"}
        )
    return Plan(charged, returned, wanted, _parts(draws, wanted, now=now))


def refund(
    *,
    account: Account,
    operation: uuid.UUID,
    amount: int | None = None,
    reason: str,
    actor: str,
    now: datetime,
    external_id: str | None = None,
    expires_at: datetime | None = None,
) -> Refunded:
    """Gives back `amount` credits (None: all that is left) of what the operation was charged.

    `expires_at` is for the new grant, where one is made. The same `external_id` is booked once; again for another operation
    or amount it raises `PaymentMismatch`. Raises `NotFound` for an operation that was not charged, `InvalidRequest` without
    a reason, for more than is left, for an expiry in the past.
    """
    if not reason.strip():
        raise InvalidRequest("Say why credits are refunded.", details={"reason": "required"})
    check_external_id(external_id)
    wanted = Refund(account=account, operation=operation, amount=amount or 0, whole=amount is None, created_at=now)
    wanted.external_id = external_id
    said = {"reason": reason.strip()[:REASON_LENGTH_MAX], "actor": actor[:ACTOR_LENGTH_MAX]}
    try:
        booked, repeated = _book_refund(wanted, amount, now=now, expires_at=expires_at, **said)
    except IntegrityError:
        # Another account's refund took the same id at this moment: the second look finds it.
        booked, repeated = _book_refund(wanted, amount, now=now, expires_at=expires_at, **said)
    tell_redis(account)
    return Refunded(booked, spendable(account), repeated)


@transaction.atomic
def _book_refund(
    wanted: Refund, amount: int | None, *, reason: str, actor: str, now: datetime, expires_at: datetime | None
) -> tuple[Refund, bool]:
    account = wanted.account
    # The lock guards draws, returns and remainders: two refunds of one operation never see the same rest.
    locked = ledger_rows.lock_accounts([account.number])[account.number]
    if wanted.external_id is not None and (known := Refund.objects.filter(external_id=wanted.external_id).first()):
        same_amount = known.whole if amount is None else known.amount == amount
        if (known.account_id, known.operation) != (account.pk, wanted.operation) or not same_amount:
            raise PaymentMismatch(
                "This refund id was used before for another operation or amount. Use a new one for a new refund.",
                details={"external_id": wanted.external_id},
            )
        return known, True
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest("The expiry lies in the past.", details={"expires_at": "must lie in the future"})
    plan = preview(account=account, operation=wanted.operation, amount=amount, now=now)
    if locked.balance + plan.amount > CREDITS_MAX:
        raise InvalidRequest(
            "The balance would pass the most an account can hold.", details={"amount": f"balance at most {CREDITS_MAX}"}
        )
    wanted.amount = plan.amount
    wanted.entry = ledger.record_increase(
        account=locked,
        operation=wanted.operation,
        kind=CreditTransaction.Kind.REFUND,
        amount=plan.amount,
        reason=reason,
        actor=actor,
    )
    wanted.save(force_insert=True)
    _return_parts(wanted, plan.parts, now=now, expires_at=expires_at)
    return wanted, False


def _return_parts(refund: Refund, parts: list[Part], *, now: datetime, expires_at: datetime | None) -> None:
    """Puts each part where it belongs and writes down which draw it came from."""
    ended = sum(part.amount for part in parts if not part.goes_back)
    fresh = None
    if ended:
        fresh = CreditGrant.objects.create(
            account=refund.account,
            kind=CreditGrant.Kind.REFUND,
            amount=ended,
            remaining=ended,
            effective_at=now,
            entered_at=now,
            expires_at=expires_at,
            reason=refund.entry.reason,
            actor=refund.entry.actor,
            created_at=now,
        )
    for part in parts:
        if part.goes_back:
            CreditGrant.objects.filter(pk=part.grant.pk).update(remaining=F("remaining") + part.amount)
    GrantReturn.objects.bulk_create(
        GrantReturn(
            refund=refund,
            draw_id=part.draw_id,
            grant=part.grant if fresh is None or part.goes_back else fresh,
            amount=part.amount,
        )
        for part in parts
    )


def _draws_of(account: Account, operation: uuid.UUID) -> list[tuple[GrantDraw, int]]:
    """The draws of the operation's charges, the last one first, each with what of it was returned."""
    draws = (
        GrantDraw.objects.filter(
            entry__account=account,
            entry__operation=operation,
            entry__type=CreditTransaction.Type.DEBIT,
            entry__kind=CreditTransaction.Kind.USAGE,
        )
        .annotate(returned=Coalesce(Sum("returns__amount"), 0))
        .select_related("grant")
        .order_by("-id")
    )
    return [(draw, int(draw.returned)) for draw in draws]


def _parts(draws: list[tuple[GrantDraw, int]], amount: int, *, now: datetime) -> list[Part]:
    parts = []
    for draw, returned in draws:
        part = min(amount, draw.amount - returned)
        if part:
            parts.append(Part(draw.pk, draw.grant, part, _takes_back(draw.grant, now=now)))
            amount -= part
    return parts


def _takes_back(grant: CreditGrant, *, now: datetime) -> bool:
    """Whether credits that return to the grant can be spent: it has not expired and is not being taken back."""
    has_ended = grant.voided_at is not None or grant.ending_at is not None
    return not has_ended and (grant.expires_at is None or grant.expires_at > now)
