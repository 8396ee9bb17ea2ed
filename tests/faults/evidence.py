"""What the checker judges: plain rows of what clients saw, the ledger, the counters and the usage rows. Times are UNIX
seconds, amounts whole credits, accounts customer numbers."""

from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["answered", "refused", "lost"]
"""answered: whole, with 200. refused: with an error code. lost: nobody knows, the answer broke off or never came."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One metered request as its client saw it.

    `limit` is the most records it could return, `rows` those that arrived, `used` X-Credits-Used (None: not said).
    """

    request_id: str
    account: int
    key: str
    endpoint: str
    limit: int
    started: float
    ended: float
    outcome: Outcome
    status: int = 0
    code: str = ""
    rows: int = 0
    used: int | None = None
    remaining: int | None = None
    replayed: bool = False
    idempotency: str = ""


@dataclass(frozen=True, slots=True)
class ToppedUp:
    """One try to top an account up; tries of the same top-up share `reference`, which stands in the entry's reason."""

    reference: str
    account: int
    amount: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Revoked:
    """A key whose revocation had been confirmed at that moment."""

    key: str
    at: float


@dataclass(frozen=True, slots=True)
class Seen:
    """An account's counters at one moment during the load, read in one step."""

    account: int
    at: float
    balance: int
    held: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Redis has lost what was charged in this time and not booked yet, and why."""

    since: float
    until: float
    cause: str


@dataclass(frozen=True, slots=True)
class Account:
    number: int
    balance: int
    reserve: int
    epoch: int
    drained_seq: int
    credit_seq: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A ledger entry with what its draws add up to."""

    id: int
    account: int
    type: str
    kind: str
    amount: int
    drawn: int
    at: float
    reason: str = ""
    operation: str = ""
    charged_total: int | None = None
    epoch: int | None = None
    seq: int | None = None
    credit_seq: int | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """`amount` is 0 until it counts, `drawn` what its draws add up to less what refunds returned to it."""

    id: str
    account: int
    amount: int
    remaining: int
    drawn: int


@dataclass(frozen=True, slots=True)
class Command:
    account: int
    credit_seq: int
    kind: str
    amount: int
    epoch: int | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class SetAside:
    """`at` is when the event was journalled."""

    account: int | None
    epoch: int | None
    seq: int | None
    reason: str
    debit: int
    at: float
    operation: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class UsageRow:
    account: int
    operation: str
    request_id: str
    event_id: str
    status: int
    rows: int
    credits: int


@dataclass(frozen=True, slots=True)
class Live:
    """An account in Redis at rest. `usable` is False when the next call has to load it first."""

    account: int
    usable: bool
    balance: int
    held: int
    applied: int
    epoch: int
    holds: int


@dataclass(slots=True)
class Evidence:
    """All of it. `undrained` is how many journal events lie beyond either cursor, `open_holds` how many wait for a sweep."""

    asked: list[Asked] = field(default_factory=list)
    topped_up: list[ToppedUp] = field(default_factory=list)
    revoked: list[Revoked] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    usage: list[UsageRow] = field(default_factory=list)
    live: list[Live] = field(default_factory=list)
    undrained: int = 0
    open_holds: int = 0


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant (C1 to C10, or what else was broken) that does not hold, for whom, and by what one sees it."""

    invariant: str
    what: str
    account: int | None
    evidence: str

    def __str__(self) -> str:
        where = "" if self.account is None else f" (account {self.account})"
        return f"{self.invariant}{where}: {self.what}. {self.evidence}"
