"""Booking: how journal events become ledger entries, exactly once whoever delivers them and however often.

The rule (credits/README.md, step 6): of the account's current epoch, in the order of `seq`, above `drained_seq`:
book `min(debit, total - paid)`, `paid` being the greatest total this operation has been charged in the last 24 h; what
is not booked goes back to Redis by an `add`. Events of an earlier epoch are skipped when they are recorded and set
aside, uncharged, when they are not. The account row is locked throughout, so any number of drains may run.
"""

import gc
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from django.db import transaction

from config.errors import TemporarilyUnavailable
from credits import counters, events, grants, ledger_rows
from credits.amounts import reserve_target
from credits.entry_writer import ROWS_A_BLOCK, Entry, writing_entries
from credits.events import Event
from credits.ledger_rows import Batch, LockedAccount, OpenDecrease
from credits.models import Command, CreditTransaction, SetAside

log = structlog.get_logger(__name__)

CATCH_UP_PASSES_MAX = 1000
_USAGE = CreditTransaction.Kind.USAGE.value


class LedgerBehind(TemporarilyUnavailable):
    """503: the journal holds more than one call may wait for."""


@dataclass(frozen=True, slots=True)
class Booked:
    """What one pass over the journals did: events read, entries written, events set aside by reason.

    `late` names the accounts, with the epoch, whose events came from an epoch that has ended.
    """

    events: int
    entries: int
    set_aside: Mapping[str, int] = field(default_factory=dict)
    late: frozenset[tuple[int, int]] = frozenset()


@contextmanager
def _not_collecting() -> Iterator[None]:
    """A pass makes up to a million objects, none in a cycle, and drops them together; looking for cycles among them again
    and again took half of its time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@_not_collecting()
def drain_ledger(partitions: Sequence[int], *, limit: int = 1000, now: datetime) -> Booked:
    """One pass: reads up to `limit` events of each partition, books them in one transaction, then moves the cursors.

    Raises `RedisUnavailable` or `django.db.OperationalError`; repeating the pass is always safe.
    """
    read = counters.read_journal(partitions, consumer=counters.LEDGER, limit=limit)
    pages = [page for page in read if page.events]
    if not pages:
        counters.insist(read)
        return Booked(0, 0)
    readable: list[Event] = []
    unreadable: list[tuple[bytes, dict[bytes, bytes], str]] = []
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
    counters.insist(read)
    aside = Counter(str(reason) for _, _, reason in batch.set_aside)
    aside.update({str(SetAside.Reason.BAD): len(unreadable)})
    late = frozenset(
        (event.account_number, event.epoch) for _, event, reason in batch.set_aside if reason == SetAside.Reason.LATE
    )
    return Booked(len(readable) + len(unreadable), len(batch.entries), set_aside=aside, late=late)


def catch_up(partition: int, *, now: datetime) -> None:
    """Books what the partition's journal holds at this moment; what other accounts add meanwhile is not waited for.

    Raises `LedgerBehind` when that takes more than 1,000 passes.
    """
    end = counters.journal_end(partition)
    for _ in range(CATCH_UP_PASSES_MAX):
        if not end or counters.is_reached(counters.ledger_cursors([partition])[0], end):
            return
        if drain_ledger([partition], now=now).events == 0:
            return
    raise LedgerBehind("The ledger is behind. Nothing was charged; try again shortly.", retry_after_s=5)


@transaction.atomic
def book(charges: Sequence[Event], *, now: datetime) -> Batch:
    """Books charged events (each with a seq) in the order given. Delivering any of them again changes nothing."""
    batch = Batch()
    if not charges:
        return batch
    accounts = ledger_rows.lock_accounts({event.account_number for event in charges})
    paid = ledger_rows.paid_totals(accounts.values(), charges, now=now)
    open_grants = ledger_rows.open_grants_of([account.id for account in accounts.values()], now=now)
    recorded = ledger_rows.recorded_events(accounts, charges)
    batch.decreases = ledger_rows.decreases_by_id([event.operation for event in charges if event.take is not None])
    with writing_entries(at_most=len(charges)) as writer:
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
            if len(batch.entries) - batch.written >= ROWS_A_BLOCK:
                writer.write(batch.unwritten)
                batch.written = len(batch.entries)
        writer.write(batch.unwritten)
        batch.written = len(batch.entries)
    ledger_rows.write_batch(batch, accounts.values())
    return batch


def _book_event(
    batch: Batch,
    account: LockedAccount,
    event: Event,
    paid: dict[tuple[int, uuid.UUID], int],
    open_grants: list[grants.OpenGrant],
) -> None:
    operation = (event.account_number, event.operation)
    paid_before = paid.get(operation, 0)
    decrease = batch.decreases.get(event.operation) if event.take is not None else None
    if decrease is not None:
        booked = min(event.debit, _still_to_book(decrease, account, open_grants))
    else:
        booked = min(event.debit, max(0, event.total - paid_before))
    account.drained_seq = event.seq or account.drained_seq
    account.changed = True
    if booked > account.balance - account.reserve or (event.take is not None and decrease is None):
        # Redis never gives out more than it has been given, so this is a defect: charge nothing and make it visible.
        log.error("debit_not_bookable", account=account.number, epoch=event.epoch, seq=event.seq, debit=booked)
        batch.set_aside.append((account, event, SetAside.Reason.BAD))
        return
    if decrease is not None and booked:
        _book_decrease(batch, account, decrease, booked, open_grants, at=event.at, epoch=event.epoch, seq=event.seq)
    elif booked:
        account.balance -= booked
        batch.entries.append(
            Entry(
                account.id,
                _USAGE,
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
    paid[operation] = max(paid_before, event.total)
    if event.debit > booked:
        batch.tell(account, Command.Kind.ADD, event.debit - booked, epoch=event.epoch, seq=event.seq)


def _still_to_book(decrease: OpenDecrease, account: LockedAccount, open_grants: list[grants.OpenGrant]) -> int:
    """How much of a decrease can be booked now: its rest, what its grant has left, never more than the balance."""
    rest = min(decrease.target - decrease.booked, account.balance)
    if decrease.grant_id is None:
        return rest
    return min(rest, sum(grant.remaining for grant in open_grants if grant.id == decrease.grant_id))


def _book_decrease(
    batch: Batch,
    account: LockedAccount,
    decrease: OpenDecrease,
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
        Entry(
            account.id,
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


def book_from_reserve(batch: Batch, account: LockedAccount, decrease: OpenDecrease, *, now: datetime) -> int:
    """Books of a locked account's decrease what its reserve covers, without a word from Redis; what is still to be booked."""
    open_grants = ledger_rows.open_grants_of([account.id], now=now).get(account.id, [])
    booked = min(account.reserve, _still_to_book(decrease, account, open_grants))
    if booked:
        account.reserve -= booked
        _book_decrease(batch, account, decrease, booked, open_grants, at=now)
    return _still_to_book(decrease, account, open_grants)


def prepare_load(account: LockedAccount, *, now: datetime) -> None:
    """Brings a locked account into the form that Redis is going to load.

    What is open of its decreases is booked from the whole balance, for nothing of it is held then; of what remains the
    reserve gets its share anew.
    """
    account.reserve = 0
    _book_open_decreases(account, now=now)
    account.reserve = reserve_target(account.balance)


def _book_open_decreases(account: LockedAccount, *, now: datetime) -> None:
    batch = Batch()
    open_grants = ledger_rows.open_grants_of([account.id], now=now).get(account.id, [])
    for decrease in ledger_rows.open_decreases_of(account.id):
        booked = _still_to_book(decrease, account, open_grants)
        decrease.changed = True  # closed here, whatever is left: its grant is empty or its target met
        batch.decreases[decrease.id] = decrease
        if booked:
            _book_decrease(batch, account, decrease, booked, open_grants, at=now)
    account.changed = True
    ledger_rows.write_batch(batch, [account])


def _set_aside_unreadable(unreadable: list[tuple[bytes, dict[bytes, bytes], str]]) -> None:
    """Keeps what could not be read. Delivered again it is found by its stream id and not kept twice."""
    for stream_id, fields, reason in unreadable:
        event = {"stream_id": stream_id.decode("ascii", "replace"), "fields": events.as_json(fields), "error": reason}
        log.error("journal_event_unreadable", stream_id=event["stream_id"], error=reason)
        if not SetAside.objects.filter(
            account=None, event__stream_id=event["stream_id"], event__fields=event["fields"]
        ).exists():
            SetAside.objects.create(account=None, reason=SetAside.Reason.BAD, event=event)


def record_increase(
    *, account: LockedAccount, operation: uuid.UUID, kind: str, amount: int, reason: str, actor: str
) -> CreditTransaction:
    """Writes the ledger entry, the `add` and the account's new balance of an increase.

    `operation` is the grant that stands already, of a refund the operation that it reverses.

    A part of it lets the reserve grow; the `add` carries the rest, at least 1. The caller holds the account's row lock.
    """
    account.balance += amount
    reserved = max(0, min(reserve_target(account.balance) - account.reserve, amount - 1))
    account.reserve += reserved
    batch = Batch()
    batch.tell(account, Command.Kind.ADD, amount - reserved)
    entry = CreditTransaction.objects.create(
        account_id=account.id,
        type=CreditTransaction.Type.CREDIT,
        kind=kind,
        amount=amount,
        reason=reason,
        operation=operation,
        credit_seq=account.credit_seq,
        actor=actor,
    )
    ledger_rows.write_batch(batch, [account])
    return entry


@transaction.atomic
def move_reserve(account_number: int) -> bool:
    """Hands the whole reserve to Redis, by an `add` that is still to be applied; False when there is none."""
    account = ledger_rows.lock_accounts([account_number]).get(account_number)
    if account is None or account.reserve == 0:
        return False
    moved, account.reserve = account.reserve, 0
    batch = Batch()
    batch.tell(account, Command.Kind.ADD, moved)
    ledger_rows.write_batch(batch, [account])
    log.info("reserve_moved", account=account_number, amount=moved)
    return True
