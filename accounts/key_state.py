"""The only writer of a key's hash in Redis, all that admit needs to know of the key: whose it is and what it may do.

Postgres is told first and numbers every change (`ApiKey.version`); Redis never goes back to an earlier version, so
writers may race. A key hash counts only under the epoch of its account that it was read with, so whatever Redis
loses, a revoked key is read again before it can be used. A revocation that Postgres does not know yet is noted in Redis
(`accounts.revocation`), and no writer brings such a key back.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from django.db import connection
from django.db.models import F

from accounts.addresses import as_ranges
from accounts.models import Account, ApiKey
from config.redis import RedisUnavailable, Script, partition_tag

log = structlog.get_logger(__name__)
_WRITE = Script(Path(__file__).parent / "lua" / "write_key.lua")
PAGE = 500


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


def revocations_key(account_number: int) -> str:
    """The name of the partition's revocations that Postgres has not confirmed (`accounts.revocation`)."""
    return f"{partition_tag(account_number)}:revocations"


def read(public_id: str) -> KeyState | None:
    """The key's state from Postgres, or None when there is no such key."""
    return next(iter(read_many([public_id])), None)


def read_many(public_ids: Sequence[str]) -> list[KeyState]:
    """The states of those of these keys that exist, by public id, read in one statement."""
    rows: Any = (
        ApiKey.objects.filter(pk__in=public_ids)
        .order_by("public_id")
        .values(
            "public_id",
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
    )
    return [_state(row) for row in rows]


def _state(row: dict[str, Any]) -> KeyState:
    suspended = row.pop("account_state") == Account.State.SUSPENDED
    if row["state"] == ApiKey.State.ACTIVE and suspended:
        row["state"] = "suspended"
    return KeyState(**{**row, "scopes": tuple(row["scopes"]), "networks": tuple(row["networks"])})


def write(key: KeyState) -> bool:
    """Tells Redis; False when Redis already knows a later version or epoch. Raises `RedisUnavailable`."""
    return bytes(_WRITE.call(keys=_keys_of(key), args=_arguments_of(key))) == b"OK"


def _keys_of(key: KeyState) -> list[str]:
    return [redis_key(key.public_id, key.account_number), revocations_key(key.account_number)]


def _arguments_of(key: KeyState) -> list[str | int]:
    return [
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
        key.public_id,
    ]


def publish(public_ids: Sequence[str]) -> bool:
    """Reads these keys anew and tells Redis, a page at a time; False when Redis could not be reached for one of them.

    That Redis knows a later version already is as good as having told it. What could not be told stays unpublished in
    Postgres, and `publish_pending` tries again.
    """
    told = True
    for start in range(0, len(public_ids), PAGE):
        known = read_many(public_ids[start : start + PAGE])
        published = _tell(known)
        if len(published) < len(known):
            log.warning("key_states_not_published", keys=len(known) - len(published))
            told = False
        _note_published(published)
    return told


def _tell(known: Sequence[KeyState]) -> list[KeyState]:
    """Those of the keys that Redis could be told: one shard of a cluster may be away, and the others not."""
    try:
        replies = _WRITE.call_each([(_keys_of(key), _arguments_of(key)) for key in known], quick=True)
    except RedisUnavailable:
        return []
    for reply in replies:
        if isinstance(reply, Exception) and not isinstance(reply, RedisUnavailable):
            raise reply
    return [key for key, reply in zip(known, replies, strict=True) if not isinstance(reply, Exception)]


def _note_published(known: Sequence[KeyState]) -> None:
    # Locked in the order of their ids: other writers of several keys do the same, so none waits for another in a circle.
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH told AS (SELECT k.public_id, t.version FROM accounts_apikey k"
            " JOIN unnest(%s::varchar[], %s::bigint[]) AS t(id, version) ON k.public_id = t.id"
            " WHERE k.published_version < t.version ORDER BY k.public_id FOR NO KEY UPDATE OF k)"
            " UPDATE accounts_apikey k SET published_version = told.version FROM told WHERE k.public_id = told.public_id",
            [[key.public_id for key in known], [key.version for key in known]],
        )


def publish_account(account_id: uuid.UUID) -> bool:
    """Tells Redis the state of every key of that account; False when Redis could not be reached."""
    last = ""
    while True:
        keys = ApiKey.objects.filter(account_id=account_id, pk__gt=last).order_by("public_id")
        page = list(keys.values_list("pk", flat=True)[:PAGE])
        if not page:
            return True
        if not publish(page):
            return False  # all keys of an account are in one partition
        last = page[-1]


def publish_pending(*, limit: int = 1000) -> int:
    """Tells Redis the changes it could not be told when they were made; how many keys were tried."""
    pending = list(
        ApiKey.objects.filter(version__gt=F("published_version"))
        .order_by("public_id")
        .values_list("pk", flat=True)[:limit]
    )
    publish(pending)
    return len(pending)
