"""How Redis learns an account: load with epochs and generations, and the adds that follow (credits/README.md, step 8)."""

import time
import uuid
from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db import connection, transaction
from django.utils import timezone

from accounts import key_state
from accounts.models import Account
from config.errors import TemporarilyUnavailable
from config.redis import PARTITIONS, each_by_shard
from credits import counters, ledger, ledger_rows
from credits.models import Command

log = structlog.get_logger(__name__)

LOAD_TIMEOUT_S = 5.0
LEASE_MS = 200
POLL_S = 0.01
COMMANDS_MAX = 1000


class LoadContended(TemporarilyUnavailable):
    """Other processes kept loading the same account; trying again is safe."""


def load_account(account_number: int, *, even_if_usable: bool = False) -> bool:
    """Makes the account usable in Redis; False when there is no such account.

    `even_if_usable` replaces a hash that counts by what the ledger says: the repair of a difference.

    Raises `LoadContended`, `RedisUnavailable`, `django.db.OperationalError`. Safe to run in any number of processes: one
    closes the account and loads it while the others wait, and should one die or two meet, the epoch in Postgres decides
    whose load counts. No row lock is held across a call to Redis.
    """
    deadline = time.monotonic() + LOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        epoch = Account.objects.filter(number=account_number).values_list("epoch", flat=True).first()
        if epoch is None:
            return False
        state = counters.close(
            account_number=account_number, epoch=epoch, even_if_usable=even_if_usable, lease_ms=LEASE_MS
        )
        if state == "USABLE":
            return True
        if state != "CLOSED":
            time.sleep(POLL_S)
            continue
        # Closed, so the journal gets nothing more of the old epoch. What it holds is booked before that epoch ends; later
        # it would be set aside.
        ledger.catch_up(account_number % PARTITIONS, now=timezone.now())
        raised = _raise_epoch(account_number, epoch)
        if raised is None:
            continue
        written = counters.write_loaded(
            account_number=account_number,
            epoch=raised.epoch,
            balance=raised.balance - raised.reserve,
            reserve=raised.reserve,
            drained_seq=raised.drained_seq,
            credit_seq=raised.credit_seq,
            spent_by_family=raised.spent_by_family,
        )
        if written and _switch_on(account_number, raised.epoch):
            log.info("account_loaded", account=account_number, epoch=raised.epoch, balance=raised.balance)
            return True
    raise LoadContended("This account is being loaded. Try again in a moment.", retry_after_s=1)


def _switch_on(account_number: int, epoch: int) -> bool:
    """Makes the load of that epoch usable, if it is still the last one that was begun.

    A later load may have raised the epoch, written, and lost its writing to a FLUSHALL before this one wrote: only the
    load of the epoch that stands in Postgres may count.
    """
    current = Account.objects.filter(number=account_number).values_list("epoch", flat=True).first()
    return current == epoch and counters.activate(account_number=account_number, epoch=epoch)


def spent_by_family(account_number: int, *, now: datetime) -> dict[uuid.UUID, int]:
    """What each family of keys with a monthly cap has spent since the month began; other families are not counted."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT k.family, sum(t.amount)::bigint FROM credits_credittransaction t"
            " JOIN accounts_apikey k ON k.public_id = t.api_key"
            " WHERE t.account_id = (SELECT id FROM accounts_account WHERE number = %s) AND t.type = 'debit'"
            " AND t.created_at >= %s AND k.family IN (SELECT capped.family FROM accounts_apikey capped"
            " WHERE capped.account_id = t.account_id AND capped.monthly_cap IS NOT NULL) GROUP BY 1",
            [account_number, now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)],
        )
        return dict(cursor.fetchall())


@dataclass(frozen=True, slots=True)
class Raised:
    """An account as a load takes it to Redis: `balance` less `reserve`, with every command up to `credit_seq`."""

    epoch: int
    balance: int
    reserve: int
    drained_seq: int
    credit_seq: int
    spent_by_family: dict[uuid.UUID, int]


@transaction.atomic
def _raise_epoch(account_number: int, epoch: int) -> Raised | None:
    """The account after the raise of its epoch; None when another load was first.

    The load takes the balance with every command so far, so decreases that are still open are booked here in full: no
    hold survives a load, and whatever a take of the ended epoch still brings is late and charges nothing.
    """
    account = ledger_rows.lock_accounts([account_number]).get(account_number)
    if account is None or account.epoch != epoch:
        return None
    account.epoch += 1
    now = timezone.now()
    ledger.prepare_load(account, now=now)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE accounts_account SET epoch = %s, reserve = %s WHERE id = %s",
            [account.epoch, account.reserve, account.id],
        )
    return Raised(
        account.epoch,
        account.balance,
        account.reserve,
        account.drained_seq,
        account.credit_seq,
        # Under the lock: what is spent from the reserve later is told by a note after this credit_seq.
        spent_by_family(account_number, now=now),
    )


def load_key(public_id: str) -> bool:
    """Makes the key and its account known to Redis; False when Postgres knows no such key. Raises as `load_account`."""
    known = key_state.read(public_id)
    if known is None:
        return False
    load_account(known.account_number)
    # The epoch may have been raised by the load: read both again, in one statement.
    current = key_state.read(public_id)
    if current is not None:
        key_state.write(current)
    return True


def apply_commands(account_id: uuid.UUID) -> bool:
    """Tells Redis the commands it has not applied yet, in order; True when none is left.

    Raises `RedisUnavailable`. A command that is delivered twice is applied once.
    """
    number = Account.objects.values_list("number", flat=True).get(pk=account_id)
    confirmed: list[int] = []
    open_commands = list(
        Command.objects.filter(account_id=account_id, confirmed_at=None).order_by("credit_seq")[:COMMANDS_MAX]
    )
    for command in open_commands:
        status, applied = _deliver(number, command)
        if status == "GAP":
            # `confirmed_at` is a hint, not proof: send again whatever Redis says it is missing.
            if not _deliver_missing(account_id, number, applied, command.credit_seq):
                break
        elif status == "LOAD":
            # A load takes the balance with every command so far.
            load_account(number)
            _, applied = _deliver(number, command)
            if applied < command.credit_seq:
                break
        confirmed.append(command.pk)
    Command.objects.filter(pk__in=confirmed).update(confirmed_at=timezone.now())
    return len(confirmed) == len(open_commands) < COMMANDS_MAX


def _deliver(number: int, command: Command) -> tuple[str, int]:
    """(status, last credit_seq applied) of sending one command."""
    if command.decrease_id is not None:
        status, _, applied = counters.apply_take(
            account_number=number,
            credit_seq=command.credit_seq,
            amount=command.amount,
            reserve=command.reserve,
            decrease=command.decrease_id,
        )
    elif command.kind == Command.Kind.NOTE:
        status, applied = counters.apply_note(
            account_number=number,
            credit_seq=command.credit_seq,
            reserve=command.reserve,
            family=command.family,
            spent=command.amount,
            at=command.created_at,
        )
    else:
        status, _, applied = counters.apply_add(
            account_number=number, credit_seq=command.credit_seq, amount=command.amount, reserve=command.reserve
        )
    return status, applied


def _deliver_missing(account_id: uuid.UUID, number: int, applied: int, up_to: int) -> bool:
    missing = Command.objects.filter(account_id=account_id, credit_seq__gt=applied, credit_seq__lte=up_to)
    return all(_deliver(number, command)[0] == "OK" for command in missing.order_by("credit_seq"))


def cover(account_number: int) -> None:
    """Gives Redis the account's whole reserve, for a call that falls short there. Safe to run in any number of processes.

    When another one has moved or spent it, Redis learns at least that. Raises `RedisUnavailable`, `LoadContended`,
    `django.db.OperationalError`.
    """
    ledger.move_reserve(account_number)
    apply_commands(Account.objects.values_list("pk", flat=True).get(number=account_number))


def apply_outstanding(*, limit: int = 1000) -> int:
    """Applies open commands of every account that has some; how many accounts were brought up to date."""
    open_commands = Command.objects.filter(confirmed_at=None).order_by("created_at")
    accounts = dict.fromkeys(open_commands.values_list("account_id", "account__number")[:limit])
    done = 0

    def apply(account: tuple[uuid.UUID, int]) -> None:
        nonlocal done
        try:
            done += apply_commands(account[0])
        except LoadContended as error:
            log.info("command_waits", account=account[1], reason=error.message)

    each_by_shard(accounts, partition=lambda account: account[1] % PARTITIONS, work=apply)
    return done
