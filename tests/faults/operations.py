"""Joins requests with charges: which ledger entries, events set aside and usage rows belong to which client's request."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.faults.evidence import Asked, Entry, Evidence, Loss

# A request that its client gave up may still be charged: its process was stopped, or the release waits for the sweep.
BELATED_S = 30.0
EARLY_S = 1.0
CLOCK_SLACK_S = 0.25


@dataclass(slots=True)
class Operation:
    """One thing to be charged once: a request, or all that were sent with one idempotency key.

    `ids` are its operations in the product's own books (one, or none when nothing is known of it there).
    """

    account: int
    asked: list[Asked] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    booked: int = 0
    late: int = 0
    keys: set[str] = field(default_factory=set)
    first: float = float("inf")
    last: float = 0.0

    @property
    def lowest(self) -> int:
        """The least that must have been charged, by what clients were given."""
        return max((_lowest(asked) for asked in self.asked), default=0)

    @property
    def highest(self) -> int:
        """The most that may have been charged, by what clients were told."""
        return max((_highest(asked) for asked in self.asked), default=0)

    @property
    def started(self) -> float:
        return min(asked.started for asked in self.asked)

    @property
    def ended(self) -> float:
        return max(asked.ended for asked in self.asked)

    def text(self) -> str:
        """What is known of it, in one line."""
        ids = ", ".join(sorted(self.ids)) or "none"
        return f"operations {ids}: booked {self.booked}, set aside late {self.late}; clients saw {self.asked}"


def _lowest(asked: Asked) -> int:
    # A replay costs nothing itself, but it says that the operation was charged. Of a stream that broke off, what arrived
    # was paid before it was sent.
    given = asked.outcome == "answered" or (asked.outcome == "lost" and asked.rows > 0)
    return 1 + max(0, asked.rows) // 100 if given else 0


def _highest(asked: Asked) -> int:
    if asked.outcome == "refused":
        return 0
    readable = asked.outcome == "answered" and asked.rows >= 0
    return 1 + (asked.rows if readable else asked.limit) // 100


def in_a_loss(losses: Iterable[Loss], started: float, ended: float) -> bool:
    """Whether Redis lost something while this happened."""
    return any(started <= loss.until + CLOCK_SLACK_S and ended >= loss.since - CLOCK_SLACK_S for loss in losses)


def joined(evidence: Evidence) -> tuple[list[Operation], list[Operation]]:
    """(what clients asked for, each with its charges; charges for which nobody asked)."""
    operations = _asked(evidence.asked)
    by_request = {asked.request_id: operation for operation in operations for asked in operation.asked}
    booked = _booked(evidence.entries)
    late: dict[tuple[int, str], int] = defaultdict(int)
    named = {(row.account, row.operation, row.request_id) for row in evidence.usage}
    for aside in evidence.set_aside:
        if aside.account is not None:
            named.add((aside.account, aside.operation, aside.request_id))
            if aside.reason == "late":
                late[aside.account, aside.operation] += aside.debit
    claimed = set()
    for account, operation_id, request_id in named:
        operation = by_request.get(request_id)
        if operation is None or operation.account != account or operation_id in operation.ids:
            continue
        claimed.add((account, operation_id))
        operation.ids.add(operation_id)
        operation.late += late[account, operation_id]
        charge = booked.get((account, operation_id))
        operation.booked += charge.booked if charge else 0
    rest = [charge for place, charge in booked.items() if place not in claimed]
    waiting = [operation for operation in operations if not operation.ids]
    return operations, _match(rest, waiting, evidence.losses)


def _asked(requests: list[Asked]) -> list[Operation]:
    grouped: dict[tuple[int, str, str], Operation] = {}
    for asked in requests:
        name = f"key {asked.idempotency}" if asked.idempotency else asked.request_id
        operation = grouped.setdefault((asked.account, asked.endpoint, name), Operation(asked.account))
        operation.asked.append(asked)
        operation.keys.add(asked.key)
    return list(grouped.values())


def _booked(entries: list[Entry]) -> dict[tuple[int, str], Operation]:
    """What the ledger charged for each operation of a customer."""
    found: dict[tuple[int, str], Operation] = {}
    for entry in entries:
        if entry.type == "debit" and entry.kind == "usage":
            charge = found.setdefault((entry.account, entry.operation), Operation(entry.account, ids={entry.operation}))
            charge.booked += entry.amount
            charge.keys.add(entry.key)
            charge.first, charge.last = min(charge.first, entry.at), max(charge.last, entry.at)
    return found


def _match(charges: list[Operation], waiting: list[Operation], losses: list[Loss]) -> list[Operation]:
    """Gives each charge whose request is not named anywhere (its usage row died with its process, or with Redis) to a request
    that could have made it, as many as possible; returns the charges that nobody can have made."""
    could: dict[int, list[int]] = {
        index: [place for place, operation in enumerate(waiting) if _fits(charge, operation, losses)]
        for index, charge in enumerate(charges)
    }
    taken: dict[int, int] = {}

    def place(index: int, tried: set[int]) -> bool:
        for candidate in could[index]:
            if candidate not in tried:
                tried.add(candidate)
                if candidate not in taken or place(taken[candidate], tried):
                    taken[candidate] = index
                    return True
        return False

    unclaimed = [charge for index, charge in enumerate(charges) if not place(index, set())]
    for candidate, index in taken.items():
        operation, charge = waiting[candidate], charges[index]
        operation.ids |= charge.ids
        operation.booked += charge.booked
    return unclaimed


def _fits(charge: Operation, operation: Operation, losses: list[Loss]) -> bool:
    # Of a stream, the first parts may be booked when Redis loses the last one, and with it what names the request.
    enough = operation.lowest <= charge.booked or in_a_loss(losses, operation.started, operation.ended)
    return (
        charge.account == operation.account
        and bool(charge.keys & operation.keys)
        and enough
        and charge.booked <= operation.highest
        and operation.started - EARLY_S <= charge.first
        and charge.last <= operation.ended + (BELATED_S if _may_be_late(operation) else EARLY_S)
    )


def _may_be_late(operation: Operation) -> bool:
    return any(asked.outcome == "lost" for asked in operation.asked)
