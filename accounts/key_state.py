"""The only writer of a key's hash in Redis, all that admit needs to know of the key: whose it is and what it may do.

Postgres is told first and numbers every change (`ApiKey.version`); Redis never goes back to an earlier version, so
writers may race. A key hash counts only under the epoch of its account that it was read with, so whatever Redis
loses, a revoked key is read again before it can be used.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from django.db.models import F

from accounts.addresses import as_ranges
from accounts.models import Account, ApiKey
from config.redis import RedisUnavailable, Script, partition_tag

log = structlog.get_logger(__name__)
_WRITE = Script(Path(__file__).parent / "lua" / "write_key.lua")


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key as Postgres knows it, read together with its account's epoch in one statement."""

    public_id: str
    account_number: int
    epoch: int
    version: int
    digest: str
    state: str  # active | revoked | suspended
    rpm: int | None
    scopes: tuple[str, ...]
    expires_at: datetime | None
    networks: tuple[str, ...]
    monthly_cap: int | None
    family: uuid.UUID


def redis_key(public_id: str, account_number: int) -> str:
    """The name of the key's hash."""
    return f"{partition_tag(account_number)}:key:{public_id}"


def rate_key(public_id: str, account_number: int) -> str:
    """The name of the list of the key's calls in the last minute."""
    return f"{partition_tag(account_number)}:rl:{public_id}"


def read(public_id: str) -> KeyState | None:
    """The key's state from Postgres, or None when there is no such key."""
    row: Any = (
        ApiKey.objects.filter(pk=public_id)
        .values(
            "version",
            "digest",
            "state",
            "rpm",
            "scopes",
            "expires_at",
            "networks",
            "monthly_cap",
            "family",
            account_number=F("account__number"),
            epoch=F("account__epoch"),
            account_state=F("account__state"),
        )
        .first()
    )
    if row is None:
        return None
    suspended = row.pop("account_state") == Account.State.SUSPENDED
    if row["state"] == ApiKey.State.ACTIVE and suspended:
        row["state"] = "suspended"
    return KeyState(public_id=public_id, **{**row, "scopes": tuple(row["scopes"]), "networks": tuple(row["networks"])})


def write(key: KeyState) -> bool:
    """Tells Redis; False when Redis already knows a later version or epoch. Raises `RedisUnavailable`."""
    reply = _WRITE.call(
        keys=[redis_key(key.public_id, key.account_number)],
        args=[
            key.digest,
            key.epoch,
            key.version,
            key.state,
            "" if key.rpm is None else key.rpm,
            ",".join(key.scopes),
            "" if key.expires_at is None else int(key.expires_at.timestamp() * 1000),
            as_ranges(list(key.networks)),
            "" if key.monthly_cap is None else key.monthly_cap,
            key.family.hex,
        ],
    )
    return bytes(reply) == b"OK"


def publish(public_ids: Sequence[str]) -> bool:
    """Reads these keys anew and tells Redis; False when Redis could not be reached for one of them.

    That Redis knows a later version already is as good as having told it. What could not be told stays unpublished in
    Postgres, and `publish_pending` tries again.
    """
    told = True
    for public_id in public_ids:
        key = read(public_id)
        if key is None:
            continue
        try:
            write(key)
        except RedisUnavailable as error:
            log.warning("key_state_not_published", key=public_id, error=type(error).__name__)
            told = False
        else:
            ApiKey.objects.filter(pk=public_id, published_version__lt=key.version).update(published_version=key.version)
    return told


def publish_pending(*, limit: int = 1000) -> int:
    """Tells Redis the changes it could not be told when they were made; how many keys were tried."""
    pending = list(
        ApiKey.objects.filter(version__gt=F("published_version"))
        .order_by("public_id")
        .values_list("pk", flat=True)[:limit]
    )
    publish(pending)
    return len(pending)
