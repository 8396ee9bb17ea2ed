"""One metered request: identify or admit, then settle or release. Two round trips to Redis and nothing else.

`admit` holds the highest price the request can have; `settle` charges the true one. Between the two the caller does
the work, for less time than the hold lives. Rows may leave only after `settle` has returned. While Redis does not answer,
the reserve decides and pays (`credits.reserve`); when nobody may decide, nothing is served.
"""

import hashlib
import time
import uuid
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from accounts import keys
from accounts.addresses import as_hex
from accounts.keys import PresentedKey
from config.breaker import Breaker, breaker_of
from config.errors import InvalidRequest, TemporarilyUnavailable
from config.metrics import count_reserve
from config.redis import PARTITIONS, RedisUnavailable
from config.redis_routes import OnTheMove, PoolExhausted
from credits import counters, loading, reserve
from credits.rate import RateWindow, window_of
from credits.refusals import HoldExpired, KeyRefused, MissingKey, accepted, insufficient, invalid_key
from credits.reported import Usage
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
IDEMPOTENCY_KEY_LENGTH_MAX = 128


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
    `from_reserve`: decided without Redis, so nothing is held and the reserve will pay. `paid`: what was settled so far.
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
    from_reserve: bool = False
    is_idempotent: bool = False
    paid: int = 0


class _Question(NamedTuple):
    """What a call asks to be allowed; `amount` 0 identifies the caller alone."""

    key: PresentedKey
    amount: int
    operation: str
    attempt: str
    endpoint: str
    address: str
    idempotency: str = ""


class Settlement(NamedTuple):
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
    admission, _ = _decide(_Question(key, 0, "", "", endpoint, address))
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
    question = _Question(key, amount, operation, attempt, endpoint, address, idempotency)
    admission, from_reserve = _decide(question)
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
        from_reserve=from_reserve,
        is_idempotent=bool(idempotency),
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
    asked for again with the same attempt, which charges nothing twice; should Redis answer none, the reserve pays for the
    same operation, and the drain returns what Redis may have charged too. Raises `HoldExpired`, `InsufficientCredits`
    (Redis lost the hold and the balance no longer covers it), `TemporarilyUnavailable`.
    """
    if hold.replayed:
        return Settlement(0, hold.available)
    if hold.from_reserve:
        return _settle_from_reserve(hold, total, usage)
    try:
        charge = _settle(hold, total, usage, final=final)
    except RedisUnavailable as error:
        log.warning("settle_unanswered", operation=hold.operation, error=type(error).__name__)
        if not final:
            raise _unconfirmed() from error
        if total <= hold.paid:  # a stream whose parts are all paid; the rest of its hold waits for the sweep
            return Settlement(hold.paid, hold.available)
        return _settle_from_reserve(hold, total, usage)
    except (OperationalError, InterfaceError) as error:  # Redis asks for a load, and Postgres is away
        raise _unconfirmed() from error
    if charge.status == "OK":
        hold.deadline_ms = charge.deadline_ms or hold.deadline_ms
        hold.paid = charge.total
        return Settlement(charge.total, charge.available)
    if charge.status == "RELEASED":
        raise HoldExpired("The request took longer than it may. Nothing was charged; ask for less or try again.")
    if charge.status == "SHORT":
        raise insufficient(required=total, available=charge.available, held=0)
    raise RuntimeError(f"settle of {total} credits against a hold of {hold.amount}: {charge.status}")


def release(hold: Hold, *, usage: Usage) -> Settlement:
    """Gives back what the request has not paid. Never raises for a store that is away: the sweep will release it."""
    if hold.replayed or hold.from_reserve:
        return Settlement(0, hold.available + hold.amount)
    try:
        charge = _settle(hold, counters.RELEASE, usage, final=True)
    except (TemporarilyUnavailable, *RedisUnavailable, OperationalError, InterfaceError):
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


def _decide(question: _Question) -> tuple[counters.Admission, bool]:
    """(the admission, whether it was decided without Redis). Raises every refusal."""
    if _unknown_keys.holds(question.key.public_id):
        raise invalid_key()
    clock = time.monotonic()
    breaker = breaker_of(question.key.account_number % PARTITIONS, now=clock)
    if breaker.lets(now=clock):
        try:
            return _ask_redis(question, breaker), False
        except RedisUnavailable as error:
            _note_failure(breaker, error)
    return _ask_reserve(question), True


def _ask_redis(question: _Question, breaker: Breaker) -> counters.Admission:
    key = question.key
    for _ in range(LOADS_MAX):
        admission = counters.admit(
            key=key,
            amount=question.amount,
            operation=question.operation,
            attempt=question.attempt,
            endpoint=question.endpoint,
            scope=SCOPES[question.endpoint],
            address=as_hex(question.address),
            idempotency=question.idempotency,
        )
        breaker.succeeded()
        if admission.status == "COVER":
            _cover(key.account_number)
        elif admission.status != "LOAD":
            return accepted(admission, question.amount, scope=SCOPES[question.endpoint])
        elif not loading.load_key(key.public_id):
            raise _unknown(key)
    raise loading.LoadContended("This account is being loaded. Try again in a moment.", retry_after_s=1)


def _ask_reserve(question: _Question) -> counters.Admission:
    try:
        admission = reserve.decide(
            key=question.key,
            amount=question.amount,
            operation=question.operation,
            endpoint=question.endpoint,
            scope=SCOPES[question.endpoint],
            address=question.address,
            is_idempotent=bool(question.idempotency),
            default_rpm=settings.RATE_LIMIT_RPM,
            now=timezone.now(),
            clock=time.monotonic(),
        )
    except (OperationalError, InterfaceError) as error:
        log.error("nobody_decides", error=type(error).__name__)  # noqa: TRY400 - Postgres is away, as Redis is
        raise TemporarilyUnavailable(
            "Credits cannot be checked right now. Nothing was charged; try again shortly."
        ) from error
    if admission.status == "UNKNOWN":
        raise _unknown(question.key)
    count_reserve("decided")
    return accepted(admission, question.amount, scope=SCOPES[question.endpoint])


def _unknown(key: PresentedKey) -> KeyRefused:
    _unknown_keys.remember(key.public_id)
    return invalid_key()


def _note_failure(breaker: Breaker, error: Exception) -> None:
    # Our own threads having every connection in use, or one slot that moves, says nothing about the server.
    if not isinstance(error, PoolExhausted | OnTheMove):
        breaker.failed(now=time.monotonic())
    log.warning("redis_unavailable", error=type(error).__name__)


def _settle(hold: Hold, total: int | str, usage: Usage | None, *, final: bool) -> counters.Charge:
    """Settles with retries: the attempt's mark makes every repetition the same settle. Raises `RedisUnavailable`."""
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
        "usage": usage.as_json() if usage else "",
        "kept_ms": hold.kept_ms,
    }
    clock = time.monotonic()
    breaker = breaker_of(hold.account_number % PARTITIONS, now=clock)
    # The hold is in Redis, so Redis is asked in any case; where others have just waited in vain, only once.
    tries = SETTLE_TRIES if breaker.lets(now=clock) else 1
    for tries_left in reversed(range(tries)):
        try:
            charge = counters.settle(**fields)
            breaker.succeeded()
            if charge.status == "COVER":
                _cover(hold.account_number)
            elif charge.status == "LOAD":
                loading.load_account(hold.account_number)
            else:
                return charge
        except RedisUnavailable as error:
            _note_failure(breaker, error)
            if not tries_left:
                raise
    raise loading.LoadContended("This account is being loaded. Try again in a moment.", retry_after_s=1)


def _settle_from_reserve(hold: Hold, total: int, usage: Usage | None) -> Settlement:
    """Charges the operation from the reserve, as far as the ledger does not know it paid."""
    if total > hold.amount:
        raise RuntimeError(f"settle of {total} credits against an admission of {hold.amount}")
    try:
        charge = reserve.settle(
            account_number=hold.account_number,
            key_id=hold.key_id,
            operation=hold.operation,
            total=total,
            usage=usage,
            now=timezone.now(),
        )
    except (OperationalError, InterfaceError) as error:
        raise _unconfirmed() from error
    except reserve.ReserveShort as error:
        if hold.from_reserve:
            raise
        raise _unconfirmed() from error  # Redis may have charged it before it fell silent
    count_reserve("paid")
    if hold.from_reserve and hold.is_idempotent and not charge.booked:
        hold.replayed = True  # another attempt with the same idempotency key has paid meanwhile
        return Settlement(0, charge.balance)
    log.info("settled_from_reserve", operation=hold.operation, booked=charge.booked, total=charge.total)
    return Settlement(charge.total, charge.balance)


def _unconfirmed() -> TemporarilyUnavailable:
    return TemporarilyUnavailable(
        "The charge for this answer could not be confirmed, so the answer is withheld. Look at your balance, or "
        "send the request again with an Idempotency-Key, which is charged once."
    )


def _cover(account_number: int) -> None:
    """Has the reserve moved to Redis, where a call falls short of it."""
    try:
        loading.cover(account_number)
    except (OperationalError, InterfaceError) as error:
        log.warning("reserve_out_of_reach", account=account_number, error=type(error).__name__)
        raise TemporarilyUnavailable(
            "A part of this balance cannot be reached right now. Nothing was charged; ask for less, or try again shortly."
        ) from error
