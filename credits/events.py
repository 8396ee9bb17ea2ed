"""A journal event as the scripts write it and the consumers read it. Pure: bytes in, values out."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from credits.amounts import CREDITS_MAX


class BadEvent(ValueError):
    """An event whose fields do not read as one."""


@dataclass(frozen=True, slots=True)
class Event:
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


def parse(stream_id: bytes, fields: list[bytes]) -> Event:
    """Reads the flat field list of a stream entry. Raises `BadEvent`."""
    try:
        named = dict(zip(fields[::2], fields[1::2], strict=True))
        seq = int(named[b"seq"]) if named[b"seq"] else None
        event = Event(
            stream_id=stream_id.decode("ascii"),
            account_number=int(named[b"account"]),
            epoch=int(named[b"epoch"]),
            seq=seq,
            debit=int(named[b"debit"]),
            total=int(named[b"total"]),
            operation=uuid.UUID(named[b"operation"].decode("ascii")),
            key_id=named[b"key"].decode("ascii"),
            usage=named[b"usage"].decode("utf-8"),
            take=int(named[b"take"]) if b"take" in named else None,
        )
    except (KeyError, ValueError, UnicodeDecodeError) as error:
        raise BadEvent(f"{type(error).__name__}: {error}") from error
    if not 0 <= event.debit <= event.total <= CREDITS_MAX or (event.seq is None) != (event.debit == 0):
        raise BadEvent("debit, total and seq contradict each other")
    return event


def as_json(fields: list[bytes]) -> list[str]:
    """The fields of an unreadable event in a form that can be stored and shown."""
    return [field[:2000].decode("utf-8", "backslashreplace").replace("\x00", "\\x00") for field in fields[:64]]
