"""What can be done to an account's credits: to give some, now or from a later moment on."""

from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db import IntegrityError, OperationalError, transaction

from accounts.models import Account
from config.errors import DomainError, InvalidRequest
from config.redis import RedisUnavailable
from credits import ledger, ledger_rows, loading
from credits.amounts import CREDITS_MAX
from credits.ledger_rows import LockedAccount
from credits.models import EXTERNAL_ID_LENGTH_MAX, CreditGrant, CreditTransaction, Decrease
from credits.selectors import live_balances

log = structlog.get_logger(__name__)

TOP_UP_MAX = 10**12
PRIORITY_DEFAULT = 100
PRIORITY_MAX = 1000
REASON_LENGTH_MAX = 255
ACTOR_LENGTH_MAX = 254
DUE_MAX = 500


class PaymentMismatch(DomainError):
    """422: this payment id or idempotency key was used before, for something else."""

    status = 422
    code = "IDEMPOTENCY_MISMATCH"


@dataclass(frozen=True, slots=True)
class TopUp:
    """Credits given. `entry` is None as long as the grant is scheduled. `balance` is what the account can spend now,
    `repeated` that all this had been done before."""

    grant: CreditGrant
    entry: CreditTransaction | None
    balance: int
    repeated: bool


def top_up(
    *,
    account: Account,
    amount: int,
    now: datetime,
    reason: str = "",
    actor: str = "",
    external_id: str | None = None,
    kind: str = CreditGrant.Kind.PURCHASE,
    priority: int = PRIORITY_DEFAULT,
    effective_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> TopUp:
    """Gives an account `amount` credits: a grant of that kind, its ledger entry, and the add for Redis.

    With an `effective_at` ahead the grant is scheduled: the drain books it then (`enter_due`). The same `external_id` (a
    payment's id, an idempotency key) is booked once; again with another account, amount or kind it raises
    `PaymentMismatch`. Raises `InvalidRequest` for amounts outside 1..10^12, a balance past 10^14, an expiry in the past or
    before `effective_at`, a priority outside 0..1000, an id that is too long.
    """
    if not 1 <= amount <= TOP_UP_MAX:
        raise InvalidRequest(
            f"A top-up is 1 to {TOP_UP_MAX:,} credits.", details={"amount": f"a whole number from 1 to {TOP_UP_MAX}"}
        )
    if not 0 <= priority <= PRIORITY_MAX:
        raise InvalidRequest(
            f"A priority is 0 (spent first) to {PRIORITY_MAX}.", details={"priority": f"0 to {PRIORITY_MAX}"}
        )
    check_external_id(external_id)
    wanted = CreditGrant(
        account=account,
        kind=kind,
        amount=amount,
        remaining=0,
        priority=priority,
        effective_at=effective_at or now,
        expires_at=expires_at,
        external_id=external_id,
        reason=reason[:REASON_LENGTH_MAX],
        actor=actor[:ACTOR_LENGTH_MAX],
        created_at=now,
    )
    try:
        grant, repeated = _book_grant(wanted, now=now)
    except IntegrityError:
        # Another account was given the same id at this moment: the second look finds it.
        grant, repeated = _book_grant(wanted, now=now)
    entry = None
    if grant.entered_at is not None:
        entry = CreditTransaction.objects.get(account=account, operation=grant.pk, type=CreditTransaction.Type.CREDIT)
        tell_redis(account)
    return TopUp(grant, entry, spendable(account), repeated)


def check_external_id(external_id: str | None) -> None:
    """Raises `InvalidRequest` for an id that cannot be kept."""
    if external_id is not None and len(external_id) > EXTERNAL_ID_LENGTH_MAX:
        raise InvalidRequest(
            "The payment id is too long.", details={"external_id": f"at most {EXTERNAL_ID_LENGTH_MAX} characters"}
        )


def tell_redis(account: Account) -> None:
    """Applies the account's open commands; when Redis is away the drain does it later, for booked is booked."""
    try:
        loading.apply_commands(account.pk)
    except (*RedisUnavailable, loading.LoadContended, ledger.LedgerBehind, OperationalError) as error:
        log.warning("commands_applied_later", account=account.number, error=type(error).__name__)


def enter_due(*, now: datetime) -> int:
    """Books each scheduled grant whose moment has come, once however many drains try; how many.

    A grant that would take the balance past what an account can hold stays scheduled.
    """
    due = CreditGrant.objects.filter(entered_at=None, voided_at=None, effective_at__lte=now).select_related("account")
    entered = 0
    for grant in due.order_by("effective_at")[:DUE_MAX]:
        if _enter(grant, now=now):
            tell_redis(grant.account)
            entered += 1
    return entered


def cancel_scheduled(*, grant: CreditGrant, reason: str, actor: str, now: datetime) -> bool:
    """Voids a grant that has not entered the balance; False when it has, or was voided before.

    Nothing stands in the ledger of it, so the grant itself keeps who cancelled it and why.
    """
    said = f"{grant.reason} · cancelled by {actor or 'the system'}: {reason}"
    with transaction.atomic():
        ledger_rows.lock_accounts([grant.account.number])
        scheduled = CreditGrant.objects.filter(pk=grant.pk, entered_at=None, voided_at=None)
        return scheduled.update(voided_at=now, reason=said[:REASON_LENGTH_MAX]) == 1


_ENTRY_KINDS = {
    CreditGrant.Kind.ADJUSTMENT: CreditTransaction.Kind.ADJUSTMENT,
    CreditGrant.Kind.REFUND: CreditTransaction.Kind.REFUND,
}


@transaction.atomic
def _book_grant(wanted: CreditGrant, *, now: datetime) -> tuple[CreditGrant, bool]:
    """(the grant, whether it stood already). Booked at once unless its `effective_at` lies ahead."""
    locked = ledger_rows.lock_accounts([wanted.account.number])[wanted.account.number]
    if wanted.external_id is not None and (known := _known(wanted.external_id)):
        if not isinstance(known, CreditGrant) or (known.account_id, known.amount, known.kind) != (
            wanted.account_id,
            wanted.amount,
            wanted.kind,
        ):
            raise PaymentMismatch(
                "This payment id was used before with another account, amount or kind. Use a new one for a new top-up.",
                details={"external_id": wanted.external_id},
            )
        if known.entered_at is None and known.voided_at is not None:
            raise PaymentMismatch(
                "The grant of this payment id was cancelled before it counted. Use a new one for a new top-up.",
                details={"external_id": wanted.external_id},
            )
        return known, True
    if wanted.expires_at is not None and wanted.expires_at <= max(now, wanted.effective_at):
        if wanted.expires_at <= now:
            raise InvalidRequest("The expiry lies in the past.", details={"expires_at": "must lie in the future"})
        raise InvalidRequest(
            "The credits would expire before they count.", details={"expires_at": "must lie after effective_at"}
        )
    if locked.balance + wanted.amount > CREDITS_MAX:
        raise InvalidRequest(
            "The balance would pass the most an account can hold.", details={"amount": f"balance at most {CREDITS_MAX}"}
        )
    wanted.save(force_insert=True)
    if wanted.effective_at <= now:
        _record_entry(locked, wanted, now=now)
    return wanted, False


def _known(external_id: str) -> CreditGrant | Decrease | None:
    """What was done under this id before."""
    return (
        CreditGrant.objects.filter(external_id=external_id).first()
        or Decrease.objects.filter(external_id=external_id).first()
    )


@transaction.atomic
def _enter(grant: CreditGrant, *, now: datetime) -> bool:
    locked = ledger_rows.lock_accounts([grant.account.number])[grant.account.number]
    # Read again under the lock: another drain may have entered it, an operator may have cancelled it.
    scheduled = CreditGrant.objects.filter(pk=grant.pk, entered_at=None, voided_at=None).first()
    if scheduled is None:
        return False
    if locked.balance + scheduled.amount > CREDITS_MAX:
        log.error("grant_waits_for_room", account=locked.number, grant=str(grant.pk))
        return False
    _record_entry(locked, scheduled, now=now)
    return True


def _record_entry(locked: LockedAccount, grant: CreditGrant, *, now: datetime) -> None:
    """Brings a stored grant into ledger and balance; the caller holds the account's lock."""
    grant.remaining, grant.entered_at = grant.amount, now
    grant.save(update_fields=["remaining", "entered_at"])
    ledger.record_increase(
        account=locked,
        operation=grant.pk,
        kind=_ENTRY_KINDS.get(CreditGrant.Kind(grant.kind), CreditTransaction.Kind.TOP_UP),
        amount=grant.amount,
        reason=grant.reason,
        actor=grant.actor,
    )


def spendable(account: Account) -> int:
    """What the account can spend now: Redis' word when it has one, else the ledger's balance."""
    (live,) = live_balances([account.number])
    if live is not None and live.usable:
        return live.available
    return Account.objects.values_list("balance", flat=True).get(pk=account.pk)


def payment_id(reference: str) -> str:
    """The `external_id` of a payment, the same whether an operator types it in the admin or on the command line."""
    return f"payment:{reference.strip()}"
