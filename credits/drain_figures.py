"""How far the drains are behind, and what they have done: for metrics and operators, never for a decision.

Lag is measured at the journals themselves, so it is true with no drain running. What drains have done is summed in Redis by
all of them; the sums begin at zero when Redis loses its data.
"""

import os
import socket
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from django.db import connection

from config.redis import PARTITIONS, Script, partition_tag
from credits import counters

_LUA = Path(__file__).parent / "lua"
LAG = Script(_LUA / "lag.lua")
NOTE_DRAIN = Script(_LUA / "note_drain.lua")
READ_DRAINS = Script(_LUA / "read_drains.lua")

ALIVE_MS = 10_000
COUNTED_MAX = 10_000  # rows of open work that are counted; more than these are shown as so many
_SUMS = f"{partition_tag(0)}:drain:sums"
_DRAINS = f"{partition_tag(0)}:drain:seen"


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in Redis. Ages are those of the oldest event a consumer has not reached, in seconds; 0 when it has all."""

    ledger_lag_s: float
    usage_lag_s: float
    journal_events: int
    holds: int
    holds_due: int


@dataclass(frozen=True, slots=True)
class OpenWork:
    """What waits in Postgres: commands that Redis has not confirmed and decreases, with the age of the oldest in seconds."""

    commands: int
    commands_age_s: float
    decreases: int
    decreases_age_s: float


def backlog() -> Backlog:
    """Over all partitions, in one round trip. Raises `RedisUnavailable`, quickly."""
    replies = LAG.call_many(
        [
            (
                [
                    counters.journal_key(partition),
                    counters.cursor_key(partition, counters.LEDGER),
                    counters.cursor_key(partition, counters.USAGE),
                    counters.holds_key(partition),
                ],
                [],
            )
            for partition in range(PARTITIONS)
        ],
        quick=True,
    )
    columns = [[int(value) for value in column] for column in zip(*replies, strict=True)]
    return Backlog(
        ledger_lag_s=max(0, *columns[0]) / 1000,
        usage_lag_s=max(0, *columns[1]) / 1000,
        journal_events=sum(columns[2]),
        holds=sum(columns[3]),
        holds_due=sum(columns[4]),
    )


_OPEN_WORK_SQL = """
WITH commands AS (
  SELECT created_at FROM credits_command WHERE confirmed_at IS NULL ORDER BY created_at LIMIT %(max)s
), decreases AS (
  SELECT created_at FROM credits_decrease WHERE closed_at IS NULL ORDER BY created_at LIMIT %(max)s
)
SELECT (SELECT count(*) FROM commands),
       (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0) FROM commands),
       (SELECT count(*) FROM decreases),
       (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0) FROM decreases)
"""


def open_work() -> OpenWork:
    """Read by partial indexes, `COUNTED_MAX` rows of each at most. Raises `django.db.OperationalError`."""
    with connection.cursor() as cursor:
        cursor.execute(_OPEN_WORK_SQL, {"max": COUNTED_MAX})
        commands, commands_age_s, decreases, decreases_age_s = cursor.fetchone()
    return OpenWork(commands, max(0.0, float(commands_age_s)), decreases, max(0.0, float(decreases_age_s)))


class DrainLog:
    """What this drain has done since it last said so; `publish` adds it to the sums of all drains."""

    def __init__(self) -> None:
        self._name = f"{socket.gethostname()[:64]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._done: Counter[str] = Counter()

    def note(self, **done: int) -> None:
        """Counts, by the names that the metrics show: events, entries, usage, swept, aside_late, aside_bad, aside_paid."""
        self._done.update({name: count for name, count in done.items() if count})

    def publish(self) -> None:
        """One round trip, also when there is nothing to add: it says that this drain is alive. Raises `RedisUnavailable`.

        A lost reply makes these counts stand twice, or not at all when the drain ends: they are figures, not money.
        """
        sums = [part for pair in self._done.items() for part in pair]
        NOTE_DRAIN.call_many([([_SUMS, _DRAINS], [self._name, ALIVE_MS * 6, *sums])])
        self._done.clear()


def drained() -> tuple[dict[str, int], int]:
    """(the sums of all drains by name, drains heard of in the last ten seconds). Raises `RedisUnavailable`, quickly."""
    ((sums, alive),) = READ_DRAINS.call_many([([_SUMS, _DRAINS], [ALIVE_MS])], quick=True)
    fields = iter(sums)
    return {name.decode(): int(count) for name, count in zip(fields, fields, strict=True)}, int(alive)
