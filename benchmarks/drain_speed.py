"""P6: how fast the drain turns journal events into ledger entries, against the database's own bulk load of the same rows."""

import time
import uuid
from collections.abc import Callable

from benchmarks.figures import Finding, median_ratio, spread
from benchmarks.installation import Installation
from benchmarks.recorded import MeteredCommands, record
from benchmarks.subjects import CREDITS, make_subject

GOAL_RATIO, GOAL_RATE = 0.3, 20_000
ROUNDS = 7
EVENTS = 40_000
ACCOUNTS = 256
GRANTS = 4
PIPELINED = 500

_TABLES = {
    "credits_credittransaction": "id, account_id, type, kind, amount, reason, operation, charged_total, epoch, seq, credit_seq,"
    " api_key, actor, created_at",
    "credits_grantdraw": "id, entry_id, grant_id, amount",
}


def measure(installation: Installation, say: Callable[[str], None]) -> Finding:
    """Events a second from the journals into ledger and draws, and the same rows by COPY into tables like those."""
    from django.db import connection

    from credits import drain

    subject = make_subject(installation)
    numbers = _accounts()
    drain.drain_once()
    with connection.cursor() as cursor:
        for table in _TABLES:
            cursor.execute(f"DROP TABLE IF EXISTS bench_{table}")
            cursor.execute(f"CREATE TABLE bench_{table} (LIKE {table} INCLUDING ALL)")
    drained: list[float] = []
    copied: list[float] = []
    for number in range(ROUNDS + 1):
        commands = record(subject)  # anew: a settle is good until its hold's deadline
        drain.drain_once()
        _settle_many(commands, numbers)
        first = _last_entry()
        booked, drain_s = _drain_ledger()
        if booked != EVENTS:
            raise RuntimeError(f"{EVENTS} events were settled, {booked} entries booked")
        copy_s = _copy_same_rows(after=first)
        drain.drain_once()
        if number:  # the first round warms connections, scripts and caches
            drained.append(EVENTS / drain_s)
            copied.append(EVENTS / copy_s)
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {', '.join(f'bench_{table}' for table in _TABLES)}")
    say(f"P6: {ROUNDS} rounds of {EVENTS:,} events done")
    return Finding(
        "P6",
        "the drain against COPY of the same rows",
        ["", "events/s, median (lowest–highest round)", "ratio", "goal"],
        [
            ["COPY", spread(copied), "1.00", ""],
            ["drain", spread(drained), f"{median_ratio(drained, copied):.2f}", f"≥ {GOAL_RATIO}, ≥ {GOAL_RATE:,}/s"],
        ],
        f"{EVENTS:,} debits a round on {ACCOUNTS} accounts with {GRANTS} open grants each, made by settle, then drained by one "
        "process (`ledger.drain_ledger`: read, booked, drawn from grants, cursors moved) and nothing else. COPY writes the "
        "same entries and draws, already in memory as text, into tables with the same columns, checks and indexes. "
        f"{ROUNDS} rounds in turns; Postgres and Redis with the settings of `make up`.",
    )


def _accounts() -> list[int]:
    """The numbers of accounts of this run, each with a few grants to draw from."""
    from django.utils import timezone

    from accounts.services import create_customer
    from credits import loading
    from credits.services import top_up

    numbers = []
    for _ in range(ACCOUNTS):
        name = uuid.uuid4().hex
        account = create_customer(email=f"{name}@example.com", name=f"Bench {name}")
        for _ in range(GRANTS):
            top_up(account=account, amount=CREDITS // 10**4, now=timezone.now())
        loading.load_account(account.number)
        numbers.append(account.number)
    return numbers


def _settle_many(commands: MeteredCommands, numbers: list[int]) -> None:
    """Charges `EVENTS` operations in turns on the accounts, each held and settled in one step."""
    from config.redis import route
    from config.redis_routes import Command

    for start in range(0, EVENTS, PIPELINED):
        calls = []
        for place in range(start, start + PIPELINED):
            words = commands.settle_for(numbers[place % len(numbers)])
            calls.append(Command(words[3].decode(), tuple(words)))
        for reply in route(quick=False).call_many(calls):
            if isinstance(reply, Exception) or reply[0] != b"OK":
                raise RuntimeError(f"settle answered {reply!r}")


def _drain_ledger() -> tuple[int, float]:
    """(entries booked, seconds) of draining all journals."""
    from django.utils import timezone

    from credits import drain, ledger

    entries, begun = 0, time.perf_counter()
    while (booked := ledger.drain_ledger(drain.ALL_PARTITIONS, limit=drain.EVENTS_PER_PASS, now=timezone.now())).events:
        entries += booked.entries
    return entries, time.perf_counter() - begun


def _last_entry() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(max(id), 0) FROM credits_credittransaction")
        return int(cursor.fetchone()[0])


def _copy_same_rows(*, after: int) -> float:
    """Seconds to COPY the entries after that id, and their draws, into tables like the ledger's."""
    from django.db import connection, transaction

    first = {"credits_credittransaction": "id", "credits_grantdraw": "entry_id"}
    with connection.cursor() as cursor:
        texts = {}
        for table, columns in _TABLES.items():
            with cursor.copy(f"COPY (SELECT {columns} FROM {table} WHERE {first[table]} > {after}) TO STDOUT") as copy:
                texts[table] = b"".join(bytes(block) for block in copy)
        begun = time.perf_counter()
        with transaction.atomic():
            for table, columns in _TABLES.items():
                with cursor.copy(f"COPY bench_{table} ({columns}) FROM STDIN") as copy:
                    copy.write(texts[table])
        return time.perf_counter() - begun
