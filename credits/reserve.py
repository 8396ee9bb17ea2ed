"""Deciding and charging without Redis, from the part of the balance that Redis does not have (credits/README.md, step 12).

The same checks in the same order as `admit.lua`, read from Postgres. Nothing is held: what a request costs is booked under
the account's row lock before its rows leave, by the rule that the drain keeps, so that an operation which Redis has charged
too is charged once.
"""

import hmac
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from django.db import transaction

from accounts import addresses, key_state
from accounts.key_state import KeyState
from accounts.keys import PresentedKey
from accounts.models import Account, ApiKey
from config.errors import TemporarilyUnavailable
from credits import grants, ledger_rows, loading
from credits.counters import Admission
from credits.entry_writer import Entry
from credits.ledger_rows import Batch
from credits.models import Command, CreditTransaction, ReserveUsage
from credits.rate import LocalWindows
from credits.reported import Usage

log = structlog.get_logger(__name__)

# Paid part by part while they are sent: each part would need its own transaction.
STREAMS = frozenset({"download"})
_windows = LocalWindows(keys_max=10_000)


class ReserveShort(TemporarilyUnavailable):
    """503: the balance would cover the request, its reserve does not."""

    def __init__(self) -> None:
        super().__init__(
            "Live credits cannot be reached, and the credits kept for that do not cover this request. Nothing was charged; "
            "ask for less, or try again shortly."
        )


@dataclass(frozen=True, slots=True)
class ReserveCharge:
    """`booked` now, `total` of the operation so far, and the account's balance after it."""

    booked: int
    total: int
    balance: int


def decide(
    *,
    key: PresentedKey,
    amount: int,
    operation: str,
    endpoint: str,
    scope: str,
    address: str,
    is_idempotent: bool,
    default_rpm: int,
    now: datetime,
    clock: float,
) -> Admission:
    """What admit.lua would answer, `UNKNOWN` for a key that does not exist. `clock` is the monotonic time of the windows.

    Raises `ReserveShort`, `TemporarilyUnavailable` for what streams, `django.db.OperationalError`.
    """
    state = key_state.read(key.public_id)
    if state is None:
        return Admission("UNKNOWN")
    if refusal := _refusal(state, key, scope=scope, address=address, now=now):
        return Admission(refusal)
    if amount and endpoint in STREAMS:
        raise TemporarilyUnavailable("Downloads wait until live credits can be reached. Nothing was charged.")
    balance, reserve = Account.objects.values_list("balance", "reserve").get(number=state.account_number)
    limit = default_rpm if state.rpm is None else state.rpm
    window = _windows.count(key.public_id, limit=limit, now=clock)
    allowed = Admission(
        "OK",
        available=balance - amount,
        limit=limit or None,
        remaining=window.remaining if limit else None,
        reset_ms=window.reset_ms,
    )
    if not window.allowed:
        return allowed._replace(status="RATE")
    if amount == 0:
        return allowed
    if is_idempotent and ledger_rows.paid_total(state.account_number, UUID(operation), now=now):
        return allowed._replace(status="REPLAY", available=balance)
    if balance < amount:
        return allowed._replace(status="SHORT", available=balance)
    if state.monthly_cap is not None:
        spent = loading.spent_by_family(state.account_number, now=now).get(state.family, 0)
        if state.monthly_cap - spent < amount:
            return allowed._replace(status="CAP", available=max(0, state.monthly_cap - spent))
    if reserve < amount:
        raise ReserveShort
    return allowed


def _refusal(state: KeyState, key: PresentedKey, *, scope: str, address: str, now: datetime) -> str:
    """Why the key may not make this call, in the words of admit.lua; '' when it may."""
    if not hmac.compare_digest(state.digest, key.digest):
        return "INVALID_KEY"
    if state.state != ApiKey.State.ACTIVE:
        return state.state.upper()
    if state.expires_at is not None and state.expires_at <= now:
        return "EXPIRED"
    if state.scopes and scope not in state.scopes:
        return "SCOPE"
    if state.networks and not addresses.is_within(address, list(state.networks)):
        return "ADDRESS"
    return ""


@transaction.atomic
def settle(
    *, account_number: int, key_id: str, operation: str, total: int, usage: Usage | None, now: datetime
) -> ReserveCharge:
    """Charges the operation up to `total` credits from the reserve, unless it has paid that much already.

    Raises `ReserveShort`, then nothing is charged, and `django.db.OperationalError`.
    """
    account = ledger_rows.lock_accounts([account_number])[account_number]
    paid = ledger_rows.paid_total(account_number, UUID(operation), now=now)
    booked = max(0, total - paid)
    if booked > account.reserve:
        raise ReserveShort
    if booked:
        open_grants = ledger_rows.open_grants_of([account.id], now=now).get(account.id, [])
        account.balance -= booked
        account.reserve -= booked
        batch = Batch()
        batch.entries.append(
            Entry(
                account.id,
                CreditTransaction.Kind.USAGE.value,
                booked,
                grants.draw(open_grants, booked),
                UUID(operation),
                now,
                charged_total=total,
                key_id=key_id,
            )
        )
        family = ApiKey.objects.filter(pk=key_id).values_list("family", flat=True).first()
        batch.tell(account, Command.Kind.NOTE, booked, family=family)
        ledger_rows.write_batch(batch, [account])
        if usage is not None:
            usage = usage.cut()
            ReserveUsage.objects.create(
                account_number=account_number,
                at=now,
                request_id=usage.request_id,
                operation=operation,
                key_id=key_id,
                endpoint=usage.endpoint,
                status=usage.status,
                rows=usage.rows,
                credits=booked,
                duration_ms=usage.duration_ms,
                query=usage.query,
            )
    return ReserveCharge(booked, max(paid, total), account.balance)
