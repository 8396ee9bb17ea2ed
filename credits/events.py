"""A journal event as the scripts write it and the consumers read it. Pure: bytes in, values out."""

import uuid
from datetime import UTC, datetime
from typing import NamedTuple

from credits.amounts import CREDITS_MAX


class BadEvent(ValueError):
    """An event whose fields do not read as one."""


class Event(NamedTuple):
    """One settle: `debit` credits left the balance, bringing the operation to `total`. `seq` is None when it was free.

    `usage` is the JSON that the request reported of itself, '' for a part of a stream. An event with a `take` (the
    command's credit_seq) is no request: its credits were taken back for the decrease that `operation` names.
    """

    stream_id: str
    account_number: int
    epoch: int
    seq: int | None
    debit: int
    total: int
    operation: uuid.UUID
    key_id: str
    usage: str
    take: int | None = None

    @property
    def at(self) -> datetime:
        """When it happened, by the clock of Redis: the first part of the stream id."""
        return datetime.fromtimestamp(int(self.stream_id.partition("-")[0]) / 1000, tz=UTC)


def parse(stream_id: bytes, fields: dict[bytes, bytes]) -> Event:
    """Reads the fields of a stream entry, as `event` in account.lua writes them. Raises `BadEvent`."""
    try:
        number, epoch, seq, debit, total, operation, key_id, take = fields[b"event"].decode("ascii").split(" ")
        event = Event(
            stream_id.decode("ascii"),
            int(number),
            int(epoch),
            None if seq == "-" else int(seq),
            int(debit),
            int(total),
            uuid.UUID(operation),
            "" if key_id == "-" else key_id,
            fields[b"usage"].decode("utf-8"),
            None if take == "-" else int(take),
        )
    except (KeyError, ValueError, UnicodeDecodeError) as error:
        raise BadEvent(f"{type(error).__name__}: {error}") from error
    if not 0 <= event.debit <= event.total <= CREDITS_MAX or (event.seq is None) != (event.debit == 0):
        raise BadEvent("debit, total and seq contradict each other")
    return event


def as_json(fields: dict[bytes, bytes]) -> list[str]:
    """The fields of an unreadable event, names and values in turns, in a form that can be stored and shown."""
    flat = [part for pair in fields.items() for part in pair]
    return [part[:2000].decode("utf-8", "backslashreplace").replace("\x00", "\\x00") for part in flat[:64]]
