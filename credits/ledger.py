"""Booking: how journal events become ledger entries, exactly once whoever delivers them and however often.

The rule (credits/README.md, step 5): of the account's current epoch, in the order of `seq`, above `drained_seq`:
book `min(debit, total - paid)`, `paid` being the greatest total this operation has been charged in the last 24 h; what
is not booked goes back to Redis by an `add`. Events of an earlier epoch are skipped when they are recorded and set
aside, uncharged, when they are not. The account row is locked throughout, so any number of drains may run.
"""

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection, transaction

from credits import counters, events, grants
from credits.events import Event
from credits.models import Command, CreditTransaction, SetAside

log = structlog.get_logger(__name__)

PAID_WINDOW = timedelta(hours=24)


@dataclass(slots=True)
class LockedAccount:
    """An account under its row lock, and what this transaction does to it."""

    id: uuid.UUID
    number: int
    balance: int
    epoch: int
    drained_seq: int
    credit_seq: int
    changed: bool = False


@dataclass(slots=True)
class _OpenDecrease:
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
class _Entry:
    """A debit to be written. `charged_total`, `epoch` and `seq` are those of its event, if it has one."""

    account: LockedAccount
    kind: str
    booked: int
    draws: list[tuple[uuid.UUID, int]]
    operation: uuid.UUID
    created_at: datetime
    charged_total: int | None = None
    epoch: int | None = None
    seq: int | None = None
    key_id: str = ""
    reason: str = ""
    actor: str = ""


@dataclass(slots=True)
class _Batch:
    """What one transaction is going to write."""

    entries: list[_Entry] = field(default_factory=list)
    adds: list[tuple[LockedAccount, int, int, Event]] = field(default_factory=list)  # account, credit_seq, amount
    set_aside: list[tuple[LockedAccount | None, Event, str]] = field(default_factory=list)
    decreases: dict[uuid.UUID, _OpenDecrease] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Booked:
    """What one pass over the journals did: events read and entries written; accounts that got an `add`."""

    events: int
    entries: int
    accounts_with_adds: frozenset[uuid.UUID]


def drain_ledger(partitions: Sequence[int], *, limit: int = 1000, now: datetime) -> Booked:
    """One pass: reads up to `limit` events of each partition, books them in one transaction, then moves the cursors.

    Raises `RedisUnavailable` or `django.db.OperationalError`; repeating the pass is always safe.
    """
    pages = [page for page in counters.read_journal(partitions, consumer=counters.LEDGER, limit=limit) if page.events]
    if not pages:
        return Booked(0, 0, frozenset())
    readable: list[Event] = []
    unreadable: list[tuple[bytes, list[bytes], str]] = []
    for page in pages:
        for stream_id, fields in page.events:
            try:
                readable.append(events.parse(stream_id, fields))
            except events.BadEvent as error:
                unreadable.append((stream_id, fields, str(error)))
    batch = book([event for event in readable if event.seq is not None], now=now)
    _set_aside_unreadable(unreadable)
    counters.move_cursors(
        [(page.partition, page.cursor, page.events[-1][0]) for page in pages], consumer=counters.LEDGER
    )
    return Booked(
        events=len(readable) + len(unreadable),
        entries=len(batch.entries),
        accounts_with_adds=frozenset(account.id for account, _, _, _ in batch.adds),
    )


@transaction.atomic
def book(charges: Sequence[Event], *, now: datetime) -> _Batch:
    """Books charged events (each with a seq) in the order given. Delivering any of them again changes nothing."""
    batch = _Batch()
    if not charges:
        return batch
    accounts = lock_accounts({event.account_number for event in charges})
    paid = _paid_totals(accounts.values(), charges)
    open_grants = _open_grants([account.id for account in accounts.values()], now=now)
    recorded = _recorded(accounts, charges)
    batch.decreases = _decreases([event.operation for event in charges if event.take is not None])
    for event in charges:
        account = accounts.get(event.account_number)
        if account is None or event.epoch > account.epoch:
            batch.set_aside.append((account, event, SetAside.Reason.BAD))
        elif event.epoch < account.epoch:
            if (account.id, event.epoch, event.seq) not in recorded:
                recorded.add((account.id, event.epoch, event.seq))
                batch.set_aside.append((account, event, SetAside.Reason.LATE))
        elif event.seq is not None and event.seq > account.drained_seq:
            _book_event(batch, account, event, paid, open_grants.get(account.id, []))
    _write(batch, accounts.values())
    return batch


def _book_event(
    batch: _Batch,
    account: LockedAccount,
    event: Event,
    paid: dict[tuple[uuid.UUID, uuid.UUID], int],
    open_grants: list[grants.OpenGrant],
) -> None:
    operation = (account.id, event.operation)
    decrease = batch.decreases.get(event.operation) if event.take is not None else None
    if decrease is not None:
        booked = min(event.debit, _still_to_book(decrease, account, open_grants))
    else:
        booked = min(event.debit, max(0, event.total - paid.get(operation, 0)))
    account.drained_seq = event.seq or account.drained_seq
    account.changed = True
    if booked > account.balance or (event.take is not None and decrease is None):
        # Redis never gives out more than the balance, so this is a defect: charge nothing and make it visible.
        log.error("debit_not_bookable", account=account.number, epoch=event.epoch, seq=event.seq, debit=booked)
        batch.set_aside.append((account, event, SetAside.Reason.BAD))
        return
    if decrease is not None and booked:
        _book_decrease(batch, account, decrease, booked, open_grants, at=event.at, epoch=event.epoch, seq=event.seq)
    elif booked:
        account.balance -= booked
        batch.entries.append(
            _Entry(
                account,
                CreditTransaction.Kind.USAGE.value,
                booked,
                grants.draw(open_grants, booked),
                event.operation,
                event.at,
                charged_total=event.total,
                epoch=event.epoch,
                seq=event.seq,
                key_id=event.key_id,
            )
        )
    else:
        batch.set_aside.append((account, event, SetAside.Reason.PAID))
    paid[operation] = max(paid.get(operation, 0), event.total)
    if event.debit > booked:
        account.credit_seq += 1
        batch.adds.append((account, account.credit_seq, event.debit - booked, event))


def _still_to_book(decrease: _OpenDecrease, account: LockedAccount, open_grants: list[grants.OpenGrant]) -> int:
    """How much of a decrease can be booked now: its rest, what its grant has left, never more than the balance."""
    rest = min(decrease.target - decrease.booked, account.balance)
    if decrease.grant_id is None:
        return rest
    return min(rest, sum(grant.remaining for grant in open_grants if grant.id == decrease.grant_id))


def _book_decrease(
    batch: _Batch,
    account: LockedAccount,
    decrease: _OpenDecrease,
    booked: int,
    open_grants: list[grants.OpenGrant],
    *,
    at: datetime,
    epoch: int | None = None,
    seq: int | None = None,
) -> None:
    """Books a part of a decrease: from its own grant, or in burn-down order where it has none."""
    paying = [grant for grant in open_grants if decrease.grant_id in (None, grant.id)]
    account.balance -= booked
    account.changed = True
    decrease.booked += booked
    decrease.changed = True
    batch.decreases[decrease.id] = decrease
    batch.entries.append(
        _Entry(
            account,
            decrease.kind,
            booked,
            grants.draw(paying, booked),
            decrease.id,
            at,
            charged_total=decrease.booked,
            epoch=epoch,
            seq=seq,
            reason=decrease.reason,
            actor=decrease.actor,
        )
    )


def book_open_decreases(account: LockedAccount, *, now: datetime) -> None:
    """Books what is open of every decrease of a locked account; part of its load, when nothing of it is held."""
    batch = _Batch()
    open_grants = _open_grants([account.id], now=now).get(account.id, [])
    for decrease in _decreases_of(account.id):
        booked = _still_to_book(decrease, account, open_grants)
        decrease.changed = True  # closed here, whatever is left: its grant is empty or its target met
        batch.decreases[decrease.id] = decrease
        if booked:
            _book_decrease(batch, account, decrease, booked, open_grants, at=now)
    _write(batch, [account])


def _decreases_of(account_id: uuid.UUID) -> list[_OpenDecrease]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, grant_id, kind, target, booked, reason, actor FROM credits_decrease"
            " WHERE account_id = %s AND closed_at IS NULL ORDER BY created_at, id",
            [account_id],
        )
        return [_OpenDecrease(*row) for row in cursor.fetchall()]


def _decreases(ids: list[uuid.UUID]) -> dict[uuid.UUID, _OpenDecrease]:
    """The decreases with these ids, closed ones too: what a take brings for them is returned."""
    if not ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, grant_id, kind, target, booked, reason, actor FROM credits_decrease WHERE id = ANY(%s)", [ids]
        )
        return {row[0]: _OpenDecrease(*row) for row in cursor.fetchall()}


def lock_accounts(numbers: Iterable[int]) -> dict[int, LockedAccount]:
    """Locks these accounts' rows in the order of their ids, the order every transaction keeps."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, number, balance, epoch, drained_seq, credit_seq FROM accounts_account"
            " WHERE number = ANY(%s) ORDER BY id FOR NO KEY UPDATE",
            [list(numbers)],
        )
        return {row[1]: LockedAccount(*row) for row in cursor.fetchall()}


def _paid_totals(accounts: Iterable[LockedAccount], charges: Sequence[Event]) -> dict[tuple[uuid.UUID, uuid.UUID], int]:
    """Greatest total charged so far per (account, operation), looking back 24 h from the oldest event."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT account_id, operation, max(charged_total) FROM credits_credittransaction"
            " WHERE account_id = ANY(%s) AND operation = ANY(%s) AND type = 'debit' AND created_at > %s GROUP BY 1, 2",
            [
                [account.id for account in accounts],
                list({event.operation for event in charges}),
                min(event.at for event in charges) - PAID_WINDOW,
            ],
        )
        return {(account_id, operation): total for account_id, operation, total in cursor.fetchall()}


def _recorded(accounts: dict[int, LockedAccount], charges: Sequence[Event]) -> set[tuple[uuid.UUID, int, int | None]]:
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


def _open_grants(account_ids: list[uuid.UUID], *, now: datetime) -> dict[uuid.UUID, list[grants.OpenGrant]]:
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


def _write(batch: _Batch, accounts: Iterable[LockedAccount]) -> None:
    changed = [account for account in accounts if account.changed]
    with connection.cursor() as cursor:
        if batch.entries:
            _write_entries(cursor, batch.entries)
        if batch.adds:
            cursor.executemany(
                "INSERT INTO credits_command (account_id, credit_seq, kind, amount, epoch, seq, created_at)"
                " VALUES (%s, %s, 'add', %s, %s, %s, now())",
                [
                    (account.id, credit_seq, amount, event.epoch, event.seq)
                    for account, credit_seq, amount, event in batch.adds
                ],
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
                "UPDATE accounts_account a SET balance = t.balance, drained_seq = t.drained_seq,"
                " credit_seq = t.credit_seq"
                " FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[])"
                " AS t(id, balance, drained_seq, credit_seq) WHERE a.id = t.id",
                [
                    [account.id for account in changed],
                    [account.balance for account in changed],
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


def _write_entries(cursor: Any, entries: list[_Entry]) -> None:
    """Entries and draws by COPY under ids drawn beforehand, then the grants' remainders in one statement."""
    cursor.execute(
        "SELECT nextval(pg_get_serial_sequence('credits_credittransaction', 'id')) FROM generate_series(1, %s)",
        [len(entries)],
    )
    ids = [row[0] for row in cursor.fetchall()]
    with cursor.copy(
        "COPY credits_credittransaction (id, account_id, type, kind, amount, reason, operation, charged_total,"
        " epoch, seq, api_key, actor, created_at) FROM STDIN"
    ) as copy:
        for entry_id, entry in zip(ids, entries, strict=True):
            copy.write_row(
                (
                    entry_id,
                    entry.account.id,
                    CreditTransaction.Type.DEBIT.value,
                    entry.kind,
                    entry.booked,
                    entry.reason,
                    entry.operation,
                    entry.charged_total,
                    entry.epoch,
                    entry.seq,
                    entry.key_id,
                    entry.actor,
                    entry.created_at,
                )
            )
    drawn: dict[uuid.UUID, int] = {}
    with cursor.copy("COPY credits_grantdraw (entry_id, grant_id, amount) FROM STDIN") as copy:
        for entry_id, entry in zip(ids, entries, strict=True):
            for grant_id, part in entry.draws:
                drawn[grant_id] = drawn.get(grant_id, 0) + part
                copy.write_row((entry_id, grant_id, part))
    cursor.execute(
        "UPDATE credits_creditgrant g SET remaining = g.remaining - t.amount"
        " FROM unnest(%s::uuid[], %s::bigint[]) AS t(id, amount) WHERE g.id = t.id",
        [list(drawn), list(drawn.values())],
    )


def _set_aside_unreadable(unreadable: list[tuple[bytes, list[bytes], str]]) -> None:
    """Keeps what could not be read. Delivered again it is found by its stream id and not kept twice."""
    for stream_id, fields, reason in unreadable:
        event = {"stream_id": stream_id.decode("ascii", "replace"), "fields": events.as_json(fields), "error": reason}
        log.error("journal_event_unreadable", stream_id=event["stream_id"], error=reason)
        if not SetAside.objects.filter(
            account=None, event__stream_id=event["stream_id"], event__fields=event["fields"]
        ).exists():
            SetAside.objects.create(account=None, reason=SetAside.Reason.BAD, event=event)


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


def record_increase(
    *, account: LockedAccount, grant_id: uuid.UUID, kind: str, amount: int, reason: str, actor: str
) -> CreditTransaction:
    """Writes the ledger entry, the `add` and the account's new balance of an increase whose grant stands already.

    The caller holds the account's row lock.
    """
    account.balance += amount
    account.credit_seq += 1
    entry = CreditTransaction.objects.create(
        account_id=account.id,
        type=CreditTransaction.Type.CREDIT,
        kind=kind,
        amount=amount,
        reason=reason,
        operation=grant_id,
        credit_seq=account.credit_seq,
        actor=actor,
    )
    Command.objects.create(account_id=account.id, credit_seq=account.credit_seq, kind=Command.Kind.ADD, amount=amount)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE accounts_account SET balance = %s, credit_seq = %s WHERE id = %s",
            [account.balance, account.credit_seq, account.id],
        )
    return entry
