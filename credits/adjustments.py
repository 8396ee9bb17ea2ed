"""Adjustments: credits given or taken as a correction, by a difference or to a figure (credits/README.md, step 7)."""

from dataclasses import dataclass
from datetime import datetime

from accounts.models import Account
from config.errors import InvalidRequest
from credits import decreases, loading, services
from credits.amounts import CREDITS_MAX
from credits.models import CreditGrant, Decrease
from credits.services import PaymentMismatch


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What was adjusted: `change` credits, signed, by a grant or by a decrease. `balance` is what can be spent now."""

    change: int
    grant: CreditGrant | None
    decrease: Decrease | None
    balance: int
    repeated: bool


def adjust(
    *, account: Account, change: int, reason: str, actor: str, now: datetime, external_id: str | None = None
) -> Adjustment:
    """Gives (`change` above 0) or takes (below 0) credits. The same `external_id` is booked once, else `PaymentMismatch`.

    Raises `InvalidRequest` without a reason, for 0, and for more than can be given or taken.
    """
    if not reason.strip():
        raise InvalidRequest("Say why the balance is adjusted.", details={"reason": "required"})
    if change == 0:
        raise InvalidRequest("An adjustment by 0 changes nothing.", details={"amount": "not 0"})
    if change > 0:
        done = services.top_up(
            account=account,
            amount=change,
            now=now,
            reason=reason.strip(),
            actor=actor,
            external_id=external_id,
            kind=CreditGrant.Kind.ADJUSTMENT,
        )
        return Adjustment(change, done.grant, None, done.balance, done.repeated)
    taken = decreases.deduct(
        account=account, amount=-change, reason=reason, actor=actor, now=now, external_id=external_id
    )
    return Adjustment(change, None, taken.decrease, services.spendable(account), taken.repeated)


def set_balance(
    *, account: Account, target: int, reason: str, actor: str, now: datetime, external_id: str | None = None
) -> Adjustment:
    """Adjusts by what is missing from, or beyond, `target` credits that can be spent at this moment.

    What requests under way hold is not counted: what they do not use comes on top. The same `external_id` and target is
    set once: sent again it does not compute a new difference. Raises as `adjust`, `RedisUnavailable` and `LoadContended`:
    without Redis nobody knows what can be spent.
    """
    if not 0 <= target <= CREDITS_MAX:
        raise InvalidRequest(f"A balance is 0 to {CREDITS_MAX:,}.", details={"amount": f"0 to {CREDITS_MAX}"})
    # Another target under the same id is another order, for a figure set twice is still that figure.
    unique = f"{external_id}:{target}" if external_id else None
    services.check_external_id(unique)
    if unique and (before := _set_before(account, unique)):
        return before
    # Commands that Redis has not seen yet are part of what it will hold: they come first.
    loading.load_account(account.number)
    loading.apply_commands(account.pk)
    change = target - services.spendable(account)
    if change == 0:
        raise InvalidRequest(f"The balance is {target:,} already.", details={"amount": f"is {target} already"})
    return adjust(account=account, change=change, reason=reason, actor=actor, now=now, external_id=unique)


def _set_before(account: Account, external_id: str) -> Adjustment | None:
    grant = CreditGrant.objects.filter(external_id=external_id).first()
    decrease = Decrease.objects.filter(external_id=external_id).first()
    known = grant or decrease
    if known is None:
        return None
    if known.account_id != account.pk:
        raise PaymentMismatch(
            "This id was used before for another account. Use a new one for a new adjustment.",
            details={"external_id": external_id},
        )
    change = grant.amount if grant else -decrease.target if decrease else 0
    return Adjustment(change, grant, decrease, services.spendable(account), True)
