"""The very commands that a metered call sends to Redis, recorded once, so that a load client can send them by the thousand."""

import os
import uuid
from dataclasses import dataclass
from typing import Any

import hiredis

from benchmarks.subjects import Subject
from config.redis import PARTITIONS

Command = list[bytes]


@dataclass(frozen=True, slots=True)
class MeteredCommands:
    """`admit` and `settle` of one call as Redis commands; each new call needs an operation and an attempt of its own."""

    admit: Command
    settle: Command
    operation: str
    attempt: str
    account_number: int

    def packed(self) -> "PackedCommands":
        """The same two as they go over the wire."""
        return PackedCommands(
            hiredis.pack_command(tuple(self.admit)),  # type: ignore[arg-type]
            hiredis.pack_command(tuple(self.settle)),  # type: ignore[arg-type]
            self.operation.encode(),
            self.attempt.encode(),
        )

    def settle_for(self, account_number: int) -> Command:
        """The settle of another call, by another account."""
        known = self.account_number
        names = self._names()
        names[f"{{p{known % PARTITIONS:02d}}}".encode()] = f"{{p{account_number % PARTITIONS:02d}}}".encode()
        names[f":{known}".encode()] = f":{account_number}".encode()
        command = _renamed(self.settle, names)
        return [str(account_number).encode() if part == str(known).encode() else part for part in command]

    def _names(self) -> dict[bytes, bytes]:
        return {
            self.operation.encode(): str(uuid.uuid4()).encode(),
            self.attempt.encode(): uuid.uuid4().hex.encode(),
        }


@dataclass(frozen=True, slots=True)
class PackedCommands:
    """Both commands in Redis' protocol; names of the same length may stand for the recorded ones."""

    admit: bytes
    settle: bytes
    operation: bytes
    attempt: bytes

    def fresh(self) -> tuple[bytes, bytes]:
        """(admit, settle) of another call by the same key."""
        drawn = os.urandom(16).hex()
        operation = f"{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-a{drawn[17:20]}-{drawn[20:]}".encode()
        attempt = drawn.encode()
        return (
            self.admit.replace(self.operation, operation).replace(self.attempt, attempt),
            self.settle.replace(self.operation, operation).replace(self.attempt, attempt),
        )


def _renamed(command: Command, names: dict[bytes, bytes]) -> Command:
    for known, new in names.items():
        command = [part.replace(known, new) for part in command]
    return command


def record(subject: Subject) -> MeteredCommands:
    """Makes one metered call through `credits.metering` and keeps what its two scripts were sent."""
    from config.redis import Script

    sent: list[Command] = []
    call = Script.call

    def recording(script: Script, *, keys: Any, args: Any) -> Any:
        words = ["EVALSHA", script.sha1, len(keys), *keys, *args]
        sent.append([str(word).encode() for word in words])
        return call(script, keys=keys, args=args)

    hold = _admit(subject)  # loads the account, if it has to be
    _settle(hold)
    Script.call = recording  # type: ignore[method-assign,assignment]
    try:
        hold = _admit(subject)
        _settle(hold)
    finally:
        Script.call = call  # type: ignore[method-assign]
    admit, settle = sent
    return MeteredCommands(admit, settle, hold.operation, hold.attempt, hold.account_number)


def _admit(subject: Subject) -> Any:
    from credits import metering

    return metering.admit(api_key=subject.api_key, endpoint="query", amount=2)


def _settle(hold: Any) -> None:
    from credits import metering
    from credits.reported import Usage

    usage = Usage(request_id=hold.operation, endpoint="query", status=200, rows=100, duration_ms=12, query="{}")
    metering.settle(hold, total=2, usage=usage)
