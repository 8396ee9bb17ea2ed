"""What can be done to an account's credits."""

from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db import OperationalError, transaction

from accounts.models import Account
from config.errors import DomainError, InvalidRequest
from config.redis import RedisUnavailable
from credits import ledger, ledger_rows, loading
from credits.amounts import CREDITS_MAX
from credits.models import EXTERNAL_ID_LENGTH_MAX, CreditGrant, CreditTransaction
from credits.selectors import live_balances

log = structlog.get_logger(__name__)

TOP_UP_MAX = 10**12


class PaymentMismatch(DomainError):
    """422: this payment id or idempotency key was used before, for another account or amount."""

    status = 422
    code = "IDEMPOTENCY_MISMATCH"


@dataclass(frozen=True, slots=True)
class TopUp:
    """A top-up in the ledger. `balance` is what the account can spend now, `repeated` that it had been booked before."""

    entry: CreditTransaction
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
    expires_at: datetime | None = None,
) -> TopUp:
    """Gives an account `amount` credits: a grant of that kind, its ledger entry, and the add for Redis.

    The same `external_id` (a payment's id, an idempotency key) is booked once; again with another account or amount it
    raises `PaymentMismatch`. Raises `InvalidRequest` for amounts outside 1..10^12, a balance past 10^14, an id that is
    too long.
    """
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest("The expiry lies in the past.", details={"expires_at": "must lie in the future"})
    if not 1 <= amount <= TOP_UP_MAX:
        raise InvalidRequest(
            f"A top-up is 1 to {TOP_UP_MAX:,} credits.", details={"amount": f"a whole number from 1 to {TOP_UP_MAX}"}
        )
    if external_id is not None and len(external_id) > EXTERNAL_ID_LENGTH_MAX:
        raise InvalidRequest(
            "The payment id is too long.", details={"external_id": f"at most {EXTERNAL_ID_LENGTH_MAX} characters"}
        )
    entry, repeated = _book_top_up(account, amount, now, reason, actor, external_id, kind, expires_at)
    tell_redis(account)
    return TopUp(entry, spendable(account), repeated)


def tell_redis(account: Account) -> None:
    """Applies the account's open commands; when Redis is away the drain does it later, for booked is booked."""
    try:
        loading.apply_commands(account.pk)
    except (*RedisUnavailable, loading.LoadContended, ledger.LedgerBehind, OperationalError) as error:
        log.warning("commands_applied_later", account=account.number, error=type(error).__name__)


_ENTRY_KINDS = {
    CreditGrant.Kind.ADJUSTMENT: CreditTransaction.Kind.ADJUSTMENT,
    CreditGrant.Kind.REFUND: CreditTransaction.Kind.REFUND,
}


@transaction.atomic
def _book_top_up(
    account: Account,
    amount: int,
    now: datetime,
    reason: str,
    actor: str,
    external_id: str | None,
    kind: str = CreditGrant.Kind.PURCHASE,
    expires_at: datetime | None = None,
) -> tuple[CreditTransaction, bool]:
    locked = ledger_rows.lock_accounts([account.number])[account.number]
    if external_id is not None and (known := CreditGrant.objects.filter(external_id=external_id).first()):
        if known.account_id != account.pk or known.amount != amount:
            raise PaymentMismatch(
                "This payment id was used before with another account or amount. Use a new one for a new top-up.",
                details={"external_id": external_id},
            )
        return CreditTransaction.objects.get(account=account, operation=known.pk, type="credit"), True
    if locked.balance + amount > CREDITS_MAX:
        raise InvalidRequest(
            "The balance would pass the most an account can hold.", details={"amount": f"balance at most {CREDITS_MAX}"}
        )
    grant = CreditGrant.objects.create(
        account=account,
        kind=kind,
        expires_at=expires_at,
        amount=amount,
        remaining=amount,
        effective_at=now,
        created_at=now,
        external_id=external_id,
        reason=reason[:255],
    )
    entry = ledger.record_increase(
        account=locked,
        grant_id=grant.pk,
        kind=_ENTRY_KINDS.get(CreditGrant.Kind(kind), CreditTransaction.Kind.TOP_UP),
        amount=amount,
        reason=reason[:255],
        actor=actor[:254],
    )
    return entry, False


def spendable(account: Account) -> int:
    """What the account can spend now: Redis' word when it has one, else the ledger's balance."""
    (live,) = live_balances([account.number])
    if live is not None and live.usable:
        return live.available
    return Account.objects.values_list("balance", flat=True).get(pk=account.pk)


def payment_id(reference: str) -> str:
    """The `external_id` of a payment, the same whether an operator types it in the admin or on the command line."""
    return f"payment:{reference.strip()}"
