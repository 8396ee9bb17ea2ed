"""The rows of the ledger: what a booking reads under the accounts' locks, and how it writes many entries at once."""

import json
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple, dataclass, field
from datetime import datetime, timedelta

from django.db import connection

from credits import grants
from credits.entry_writer import Entry, writing_entries
from credits.events import Event

PAID_WINDOW = timedelta(hours=24)


@dataclass(slots=True)
class LockedAccount:
    """An account under its row lock, and what this transaction does to it."""

    id: uuid.UUID
    number: int
    balance: int
    reserve: int
    epoch: int
    drained_seq: int
    credit_seq: int
    changed: bool = False


@dataclass(slots=True)
class OpenDecrease:
    """A decrease under its account's lock. `booked` goes up as it is booked."""

    id: uuid.UUID
    grant_id: uuid.UUID | None
    kind: str
    target: int
    booked: int
    reason: str
    actor: str
    changed: bool = False


@dataclass(frozen=True, slots=True)
class NewCommand:
    """A command to be written; `models.Command` says what its parts mean."""

    account_id: uuid.UUID
    credit_seq: int
    kind: str
    amount: int
    reserve: int
    epoch: int | None = None
    seq: int | None = None
    family: uuid.UUID | None = None
    decrease_id: uuid.UUID | None = None


@dataclass(slots=True)
class Batch:
    """What one transaction is going to write; of the `entries`, so many are `written` already."""

    entries: list[Entry] = field(default_factory=list)
    written: int = 0
    commands: list[NewCommand] = field(default_factory=list)
    set_aside: list[tuple[LockedAccount | None, Event, str]] = field(default_factory=list)
    decreases: dict[uuid.UUID, OpenDecrease] = field(default_factory=dict)

    def tell(
        self,
        account: LockedAccount,
        kind: str,
        amount: int,
        *,
        epoch: int | None = None,
        seq: int | None = None,
        family: uuid.UUID | None = None,
        decrease_id: uuid.UUID | None = None,
    ) -> None:
        """Adds the account's next command. What it does to the reserve must have been done already."""
        account.credit_seq += 1
        account.changed = True
        self.commands.append(
            NewCommand(account.id, account.credit_seq, kind, amount, account.reserve, epoch, seq, family, decrease_id)
        )

    @property
    def unwritten(self) -> list[Entry]:
        return self.entries[self.written :]


def open_decreases_of(account_id: uuid.UUID) -> list[OpenDecrease]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, grant_id, kind, target, booked, reason, actor FROM credits_decrease"
            " WHERE account_id = %s AND closed_at IS NULL ORDER BY created_at, id",
            [account_id],
        )
        return [OpenDecrease(*row) for row in cursor.fetchall()]


def decreases_by_id(ids: list[uuid.UUID]) -> dict[uuid.UUID, OpenDecrease]:
    """The decreases with these ids, closed ones too: what a take brings for them is returned."""
    if not ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, grant_id, kind, target, booked, reason, actor FROM credits_decrease WHERE id = ANY(%s)", [ids]
        )
        return {row[0]: OpenDecrease(*row) for row in cursor.fetchall()}


def lock_accounts(numbers: Iterable[int]) -> dict[int, LockedAccount]:
    """Locks these accounts' rows in the order of their ids, the order every transaction keeps."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, number, balance, reserve, epoch, drained_seq, credit_seq FROM accounts_account"
            " WHERE number = ANY(%s) ORDER BY id FOR NO KEY UPDATE",
            [list(numbers)],
        )
        return {row[1]: LockedAccount(*row) for row in cursor.fetchall()}


def paid_totals(
    accounts: Collection[LockedAccount], charges: Sequence[Event], *, now: datetime
) -> dict[tuple[int, uuid.UUID], int]:
    """Greatest total charged so far per (account number, operation), looking back 24 h from the oldest event.

    Or from now, should the clock of Redis be ahead: what the reserve has paid is dated by ours.
    """
    known = {account.number: account.id.hex for account in accounts}
    asked = [event for event in charges if event.account_number in known]
    if not asked:
        return {}
    with connection.cursor() as cursor:
        # Pairs to be looked up one by one in the index, however many entries an account has.
        cursor.execute(
            "SELECT t.account_id, t.operation, max(t.charged_total)"
            " FROM unnest(%s::uuid[], %s::uuid[]) AS asked(account_id, operation)"
            " JOIN credits_credittransaction t USING (account_id, operation)"
            " WHERE t.type = 'debit' AND t.created_at > %s GROUP BY 1, 2",
            [
                "{" + ",".join([known[event.account_number] for event in asked]) + "}",
                "{" + ",".join([event.operation.hex for event in asked]) + "}",
                min(now, min(event.at for event in asked)) - PAID_WINDOW,
            ],
        )
        numbers = {account.id: account.number for account in accounts}
        return {(numbers[account_id], operation): total for account_id, operation, total in cursor.fetchall()}


def paid_total(account_number: int, operation: uuid.UUID, *, now: datetime) -> int:
    """Greatest total that an operation of this account was charged in the last 24 h; 0 for none."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(max(charged_total), 0) FROM credits_credittransaction"
            " WHERE account_id = (SELECT id FROM accounts_account WHERE number = %s) AND operation = %s"
            " AND type = 'debit' AND created_at > %s",
            [account_number, operation, now - PAID_WINDOW],
        )
        return int(cursor.fetchone()[0])


def recorded_events(
    accounts: dict[int, LockedAccount], charges: Sequence[Event]
) -> set[tuple[uuid.UUID, int, int | None]]:
    """Which events of earlier epochs stand in the ledger or were set aside already."""
    late = [
        (accounts[event.account_number].id, event.epoch, event.seq)
        for event in charges
        if event.account_number in accounts and event.epoch < accounts[event.account_number].epoch
    ]
    if not late:
        return set()
    ids, epochs, seqs = (list(column) for column in zip(*late, strict=True))
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH late AS (SELECT * FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[]) AS t(account_id, epoch, seq))"
            " SELECT account_id, epoch, seq FROM late JOIN credits_credittransaction USING (account_id, epoch, seq)"
            " UNION SELECT account_id, epoch, seq FROM late JOIN credits_setaside USING (account_id, epoch, seq)",
            [ids, epochs, seqs],
        )
        return set(cursor.fetchall())


def open_grants_of(account_ids: list[uuid.UUID], *, now: datetime) -> dict[uuid.UUID, list[grants.OpenGrant]]:
    """Grants that can pay, per account, in burn-down order. The account's row lock guards them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT account_id, id, kind, remaining, priority, expires_at, effective_at, created_at,"
            " ending_at IS NOT NULL FROM credits_creditgrant WHERE account_id = ANY(%s) AND remaining > 0",
            [account_ids],
        )
        found: dict[uuid.UUID, list[grants.OpenGrant]] = {}
        for account_id, *columns in cursor.fetchall():
            found.setdefault(account_id, []).append(grants.OpenGrant(*columns))
    # A booked grant is in the balance, so it must be able to pay even if the clock that dated it is ahead of ours.
    return {
        account_id: sorted(grants.burn_down_order(rows), key=lambda grant: grant.effective_at > now)
        for account_id, rows in found.items()
    }


def write_batch(batch: Batch, accounts: Iterable[LockedAccount]) -> None:
    changed = [account for account in accounts if account.changed]
    if batch.unwritten:
        with writing_entries(at_most=len(batch.unwritten)) as writer:
            writer.write(batch.unwritten)
    with connection.cursor() as cursor:
        if batch.commands:
            cursor.executemany(
                "INSERT INTO credits_command"
                " (account_id, credit_seq, kind, amount, reserve, epoch, seq, family, decrease_id, created_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, now())",
                [astuple(command) for command in batch.commands],
            )
        if batch.set_aside:
            cursor.executemany(
                "INSERT INTO credits_setaside (account_id, epoch, seq, reason, debit, event, created_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, now()) ON CONFLICT DO NOTHING",
                [
                    (account.id if account else None, event.epoch, event.seq, reason, event.debit, _event_json(event))
                    for account, event, reason in batch.set_aside
                ],
            )
        if changed:
            cursor.execute(
                "UPDATE accounts_account a SET balance = t.balance, reserve = t.reserve, drained_seq = t.drained_seq,"
                " credit_seq = t.credit_seq"
                " FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
                " AS t(id, balance, reserve, drained_seq, credit_seq) WHERE a.id = t.id",
                [
                    [account.id for account in changed],
                    [account.balance for account in changed],
                    [account.reserve for account in changed],
                    [account.drained_seq for account in changed],
                    [account.credit_seq for account in changed],
                ],
            )
        if moved := [decrease for decrease in batch.decreases.values() if decrease.changed]:
            cursor.execute(
                "UPDATE credits_decrease d SET booked = t.booked, closed_at = CASE WHEN t.booked = d.target"
                " OR d.grant_id IS NULL AND a.balance = 0"
                " OR EXISTS (SELECT FROM credits_creditgrant g WHERE g.id = d.grant_id AND g.remaining = 0)"
                " THEN now() END"
                " FROM unnest(%s::uuid[], %s::bigint[]) AS t(id, booked), accounts_account a"
                " WHERE d.id = t.id AND a.id = d.account_id",
                [[decrease.id for decrease in moved], [decrease.booked for decrease in moved]],
            )


def _event_json(event: Event) -> str:
    return json.dumps(
        {
            "stream_id": event.stream_id,
            "account": event.account_number,
            "epoch": event.epoch,
            "seq": event.seq,
            "debit": event.debit,
            "total": event.total,
            "operation": str(event.operation),
            "key": event.key_id,
            "usage": event.usage,
        }
    )
