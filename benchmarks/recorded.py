"""The very commands that a metered call sends to Redis, recorded once, so that a load client can send them by the thousand."""

import uuid
from dataclasses import dataclass
from typing import Any

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

    def fresh(self) -> tuple[Command, Command]:
        """(admit, settle) of another call by the same key."""
        names = self._names()
        return _renamed(self.admit, names), _renamed(self.settle, names)

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
