"""Proves the balances: ledger, accounts and grants against each other (C1), and Redis against the ledger (C2).

Each account is compared at a recorded cut: Redis is read first (balance, seq, applied, in one script), then one Postgres
statement computes what Redis must have held at that seq and that applied, whatever was booked since.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db import connection

from accounts.models import Account
from credits import counters, drain, loading

log = structlog.get_logger(__name__)

CHUNK = 500
TRIES_MAX = 5
DIFFERENCES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Difference:
    """Two figures of one account that should be equal. `repairable`: a load from the ledger makes Redis right again."""

    account_number: int
    what: str
    expected: int
    found: int
    repairable: bool = False


@dataclass(frozen=True, slots=True)
class Verification:
    """A finished comparison. `behind` accounts have debits the drain has not booked, so Redis was not compared."""

    at: datetime
    accounts: int
    live_accounts: int
    behind: list[int]
    differences: list[Difference]
    repaired: list[int]

    @property
    def ok(self) -> bool:
        return not self.differences and not self.behind


_LEDGER_SQL = """
SELECT a.number, a.balance, a.reserve,
       (SELECT coalesce(sum(CASE t.type WHEN 'credit' THEN t.amount ELSE -t.amount END), 0)::bigint
          FROM credits_credittransaction t WHERE t.account_id = a.id),
       (SELECT coalesce(sum(g.remaining), 0)::bigint FROM credits_creditgrant g WHERE g.account_id = a.id),
       (SELECT count(*) FROM credits_credittransaction t
         WHERE t.account_id = a.id AND t.type = 'debit'
           AND t.amount <> (SELECT coalesce(sum(d.amount), 0) FROM credits_grantdraw d WHERE d.entry_id = t.id))
  FROM accounts_account a WHERE a.number = ANY(%s) ORDER BY a.number
"""

# A grant has what it was given and what returned to it, less its draws; a refund is the sum of what it returned, and no draw
# is returned twice.
_GRANTS_SQL = """
SELECT a.number,
       (SELECT count(*) FROM credits_creditgrant g WHERE g.account_id = a.id AND g.remaining <>
               CASE WHEN g.entered_at IS NULL THEN 0 ELSE g.amount END
               - (SELECT coalesce(sum(d.amount), 0) FROM credits_grantdraw d WHERE d.grant_id = g.id)
               + (SELECT coalesce(sum(r.amount), 0) FROM credits_grantreturn r
                    JOIN credits_grantdraw d ON d.id = r.draw_id WHERE r.grant_id = g.id AND d.grant_id = g.id)),
       (SELECT count(*) FROM credits_refund f JOIN credits_credittransaction t ON t.id = f.entry_id
         WHERE f.account_id = a.id AND (t.type <> 'credit' OR t.amount <> f.amount OR f.amount <>
               (SELECT coalesce(sum(r.amount), 0) FROM credits_grantreturn r WHERE r.refund_id = f.id))),
       (SELECT count(*) FROM (SELECT FROM credits_refund f JOIN credits_grantreturn r ON r.refund_id = f.id
          JOIN credits_grantdraw d ON d.id = r.draw_id WHERE f.account_id = a.id
         GROUP BY d.id, d.amount HAVING sum(r.amount) > d.amount) AS overdrawn)
  FROM accounts_account a WHERE a.number = ANY(%s) ORDER BY a.number
"""
_GRANT_CHECKS = (
    "grants whose rest is not what was given and returned less what was drawn",
    "refunds whose parts do not add up",
    "draws of which more was returned than drawn",
)

# What Redis must hold at (epoch, seq, applied): the balance without the reserve, plus what was booked after the cut, minus
# the adds it had not applied (those that return a part of a debit after the cut are no part of it), minus debits set aside
# without return. What Redis shows as the reserve is compared when it has applied all commands.
_LIVE_SQL = """
SELECT cut.number, a.epoch = cut.epoch, a.drained_seq >= cut.seq,
       CASE WHEN a.credit_seq = cut.applied THEN a.reserve END,
       (a.balance - a.reserve
        + (SELECT coalesce(sum(t.amount), 0) FROM credits_credittransaction t
            WHERE t.account_id = a.id AND t.epoch = cut.epoch AND t.seq > cut.seq)
        - (SELECT coalesce(sum(c.amount), 0) FROM credits_command c
            WHERE c.account_id = a.id AND c.kind = 'add' AND c.credit_seq > cut.applied
              AND NOT (c.seq IS NOT NULL AND c.epoch = cut.epoch AND c.seq > cut.seq))
        - (SELECT coalesce(sum(s.debit), 0) FROM credits_setaside s
            WHERE s.account_id = a.id AND s.epoch = cut.epoch AND s.seq <= cut.seq AND s.reason = 'bad'))::bigint
  FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) AS cut(number, epoch, seq, applied)
  JOIN accounts_account a ON a.number = cut.number
"""


def verify(*, now: datetime, repair: bool = False) -> Verification:
    """Drains, then compares every account. With `repair`, a Redis balance that differs is loaded from the ledger again.

    Raises what the stores raise. Differences are reported up to 1,000.
    """
    drain.drain_once()
    accounts = live_accounts = 0
    behind: list[int] = []
    differences: list[Difference] = []
    for numbers in _chunks():
        accounts += len(numbers)
        differences += _ledger_differences(numbers)
        compared, still_behind, live_differences = _live_differences(numbers)
        live_accounts += compared
        behind += still_behind
        differences += live_differences
        if len(differences) >= DIFFERENCES_MAX:
            break
    repaired = []
    if repair:
        for number in sorted({difference.account_number for difference in differences if difference.repairable}):
            log.warning("account_repaired", account=number)
            loading.load_account(number, even_if_usable=True)
            repaired.append(number)
    return Verification(now, accounts, live_accounts, behind, differences[:DIFFERENCES_MAX], repaired)


def _chunks() -> Iterator[list[int]]:
    """Every account number, `CHUNK` at a time, those that appear meanwhile included."""
    last = -1
    while True:
        numbers = list(
            Account.objects.filter(number__gt=last).order_by("number").values_list("number", flat=True)[:CHUNK]
        )
        if not numbers:
            return
        yield numbers
        last = numbers[-1]


def _ledger_differences(numbers: Sequence[int]) -> list[Difference]:
    found = []
    with connection.cursor() as cursor:
        cursor.execute(_LEDGER_SQL, [list(numbers)])
        for number, balance, reserve, entries, remaining, undrawn in cursor.fetchall():
            if not 0 <= reserve <= balance:
                found.append(Difference(number, "reserve against the balance it is a part of", balance, reserve))
            if entries != balance:
                found.append(Difference(number, "account balance against the sum of its ledger", entries, balance))
            if remaining != balance:
                found.append(
                    Difference(number, "account balance against what its grants have left", remaining, balance)
                )
            if undrawn:
                found.append(Difference(number, "debits whose draws do not add up", 0, undrawn))
        cursor.execute(_GRANTS_SQL, [list(numbers)])
        for number, *counts in cursor.fetchall():
            checked = zip(_GRANT_CHECKS, counts, strict=True)
            found += [Difference(number, what, 0, count) for what, count in checked if count]
    return found


def _live_differences(numbers: Sequence[int]) -> tuple[int, list[int], list[Difference]]:
    """(accounts compared, accounts still behind, differences) of those that are live in Redis."""
    waiting, compared, found = list(numbers), 0, []
    for _ in range(TRIES_MAX):
        lives = dict(zip(waiting, counters.inspect_many(waiting), strict=True))
        lives = {number: live for number, live in lives.items() if live.usable}
        waiting = []
        if not lives:
            break
        with connection.cursor() as cursor:
            cursor.execute(
                _LIVE_SQL,
                [
                    list(lives),
                    [live.epoch for live in lives.values()],
                    [live.seq for live in lives.values()],
                    [live.applied for live in lives.values()],
                ],
            )
            for number, same_epoch, drained, reserve, expected in cursor.fetchall():
                if not (same_epoch and drained):
                    waiting.append(number)
                    continue
                compared += 1
                if lives[number].balance != expected:
                    what = "live balance in Redis against the ledger"
                    found.append(Difference(number, what, expected, lives[number].balance, repairable=True))
                if reserve is not None and lives[number].reserve != reserve:
                    what = "reserve as Redis knows it against the ledger"
                    found.append(Difference(number, what, reserve, lives[number].reserve, repairable=True))
                if lives[number].free < 0:
                    found.append(Difference(number, "credits available", 0, lives[number].free))
        if not waiting:
            break
        drain.drain_once()
    return compared, waiting, found
