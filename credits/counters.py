"""The live counters in Redis, script by script. Every function is one round trip and raises `RedisUnavailable`.

Key names: `{pNN}:acct:<number>`, `{pNN}:op:<number>:<operation>`, `{pNN}:idem:<number>:<name>`, `{pNN}:holds`, `{pNN}:journal`,
`{pNN}:cursor:ledger`, `{pNN}:cursor:usage`; the key's hash and its rate window belong to `accounts.key_state`.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings

from accounts import key_state
from accounts.keys import PresentedKey
from config.redis import PARTITIONS, RedisUnavailable, Script, ask_each, ask_many, partition_tag
from config.redis_routes import Command

_LUA = Path(__file__).parent / "lua"
_ACCOUNT = (_LUA / "account.lua",)
ADMIT = Script(_LUA / "admit.lua", includes=_ACCOUNT)
SETTLE = Script(_LUA / "settle.lua", includes=_ACCOUNT)
APPLY = Script(_LUA / "apply.lua", includes=_ACCOUNT)
TAKE = Script(_LUA / "take.lua", includes=_ACCOUNT)
CLOSE = Script(_LUA / "close.lua", includes=_ACCOUNT)
LOAD = Script(_LUA / "load.lua", includes=_ACCOUNT)
ACTIVATE = Script(_LUA / "activate.lua", includes=_ACCOUNT)
INSPECT = Script(_LUA / "inspect.lua", includes=_ACCOUNT)
SPENT = Script(_LUA / "spent.lua", includes=_ACCOUNT)
READ_JOURNAL = Script(_LUA / "read_journal.lua")
MOVE_CURSOR = Script(_LUA / "move_cursor.lua")
TRIM = Script(_LUA / "trim.lua")
DUE = Script(_LUA / "due.lua")

LEDGER, USAGE = "ledger", "usage"
RELEASE = "release"
IDEMPOTENCY_KEPT_MS = 24 * 3600 * 1000
SECONDS_A_DAY = 86_400


class Admission(NamedTuple):
    """Reply of admit: `status` as admit.lua names it; the window is None without a limit, `reset_ms` till it moves."""

    status: str
    deadline_ms: int = 0
    available: int = 0
    held: int = 0
    limit: int | None = None
    remaining: int | None = None
    reset_ms: int = 0


class Charge(NamedTuple):
    """Reply of settle: the operation's total so far, what the account can still spend, the hold's new deadline."""

    status: str
    total: int
    available: int
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class LiveBalance:
    """An account in Redis at one moment; `usable` is False when it has to be loaded before it counts.

    `balance` is what Redis has of it; `reserve` what Postgres has kept, as far as Redis has been told.
    """

    usable: bool
    balance: int
    held: int
    seq: int
    applied: int
    epoch: int
    reserve: int = 0

    @property
    def free(self) -> int:
        """What Redis alone can give."""
        return self.balance - self.held

    @property
    def available(self) -> int:
        """What the account can spend: a call that needs the reserve gets it."""
        return self.free + self.reserve


@dataclass(frozen=True, slots=True)
class JournalPage:
    """Events after a cursor, oldest first, each (stream id, fields).

    `refused` says why a partition could not be read: its page is empty, and `insist` raises it when the others are done.
    """

    partition: int
    cursor: bytes
    events: list[tuple[bytes, dict[bytes, bytes]]]
    refused: Exception | None = None


def account_key(number: int) -> str:
    return f"{partition_tag(number)}:acct:{number}"


def _operation_key(number: int, operation: str) -> str:
    return f"{partition_tag(number)}:op:{number}:{operation}"


def holds_key(partition: int) -> str:
    return f"{partition_tag(partition)}:holds"


def journal_key(partition: int) -> str:
    return f"{partition_tag(partition)}:journal"


def cursor_key(partition: int, consumer: str) -> str:
    return f"{partition_tag(partition)}:cursor:{consumer}"


def current_month() -> str:
    """The month that caps are counted in, in UTC: 202611."""
    return _month_of_day(int(time.time()) // SECONDS_A_DAY)


@lru_cache(maxsize=1)
def _month_of_day(day: int) -> str:
    """The month of a day counted from 1970 on; every call asks for it."""
    return _month_of(datetime.fromtimestamp(day * SECONDS_A_DAY, UTC))


def _month_of(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m")


def _int(reply: bytes | int) -> int:
    return int(reply) if reply != b"" else 0


def admit(
    *,
    key: PresentedKey,
    amount: int,
    operation: str,
    attempt: str,
    endpoint: str,
    scope: str,
    address: str = "",
    idempotency: str = "",
) -> Admission:
    """Decides a call; `amount` 0 only identifies the caller and counts the rate window.

    `scope` is what the call needs of the key, `address` the caller's as 32 hexadecimal digits. `idempotency` names the
    caller's idempotency key; its operation is remembered for 24 h.
    """
    number = key.account_number
    reply = ADMIT.call(
        keys=[
            account_key(number),
            key_state.redis_key(key.public_id, number),
            key_state.rate_key(key.public_id, number),
            _operation_key(number, operation),
            holds_key(number % PARTITIONS),
            journal_key(number % PARTITIONS),
            f"{partition_tag(number)}:idem:{number}:{idempotency}",
        ],
        args=[
            key.digest,
            amount,
            operation,
            attempt,
            settings.HOLD_S * 1000,
            settings.RATE_LIMIT_RPM,
            settings.JOURNAL_EVENTS_MAX,
            number,
            key.public_id,
            endpoint,
            IDEMPOTENCY_KEPT_MS if idempotency else "",
            scope,
            address,
            current_month(),
        ],
    )
    status = reply[0].decode()
    if len(reply) == 1:
        return Admission(status)
    limit = None if reply[3] == b"" else int(reply[3])
    remaining = None if limit is None else int(reply[4])
    first, second, reset_ms = _int(reply[1]), _int(reply[2]), int(reply[5])
    if status in ("SHORT", "CAP"):
        return Admission(status, 0, first, second, limit, remaining, reset_ms)
    return Admission(status, first, second, 0, limit, remaining, reset_ms)


def settle(
    *,
    account_number: int,
    operation: str,
    attempt: str,
    total: int | str,
    final: bool,
    amount: int,
    deadline_ms: int,
    key_id: str,
    endpoint: str,
    usage: str,
    kept_ms: int,
) -> Charge:
    """Charges the operation up to `total` credits, or with `RELEASE` only what it has paid already.

    The result is kept for `kept_ms`, so that the same settle again, or a replay, charges nothing.
    """
    reply = SETTLE.call(
        keys=_settle_keys(account_number, operation, key_id),
        args=[
            operation,
            attempt,
            total,
            "1" if final else "0",
            amount,
            deadline_ms,
            settings.HOLD_S * 1000,
            kept_ms,
            key_id,
            account_number,
            usage,
            endpoint,
            current_month(),
        ],
    )
    return _charge(reply)


def _settle_keys(account_number: int, operation: str, key_id: str) -> list[str]:
    partition = account_number % PARTITIONS
    return [
        account_key(account_number),
        _operation_key(account_number, operation),
        holds_key(partition),
        journal_key(partition),
        key_state.redis_key(key_id, account_number),
    ]


def _charge(reply: Sequence[bytes]) -> Charge:
    return Charge(reply[0].decode(), int(reply[1]), int(reply[2]), int(reply[3]) if len(reply) > 3 else 0)


def due_holds(*, limit: int) -> tuple[list[tuple[int, str]], Exception | None]:
    """(account number, operation) of up to `limit` holds per partition whose deadline has passed.

    And what kept a partition from being read, if one was; the others' holds need not wait for it.
    """
    pages = DUE.call_each([([holds_key(partition)], [limit]) for partition in range(PARTITIONS)])
    due, refused = [], None
    for page in pages:
        if isinstance(page, RedisUnavailable):
            refused = page
        elif isinstance(page, Exception):
            raise page
        else:
            due += [member.decode().partition(":") for member in page]
    return [(int(number), operation) for number, _, operation in due], refused


def sweep(account_number: int, operation: str) -> Charge:
    """Releases a hold past its deadline, whoever made it."""
    reply = SETTLE.call(
        keys=_settle_keys(account_number, operation, ""),
        args=[operation, "", RELEASE, "1", 0, 0, 0, 0, "", account_number, "", "", ""],
    )
    return _charge(reply)


def apply_add(*, account_number: int, credit_seq: int, amount: int, reserve: int | None = None) -> tuple[str, int, int]:
    """(OK, GAP or LOAD; credits available; last credit_seq applied). `reserve`: what it is after the command."""
    reply = APPLY.call(keys=[account_key(account_number)], args=[credit_seq, amount, _or_empty(reserve), "", 0])
    return reply[0].decode(), int(reply[1]), int(reply[2])


def apply_note(
    *, account_number: int, credit_seq: int, reserve: int | None, family: uuid.UUID | None, spent: int, at: datetime
) -> tuple[str, int]:
    """(OK, GAP or LOAD; last credit_seq applied). The credits that `family` has spent of the reserve count in its cap."""
    cap = f"cap:{family.hex}:{_month_of(at)}" if family else ""
    reply = APPLY.call(keys=[account_key(account_number)], args=[credit_seq, 0, _or_empty(reserve), cap, spent])
    return reply[0].decode(), int(reply[2])


def apply_take(
    *, account_number: int, credit_seq: int, amount: int, decrease: uuid.UUID, reserve: int | None = None
) -> tuple[str, int, int]:
    """(OK, GAP or LOAD; credits taken; last credit_seq applied)."""
    reply = TAKE.call(
        keys=[account_key(account_number), journal_key(account_number % PARTITIONS)],
        args=[credit_seq, amount, str(decrease), account_number, _or_empty(reserve)],
    )
    return reply[0].decode(), int(reply[1]), int(reply[2])


def _or_empty(number: int | None) -> int | str:
    return "" if number is None else number


def inspect(account_number: int) -> LiveBalance:
    return inspect_many([account_number])[0]


def inspect_many(account_numbers: Sequence[int], *, quick: bool = False) -> list[LiveBalance]:
    """The live balances of these accounts, in their order, in one round trip; `quick` for a page that can do without."""
    replies = INSPECT.call_many([([account_key(number)], []) for number in account_numbers], quick=quick)
    return [
        LiveBalance(bool(int(usable)), *map(_int, (balance, held, seq, applied, epoch, reserve)))
        for usable, balance, held, seq, applied, epoch, reserve in replies
    ]


def spent_of_caps(families: Sequence[tuple[int, uuid.UUID]]) -> list[int | None]:
    """What each (customer number, family of capped keys) has spent and holds this month; None where no account is loaded."""
    month = current_month()
    calls = [([account_key(number)], [f"cap:{family.hex}:{month}"]) for number, family in families]
    return [None if reply == b"" else int(reply) for reply in SPENT.call_many(calls, quick=True)]


def close(*, account_number: int, epoch: int, even_if_usable: bool, lease_ms: int) -> str:
    """Closes an account for a load, unless it counts under `epoch` or another loader began within `lease_ms`.

    The reply is close.lua's: USABLE, LOADING, AHEAD or CLOSED.
    """
    reply = CLOSE.call(keys=[account_key(account_number)], args=[epoch, "1" if even_if_usable else "0", lease_ms])
    return bytes(reply).decode()


def write_loaded(
    *,
    account_number: int,
    epoch: int,
    balance: int,
    drained_seq: int,
    credit_seq: int,
    reserve: int = 0,
    spent_by_family: Mapping[uuid.UUID, int] | None = None,
) -> bool:
    """Writes an account as Postgres knows it; False when Redis knows this epoch or a later one.

    `balance` is without the `reserve`. `spent_by_family` is what each family of capped keys has spent this month.
    """
    month = current_month()
    caps = [part for family, spent in (spent_by_family or {}).items() for part in (f"cap:{family.hex}:{month}", spent)]
    reply = LOAD.call(
        keys=[account_key(account_number)], args=[epoch, balance, drained_seq, credit_seq, reserve, *caps]
    )
    return bytes(reply) == b"OK"


def activate(*, account_number: int, epoch: int) -> bool:
    """Makes a loaded account usable; False when it is no longer the load of that epoch."""
    return bytes(ACTIVATE.call(keys=[account_key(account_number)], args=[epoch])) == b"OK"


# Where this process last saw each consumer's cursor, by cursor key. A hint: what is read with it counts only if it was true.
_seen_cursors: dict[str, bytes] = {}


def read_journal(partitions: Sequence[int], *, consumer: str, limit: int) -> list[JournalPage]:
    """Up to `limit` events of each partition after the consumer's cursor, in the order given, in one or two round trips."""
    pages = {page.partition: page for page in _read_after_seen(partitions, consumer, limit)}
    unknown = [partition for partition in partitions if partition not in pages]
    replies = READ_JOURNAL.call_each(
        [([cursor_key(partition, consumer), journal_key(partition)], [limit]) for partition in unknown]
    )
    for partition, reply in zip(unknown, replies, strict=True):
        pages[partition] = _page(partition, consumer, reply)
    return [pages[partition] for partition in partitions]


def _page(partition: int, consumer: str, reply: Any) -> JournalPage:
    if isinstance(reply, RedisUnavailable):
        return JournalPage(partition, b"", [], refused=reply)
    if isinstance(reply, Exception):
        raise reply
    cursor, events = reply
    _seen_cursors[cursor_key(partition, consumer)] = cursor
    return JournalPage(
        partition,
        cursor,
        [(stream_id, dict(zip(fields[::2], fields[1::2], strict=True))) for stream_id, fields in events],
    )


def _read_after_seen(partitions: Sequence[int], consumer: str, limit: int) -> list[JournalPage]:
    """The pages of those partitions whose cursor still stands where this process saw it last.

    A script would turn each event into a Lua table and back, which costs Redis nine times the reading. The cursor is read
    after the events: had the stream been lost or replaced before they were read, its cursor would be gone with it.
    """
    seen = [
        (partition, _seen_cursors[key])
        for partition in partitions
        if (key := cursor_key(partition, consumer)) in _seen_cursors
    ]
    if not seen:
        return []
    commands = []
    for partition, cursor in seen:
        journal, key = journal_key(partition), cursor_key(partition, consumer)
        start = f"({cursor.decode('ascii')}" if cursor else "-"
        commands.append(Command(journal, ("XRANGE", journal, start, "+", "COUNT", limit)))
        commands.append(Command(key, ("GET", key)))
    replies = ask_each(commands)
    return [
        JournalPage(partition, cursor, events)
        for (partition, cursor), events, found in zip(seen, replies[::2], replies[1::2], strict=True)
        if not isinstance(events, Exception) and (found or b"") == cursor
    ]


def insist(pages: Sequence[JournalPage]) -> None:
    """Raises what kept a partition from being read, if one was."""
    for page in pages:
        if page.refused is not None:
            raise page.refused


def move_cursors(moves: Sequence[tuple[int, bytes, bytes]], *, consumer: str) -> int:
    """Compare-and-set of (partition, cursor as read, new cursor); how many moved."""
    replies: list[Any] = MOVE_CURSOR.call_many(
        [([cursor_key(partition, consumer), journal_key(partition)], [old, new]) for partition, old, new in moves]
    )
    moved = 0
    for (partition, _, new), reply in zip(moves, replies, strict=True):
        if bytes(reply) == b"OK":
            _seen_cursors[cursor_key(partition, consumer)] = new
            moved += 1
    return moved


def ledger_cursors(partitions: Sequence[int]) -> list[bytes]:
    """Where the ledger's consumer stands in each partition; b'' at the beginning, and where that cannot be told now."""
    keys = [cursor_key(partition, LEDGER) for partition in partitions]
    cursors = ask_each([Command(key, ("GET", key)) for key in keys])
    return [b"" if isinstance(cursor, RedisUnavailable) else cursor or b"" for cursor in cursors]


def journal_end(partition: int) -> bytes:
    """The stream id of the last event; b'' in an empty journal."""
    key = journal_key(partition)
    (entries,) = ask_many([Command(key, ("XREVRANGE", key, "+", "-", "COUNT", 1))])
    return bytes(entries[0][0]) if entries else b""


def is_reached(cursor: bytes, stream_id: bytes) -> bool:
    """Whether a cursor stands at that event or behind it."""
    return cursor != b"" and _position(stream_id) <= _position(cursor)


def _position(stream_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = stream_id.partition(b"-")
    return int(milliseconds), int(number)


def trim(partitions: Sequence[int]) -> int:
    """Forgets events behind both cursors; how many went."""
    replies = TRIM.call_many([([journal_key(p), cursor_key(p, LEDGER), cursor_key(p, USAGE)], []) for p in partitions])
    return sum(int(reply) for reply in replies)


def journal_length() -> int:
    """Events in all journals, those kept behind the cursors (one a partition) included."""
    keys = [journal_key(partition) for partition in range(PARTITIONS)]
    return sum(ask_many([Command(key, ("XLEN", key)) for key in keys]))
