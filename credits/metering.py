"""One metered request: identify or admit, then settle or release. Two round trips to Redis and nothing else.

`admit` holds the highest price the request can have; `settle` charges the true one. Between the two the caller does
the work, for less time than the hold lives. Rows may leave only after `settle` has returned.
"""

import hashlib
import time
import uuid
from dataclasses import dataclass, replace
from typing import Any

import orjson
import structlog
from django.conf import settings

from accounts import keys
from accounts.addresses import as_hex
from accounts.keys import PresentedKey
from config.errors import DomainError, InvalidRequest, TemporarilyUnavailable
from config.redis import RedisUnavailable
from credits import counters, loading
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
}
QUERY_TEXT_MAX = 2048
IDEMPOTENCY_KEY_LENGTH_MAX = 128
UNLIMITED = 10**9  # what the headers show of a key without a limit: a number, so that every client can parse it


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
class RateWindow:
    """A key's sliding minute: `limit` and `remaining` calls (None: no limit), `reset_s` until the oldest call leaves it."""

    limit: int | None
    remaining: int | None
    reset_s: int


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


class KeyRefused(DomainError):
    """401: the key is missing, malformed, unknown, wrong or revoked."""

    status = 401
    code = "INVALID_KEY"


class MissingKey(KeyRefused):
    code = "MISSING_KEY"


class KeyRevoked(KeyRefused):
    code = "KEY_REVOKED"


class KeyExpired(KeyRefused):
    code = "KEY_EXPIRED"


class InsufficientScope(DomainError):
    """403: the key was issued for other endpoints; details `required`."""

    status = 403
    code = "INSUFFICIENT_SCOPE"


class AddressNotAllowed(DomainError):
    """403: the key may be used from other addresses only."""

    status = 403
    code = "IP_NOT_ALLOWED"


class AccountSuspended(DomainError):
    status = 403
    code = "ACCOUNT_SUSPENDED"


class RateLimited(DomainError):
    """429: `Retry-After` says when one more call fits into the key's sliding minute."""

    status = 429
    code = "RATE_LIMITED"


class InsufficientCredits(DomainError):
    """402: details `required`, `available`, `limit_source`.

    `limit_source` is account, key_cap (the key's month is spent) or in_flight (requests under way hold the rest).
    """

    status = 402
    code = "INSUFFICIENT_CREDITS"


class IdempotencyInProgress(DomainError):
    """409: another attempt with this idempotency key is still running."""

    status = 409
    code = "IDEMPOTENCY_IN_PROGRESS"


class IdempotencyMismatch(DomainError):
    """422: this idempotency key was used within 24 hours for another request."""

    status = 422
    code = "IDEMPOTENCY_MISMATCH"


class HoldExpired(DomainError):
    """504: the request outlived its hold. Nothing was charged and nothing may be delivered."""

    status = 504
    code = "QUERY_TIMEOUT"


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
    return Caller(key.account_number, key.public_id, _window(admission))


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
        rate=_window(admission),
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
        raise _insufficient(required=total, available=charge.available, held=0)
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


def rate_headers(rate: RateWindow) -> dict[str, str]:
    """`X-RateLimit-*` (reset as a UNIX time) and the IETF pair of draft-ietf-httpapi-ratelimit-headers-10."""
    limit = UNLIMITED if rate.limit is None else rate.limit
    remaining = UNLIMITED if rate.remaining is None else rate.remaining
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(int(time.time()) + rate.reset_s),
        "RateLimit-Policy": f'"minute";q={limit};w=60',
        "RateLimit": f'"minute";r={remaining};t={rate.reset_s}',
    }


def _presented(api_key: str | None) -> PresentedKey:
    if not api_key:
        raise MissingKey("Send your API key in the X-API-Key header.")
    key = keys.parse(api_key, pepper=settings.KEY_PEPPER)
    if key is None:
        raise _invalid_key()
    return key


def _invalid_key() -> KeyRefused:
    return KeyRefused("This API key is not valid. Check that it was copied whole, or create a new one.")


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
        raise _invalid_key()
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
            if admission.status != "LOAD":
                return _accepted(admission, amount, scope=SCOPES[endpoint])
            known = loading.load_key(key.public_id)
        except RedisUnavailable as error:
            raise _redis_away(error) from error
        if not known:
            _unknown_keys.remember(key.public_id)
            raise _invalid_key()
    raise loading.LoadContended("This account is being loaded. Try again in a moment.", retry_after_s=1)


def _accepted(admission: counters.Admission, amount: int, *, scope: str) -> counters.Admission:
    match admission.status:
        case "OK" | "REPLAY":
            return admission
        case "SHORT":
            error: DomainError = _insufficient(required=amount, available=admission.available, held=admission.held)
            error.headers = rate_headers(_window(admission))
        case "CAP":
            error = InsufficientCredits(
                f"This key's credits for the month are spent. Required: {amount}, Available: {admission.available}",
                details={"required": amount, "available": admission.available, "limit_source": "key_cap"},
                headers=rate_headers(_window(admission)),
            )
        case "EXPIRED":
            error = KeyExpired("This API key has expired. Create a new one.")
        case "SCOPE":
            error = InsufficientScope(
                f"This API key lacks the scope '{scope}'. Use another key, or issue one with that scope.",
                details={"required": scope},
            )
        case "ADDRESS":
            error = AddressNotAllowed("This API key may not be used from your address. Ask its owner to allow it.")
        case "RATE":
            window = _window(admission)
            error = RateLimited(
                f"More than {window.limit} requests in a minute with this key. Wait {window.reset_s} s.",
                details={"limit": window.limit, "retry_after_s": window.reset_s},
                headers={"Retry-After": str(window.reset_s), **rate_headers(window)},
            )
        case "INVALID_KEY":
            error = _invalid_key()
        case "REVOKED":
            error = KeyRevoked("This API key was revoked. Create a new one.")
        case "SUSPENDED":
            error = AccountSuspended("This account is suspended. Write to the operator of this service.")
        case "IN_PROGRESS":
            error = IdempotencyInProgress(
                "Another request with this Idempotency-Key is still running. Wait for its answer, then send this again.",
                headers={"Retry-After": "1"},
            )
        case "MISMATCH":
            error = IdempotencyMismatch(
                "This Idempotency-Key was used for another request. Use a new key for a new request.",
                details={"Idempotency-Key": "used with another body within 24 hours"},
            )
        case "JOURNAL_FULL":
            log.error("journal_full")
            error = TemporarilyUnavailable(
                "The ledger is behind. Nothing was charged; try again shortly.", retry_after_s=5
            )
        case _:
            raise RuntimeError(f"admit answered {admission.status}")
    raise error


def _insufficient(*, required: int, available: int, held: int) -> InsufficientCredits:
    in_flight = available + held >= required
    return InsufficientCredits(
        f"Insufficient credits. Required: {required}, Available: {max(0, available)}",
        details={
            "required": required,
            "available": max(0, available),
            "limit_source": "in_flight" if in_flight else "account",
        },
    )


def _window(admission: counters.Admission) -> RateWindow:
    return RateWindow(admission.limit, admission.remaining, -(-admission.reset_ms // 1000))


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
            if charge.status != "LOAD":
                return charge
            loading.load_account(hold.account_number)
        except RedisUnavailable as error:
            if not attempt_left:
                log.error("settle_unanswered", operation=hold.operation, error=type(error).__name__)  # noqa: TRY400
                raise TemporarilyUnavailable(
                    "The charge for this answer could not be confirmed, so the answer is withheld. Look at your balance, or "
                    "send the request again with an Idempotency-Key, which is charged once."
                ) from error
    raise loading.LoadContended("This account is being loaded. Try again in a moment.", retry_after_s=1)


def _usage_json(usage: Usage) -> str:
    if len(usage.query) > QUERY_TEXT_MAX:
        usage = replace(usage, query=usage.query[:QUERY_TEXT_MAX])
    return orjson.dumps(usage).decode()


def _redis_away(error: Exception) -> TemporarilyUnavailable:
    log.error("redis_unavailable", error=type(error).__name__)
    return TemporarilyUnavailable("Credits cannot be checked right now. Nothing was charged; try again shortly.")
