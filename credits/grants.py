"""Burn-down: which grant pays a debit. Pure."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class OpenGrant:
    """A grant that can still pay. `remaining` goes down as it is drawn."""

    id: uuid.UUID
    kind: str
    remaining: int
    priority: int
    expires_at: datetime | None
    effective_at: datetime
    created_at: datetime
    ending: bool = False


def burn_down_order(grants: list[OpenGrant]) -> list[OpenGrant]:
    """By priority, earliest expiry (none last), promo before the others, effective date, creation.

    Grants that are being taken back come last: what is spent meanwhile is rather paid by credits that stay.
    """
    return sorted(
        grants,
        key=lambda grant: (
            grant.ending,
            grant.priority,
            grant.expires_at or _NEVER,
            grant.kind != "promo",
            grant.effective_at,
            grant.created_at,
            grant.id,
        ),
    )


def draw(grants: list[OpenGrant], amount: int) -> list[tuple[uuid.UUID, int]]:
    """Takes `amount` from grants in their order; (grant id, credits) each. Raises ValueError when they do not suffice."""
    draws = []
    for grant in grants:
        if amount == 0:
            break
        part = min(amount, grant.remaining)
        if part:
            grant.remaining -= part
            amount -= part
            draws.append((grant.id, part))
    if amount:
        raise ValueError(f"grants do not cover the last {amount} credits")
    return draws
