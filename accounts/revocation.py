"""Ending a key for good, whichever of the two stores is away.

1. Redis refuses the key at once and notes that Postgres has to learn it (`{pNN}:revocations`, lua/revoke_key.lua).
2. Postgres books it and numbers the change; Redis is told that version, and forgets its note.

Redis goes first so that a Postgres that is slow, frozen or gone delays nobody's refusal. The note outlives whoever wrote
it: the drain carries it into Postgres, and until then no load and no other writer brings the key back. Without Redis
Postgres alone knows, and the drain tells Redis. "Revoked" is said when both know, "pending" when one does: what one store
alone knows is lost with its data.
"""

import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import structlog
from django.db import InterfaceError, OperationalError, connection
from django.db.models import F

from accounts import key_state, keys
from accounts.models import ApiKey
from config.errors import NotFound, TemporarilyUnavailable
from config.redis import PARTITIONS, RedisUnavailable, Script, ask, ask_many
from config.redis_routes import Command

log = structlog.get_logger(__name__)

POSTGRES_WAIT_S = 2.0
NOTES_MAX = 10_000  # a partition; operators alone write them
REASON_MAX = 255
ACTOR_MAX = 254
# Waiting threads of this process: one that waits for a frozen Postgres comes back only when that does.
_BOOKERS = threading.BoundedSemaphore(4)
_REVOKE = Script(Path(__file__).parent / "lua" / "revoke_key.lua")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Revocation:
    """A key that was told to end; `known_by` names the stores that know: postgres, redis, or both."""

    public_id: str
    known_by: tuple[str, ...]

    @property
    def pending(self) -> bool:
        """Whether one store has still to learn it. The drain tells it."""
        return len(self.known_by) < 2

    @property
    def state(self) -> str:
        """revoked or pending."""
        return "pending" if self.pending else "revoked"

    @property
    def meaning(self) -> str:
        """What the state means, in a sentence for operators."""
        if not self.pending:
            return "Every process refuses the key from now on, whatever Redis loses."
        if "redis" in self.known_by:
            return (
                "Redis refuses the key from now on. PostgreSQL could not be told yet: the drain tells it when it is back. "
                "Until then the revocation would be lost with the data of Redis."
            )
        return (
            "PostgreSQL knows, but Redis could not be told yet: a process that reaches Redis may still accept the key. "
            "The drain tells Redis when it is back."
        )


def public_id_of(text: str) -> str:
    """The public id in what an operator gives: the id, `mh_live_<id>` or a whole key. Raises `NotFound`."""
    public_id = text.strip().removeprefix(keys.PREFIX).partition("_")[0]
    length = keys.NUMBER_LENGTH + keys.RANDOM_ID_LENGTH
    if len(public_id) != length or not set(public_id) <= set(keys.BASE32):
        raise NotFound(
            f"There is no such key. Give its public id: the {length} characters between {keys.PREFIX} and the secret."
        )
    return public_id


def revoke_key(*, public_id: str, now: datetime, actor: str = "", reason: str = "") -> Revocation:
    """Ends a key for good; a second time only tells again who could not be told. Takes little more than 2 s at most.

    Raises `NotFound`, and `TemporarilyUnavailable` when neither store can be told: then the key works on.
    """
    public_id = public_id_of(public_id)
    noted = _note(public_id, now=now, actor=actor, reason=reason)
    try:
        told = _within(POSTGRES_WAIT_S, lambda: book(public_id, now=now, actor=actor, reason=reason))
    except (OperationalError, InterfaceError, TimeoutError) as error:
        log.warning("revocation_waits_for_postgres", key=public_id, noted=noted, error=type(error).__name__)
        if not noted:
            raise TemporarilyUnavailable(
                "Neither PostgreSQL nor Redis could be told. The key is not revoked; try again."
            ) from error
        return Revocation(public_id, ("redis",))
    except NotFound:
        _forget(public_id)
        raise
    if not told:
        return Revocation(public_id, ("postgres",))
    _forget(public_id)
    log.info("key_revoked", key=public_id, actor=actor, reason=reason)
    return Revocation(public_id, ("postgres", "redis"))


def book(public_id: str, *, now: datetime, actor: str, reason: str) -> bool:
    """Revokes in Postgres, then tells Redis; False when Redis could not be told. Raises `NotFound`."""
    ApiKey.objects.filter(pk=public_id, state=ApiKey.State.ACTIVE).update(
        state=ApiKey.State.REVOKED,
        revoked_at=now,
        revoked_by=actor[:ACTOR_MAX],
        revoked_reason=reason[:REASON_MAX],
        version=F("version") + 1,
    )
    if not ApiKey.objects.filter(pk=public_id, state=ApiKey.State.REVOKED).exists():
        raise NotFound("There is no such key.")
    return key_state.publish([public_id])


def carry_revocations() -> int:
    """Brings the revocations that Redis has noted into Postgres; how many. For the drain. Raises what the stores raise."""
    places = [key_state.revocations_key(partition) for partition in range(PARTITIONS)]
    carried = 0
    for notes in ask_many([Command(place, ("HGETALL", place)) for place in places]):
        for field, packed in notes.items():
            public_id, note = field.decode(), json.loads(packed)
            try:
                told = book(
                    public_id, now=datetime.fromisoformat(note["at"]), actor=note["actor"], reason=note["reason"]
                )
            except NotFound:
                log.warning("revocation_of_no_key", key=public_id)
                told = True
            if told:
                _forget(public_id)
                carried += 1
    if carried:
        log.info("revocations_carried", count=carried)
    return carried


def _note(public_id: str, *, now: datetime, actor: str, reason: str) -> bool:
    """Has Redis refuse the key and remember it for Postgres; False when it cannot."""
    number = keys.account_number_of(public_id)
    note = json.dumps({"at": now.isoformat(), "actor": actor[:ACTOR_MAX], "reason": reason[:REASON_MAX]})
    try:
        reply = _REVOKE.call(
            keys=[key_state.redis_key(public_id, number), key_state.revocations_key(number)],
            args=[public_id, note, NOTES_MAX],
        )
    except RedisUnavailable as error:
        log.warning("revocation_not_noted", key=public_id, error=type(error).__name__)
        return False
    if bytes(reply) != b"OK":
        log.error("revocation_notes_full", key=public_id)
        return False
    return True


def _forget(public_id: str) -> None:
    """Postgres knows (or knows of no such key): the note has done its work. Should Redis be away, the drain forgets it."""
    try:
        place = key_state.revocations_key(keys.account_number_of(public_id))
        ask(Command(place, ("HDEL", place, public_id)))
    except RedisUnavailable as error:
        log.warning("revocation_note_kept", key=public_id, error=type(error).__name__)


def _within(seconds: float, work: Callable[[], Result]) -> Result:
    """What `work` returns or raises; TimeoutError when it takes longer: it goes on, and nobody waits for it.

    psycopg has no deadline of its own for a server that accepts and then says nothing.
    """
    answer: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put((work(), None))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            answer.put((None, error))
        finally:
            try:
                connection.close()
            finally:
                _BOOKERS.release()

    deadline = time.monotonic() + seconds
    if not _BOOKERS.acquire(timeout=seconds):
        raise TimeoutError
    threading.Thread(target=ask, name="revocation", daemon=True).start()
    try:
        result, error = answer.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
