"""One metered request: identify or admit, then settle or release. Two round trips to Redis and nothing else.

`admit` holds the highest price the request can have; `settle` charges the true one. Between the two the caller does
the work, for less time than the hold lives. Rows may leave only after `settle` has returned.
"""

import hashlib
import uuid
from dataclasses import dataclass, replace
from typing import Any

import orjson
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError

from accounts import keys
from accounts.addresses import as_hex
from accounts.keys import PresentedKey
from config.errors import InvalidRequest, TemporarilyUnavailable
from config.redis import RedisUnavailable
from credits import counters, loading
from credits.rate import RateWindow, window_of
from credits.refusals import HoldExpired, MissingKey, accepted, insufficient, invalid_key
from credits.unknown_keys import UnknownKeys

log = structlog.get_logger(__name__)

LOADS_MAX = 3
SETTLE_TRIES = 3
# The scope that each endpoint needs of a key.
SCOPES = {
    "query": "search",
    "search": "search",
    "person": "search",
    "fields": "search",
    "download": "download",
    "credits": "account",
    "usage": "account",
    "alerts": "account",
}
QUERY_TEXT_MAX = 2048
IDEMPOTENCY_KEY_LENGTH_MAX = 128


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request was, for the usage log. `query` is its compact JSON text, cut at 2 KB."""

    request_id: str
    endpoint: str
    status: int
    rows: int
    duration_ms: int
    query: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a free endpoint."""

    account_number: int
    key_id: str
    rate: RateWindow


@dataclass(slots=True)
class Hold:
    """Credits set aside for one request. `available` is what the account could still spend beside it.

    `replayed`: the same idempotency key was settled before; the request runs again, holds nothing and is not charged.
    """

    account_number: int
    key_id: str
    operation: str
    attempt: str
    endpoint: str
    amount: int
    deadline_ms: int
    available: int
    rate: RateWindow
    kept_ms: int
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the operation has been charged in all, and what the account can still spend."""

    charged: int
    available: int


# The namespace of operations that an idempotency key names; changing it would forget every key.
_OPERATIONS = uuid.UUID("6d3b0f0e-6a4f-4a56-9c0e-1d6f1f1f7a35")
_unknown_keys = UnknownKeys(size_max=10_000, kept_s=30)


def identify(*, api_key: str | None, endpoint: str, address: str = "") -> Caller:
    """Checks a key and counts the call in its rate window, for endpoints that cost nothing.

    `address` is the caller's IP address, for keys that allow some alone. Raises `KeyRefused`, `InsufficientScope`,
    `AddressNotAllowed`, `AccountSuspended`, `RateLimited`, `TemporarilyUnavailable`.
    """
    key = _presented(api_key)
    admission = _decide(key, amount=0, operation="", attempt="", endpoint=endpoint, address=address)
    return Caller(key.account_number, key.public_id, window_of(admission))


def admit(
    *,
    api_key: str | None,
    endpoint: str,
    amount: int,
    address: str = "",
    idempotency_key: str = "",
    body: bytes = b"",
) -> Hold:
    """Holds `amount` credits (at least 1) for a request. Raises as `identify`, and `InsufficientCredits`.

    With an `idempotency_key` the operation is UUIDv5 of account, endpoint, key and `body`, so that it is charged once in
    24 h however often it is sent. Raises `IdempotencyInProgress`, `IdempotencyMismatch`, and `InvalidRequest` for a key
    that is too long.
    """
    key = _presented(api_key)
    operation, attempt, idempotency = str(uuid.uuid4()), uuid.uuid4().hex, ""
    if idempotency_key:
        idempotency, operation = _idempotent(key, endpoint, idempotency_key, body)
    admission = _decide(
        key,
        amount=amount,
        operation=operation,
        attempt=attempt,
        endpoint=endpoint,
        address=address,
        idempotency=idempotency,
    )
    replayed = admission.status == "REPLAY"
    return Hold(
        account_number=key.account_number,
        key_id=key.public_id,
        operation=operation,
        attempt=attempt,
        endpoint=endpoint,
        amount=0 if replayed else amount,
        deadline_ms=admission.deadline_ms,
        available=admission.available,
        rate=window_of(admission),
        kept_ms=counters.IDEMPOTENCY_KEPT_MS if idempotency else settings.RESULT_KEPT_S * 1000,
        replayed=replayed,
    )


def _idempotent(key: PresentedKey, endpoint: str, idempotency_key: str, body: bytes) -> tuple[str, str]:
    """(name under which the key is remembered, operation) of an idempotency key; both belong to the account alone."""
    if len(idempotency_key) > IDEMPOTENCY_KEY_LENGTH_MAX:
        raise InvalidRequest(
            "The Idempotency-Key is too long.",
            details={"Idempotency-Key": f"at most {IDEMPOTENCY_KEY_LENGTH_MAX} characters"},
        )
    name = uuid.uuid5(_OPERATIONS, f"{key.account_number}\n{endpoint}\n{idempotency_key}")
    return name.hex, str(uuid.uuid5(name, hashlib.sha256(body).hexdigest()))


def settle(hold: Hold, *, total: int, usage: Usage | None, final: bool = True) -> Settlement:
    """Charges the request up to `total` credits, cumulatively; only then may its rows leave.

    With `final=False` (a stream's next chunk; `usage` None) the hold lives on and its deadline moves. A lost reply is
    asked for again with the same attempt, which charges nothing twice. Raises `HoldExpired`, `InsufficientCredits`
    (Redis lost the hold and the balance no longer covers it), `TemporarilyUnavailable`.
    """
    if hold.replayed:
        return Settlement(0, hold.available)
    charge = _settle(hold, total, usage, final=final)
    if charge.status == "OK":
        hold.deadline_ms = charge.deadline_ms or hold.deadline_ms
        return Settlement(charge.total, charge.available)
    if charge.status == "RELEASED":
        raise HoldExpired("The request took longer than it may. Nothing was charged; ask for less or try again.")
    if charge.status == "SHORT":
        raise insufficient(required=total, available=charge.available, held=0)
    raise RuntimeError(f"settle of {total} credits against a hold of {hold.amount}: {charge.status}")


def release(hold: Hold, *, usage: Usage) -> Settlement:
    """Gives back what the request has not paid. Never raises for a store that is away: the sweep will release it."""
    if hold.replayed:
        return Settlement(0, hold.available)
    try:
        charge = _settle(hold, counters.RELEASE, usage, final=True)
    except TemporarilyUnavailable:
        log.warning("release_left_to_sweep", operation=hold.operation)
        return Settlement(0, hold.available + hold.amount)
    return Settlement(charge.total, charge.available)


def _presented(api_key: str | None) -> PresentedKey:
    if not api_key:
        raise MissingKey("Send your API key in the X-API-Key header.")
    key = keys.parse(api_key, pepper=settings.KEY_PEPPER)
    if key is None:
        raise invalid_key()
    return key


def _decide(
    key: PresentedKey,
    *,
    amount: int,
    operation: str,
    attempt: str,
    endpoint: str,
    address: str,
    idempotency: str = "",
) -> counters.Admission:
    if _unknown_keys.holds(key.public_id):
        raise invalid_key()
    for _ in range(LOADS_MAX):
        try:
            admission = counters.admit(
                key=key,
                amount=amount,
                operation=operation,
                attempt=attempt,
                endpoint=endpoint,
                scope=SCOPES[endpoint],
                address=as_hex(address),
                idempotency=idempotency,
            )
            if admission.status == "COVER":
                _cover(key.account_number)
                continue
            if admission.status != "LOAD":
                return accepted(admission, amount, scope=SCOPES[endpoint])
            known = loading.load_key(key.public_id)
        except RedisUnavailable as error:
            raise _redis_away(error) from error
        if not known:
            _unknown_keys.remember(key.public_id)
            raise invalid_key()
    raise loading.LoadContended("This account is being loaded. Try again in a moment.", retry_after_s=1)


def _settle(hold: Hold, total: int | str, usage: Usage | None, *, final: bool) -> counters.Charge:
    """Settles with retries: the attempt's mark makes every repetition the same settle."""
    fields: dict[str, Any] = {
        "account_number": hold.account_number,
        "operation": hold.operation,
        "attempt": hold.attempt,
        "total": total,
        "final": final,
        "amount": hold.amount,
        "deadline_ms": hold.deadline_ms,
        "key_id": hold.key_id,
        "endpoint": hold.endpoint,
        "usage": _usage_json(usage) if usage else "",
        "kept_ms": hold.kept_ms,
    }
    for attempt_left in reversed(range(SETTLE_TRIES)):
        try:
            charge = counters.settle(**fields)
            if charge.status == "COVER":
                _cover(hold.account_number)
            elif charge.status == "LOAD":
                loading.load_account(hold.account_number)
            else:
                return charge
        except RedisUnavailable as error:
            if not attempt_left:
                log.error("settle_unanswered", operation=hold.operation, error=type(error).__name__)  # noqa: TRY400
                raise TemporarilyUnavailable(
                    "The charge for this answer could not be confirmed, so the answer is withheld. Look at your balance, or "
                    "send the request again with an Idempotency-Key, which is charged once."
                ) from error
    raise loading.LoadContended("This account is being loaded. Try again in a moment.", retry_after_s=1)


def _cover(account_number: int) -> None:
    try:
        loading.cover(account_number)
    except (OperationalError, InterfaceError) as error:
        log.warning("reserve_out_of_reach", account=account_number, error=type(error).__name__)
        raise TemporarilyUnavailable(
            "A part of this balance cannot be reached right now. Nothing was charged; ask for less, or try again shortly."
        ) from error


def _usage_json(usage: Usage) -> str:
    if len(usage.query) > QUERY_TEXT_MAX:
        usage = replace(usage, query=usage.query[:QUERY_TEXT_MAX])
    return orjson.dumps(usage).decode()


def _redis_away(error: Exception) -> TemporarilyUnavailable:
    log.error("redis_unavailable", error=type(error).__name__)
    return TemporarilyUnavailable("Credits cannot be checked right now. Nothing was charged; try again shortly.")
