"""Why a call is refused: the exceptions that clients see, and which of them each answer of admit.lua stands for."""

import structlog

from config.errors import DomainError, TemporarilyUnavailable
from credits.counters import Admission
from credits.rate import rate_headers, window_of

log = structlog.get_logger(__name__)


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


def accepted(admission: Admission, amount: int, *, scope: str) -> Admission:
    """The admission when it is one; raises what else admit.lua answered. `amount` and `scope` are what was asked for."""
    match admission.status:
        case "OK" | "REPLAY":
            return admission
        case "SHORT":
            error: DomainError = insufficient(required=amount, available=admission.available, held=admission.held)
            error.headers = rate_headers(window_of(admission))
        case "CAP":
            error = InsufficientCredits(
                f"This key's credits for the month are spent. Required: {amount}, Available: {admission.available}",
                details={"required": amount, "available": admission.available, "limit_source": "key_cap"},
                headers=rate_headers(window_of(admission)),
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
            window = window_of(admission)
            error = RateLimited(
                f"More than {window.limit} requests in a minute with this key. Wait {window.reset_s} s.",
                details={"limit": window.limit, "retry_after_s": window.reset_s},
                headers={"Retry-After": str(window.reset_s), **rate_headers(window)},
            )
        case "INVALID_KEY":
            error = invalid_key()
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


def insufficient(*, required: int, available: int, held: int) -> InsufficientCredits:
    """402 of an account; `held` credits are set aside for requests under way, beside the `available` ones."""
    in_flight = available + held >= required
    return InsufficientCredits(
        f"Insufficient credits. Required: {required}, Available: {max(0, available)}",
        details={
            "required": required,
            "available": max(0, available),
            "limit_source": "in_flight" if in_flight else "account",
        },
    )


def invalid_key() -> KeyRefused:
    """401, the same whatever is wrong with the key."""
    return KeyRefused("This API key is not valid. Check that it was copied whole, or create a new one.")
