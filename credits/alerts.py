"""When customers are told: a pass over accounts that changed, and one over grants about to expire.

A threshold is compared with the ledger's balance. It follows what can be spent within a second, can be proven afterwards,
stands without Redis, and does not fall for a moment with each hold. An account is low at the threshold or below it. It is
told once; the threshold is armed again when credits came in and lifted the balance above it.

Any number of passes may run: the account's state is locked, alerts and their deliveries are written in the same transaction,
and a crossing has a number that cannot be written twice.
"""

import itertools
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import connection, transaction

from accounts.models import Account
from config.errors import DomainError, InvalidRequest
from credits.alert_models import Alert, AlertDelivery, AlertState, ExpiryNotice
from credits.alert_settings import EXPIRING_DAYS_MAX, preferences_of

log = structlog.get_logger(__name__)

PAGE = 500
PAGES_MAX = 1000
GIVE_UP_AFTER = timedelta(hours=48)
TESTS_MAX = 5
TESTS_WITHIN = timedelta(hours=1)


class NobodyToTell(InvalidRequest):
    """400: neither an e-mail address nor a webhook is set."""


class TooManyTests(DomainError):
    """429: the account has sent its test alerts of this hour."""

    status = 429
    code = "RATE_LIMITED"


@dataclass(frozen=True, slots=True)
class Standing:
    """An account as one statement saw it. `granted` is the sum of the credits of its open grants, as they were given."""

    account_id: uuid.UUID
    balance: int
    credit_seq: int
    granted: int
    low_credits: int
    low_percent: int
    emails: list[str]
    webhook_url: str


@dataclass(frozen=True, slots=True)
class ExpiringGrant:
    """A grant inside its account's window of `days` that was not announced in it."""

    account_id: uuid.UUID
    grant_id: uuid.UUID
    remaining: int
    expires_at: datetime
    days: int


def evaluate(*, now: datetime) -> int:
    """One pass over everything that may have to be told; how many alerts were made. Raises `django.db.OperationalError`."""
    made = sum(_evaluate_page(page, now=now) for page in _changed_accounts())
    made += sum(_announce_page(page, now=now) for page in _expiring_grants(now=now))
    if made:
        log.info("alerts_made", alerts=made)
    return made


# The thresholds that count, each with its account's own choice or everybody's.
_LOW_CREDITS = "COALESCE(t.low_credits, %(low_credits)s)"
_LOW_PERCENT = "COALESCE(t.low_percent, %(low_percent)s)"
_DAYS = "COALESCE(t.expiring_days, %(expiring_days)s)"


def _defaults() -> dict[str, Any]:
    return {
        "low_credits": settings.ALERT_LOW_CREDITS,
        "low_percent": settings.ALERT_LOW_PERCENT,
        "expiring_days": settings.ALERT_EXPIRING_DAYS,
    }


def _changed_accounts() -> Iterable[list[uuid.UUID]]:
    """Pages of active accounts whose figures or thresholds are not those they were last looked at with.

    Every change of a balance moves it or `credit_seq`. Comparing, rather than following the ledger's ids, misses no entry that
    was committed late. An account that never had credits is not low.
    """
    after = 0
    for _ in range(PAGES_MAX):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT a.id, a.number FROM accounts_account a"
                " LEFT JOIN credits_alertstate s ON s.account_id = a.id"
                " LEFT JOIN credits_alertsettings t ON t.account_id = a.id"
                " WHERE a.number > %(after)s AND a.state = 'active' AND a.credit_seq > 0"
                f" AND (a.balance, a.credit_seq, {_LOW_CREDITS}, {_LOW_PERCENT})"
                " IS DISTINCT FROM (s.balance, s.credit_seq, s.low_credits, s.low_percent)"
                " ORDER BY a.number LIMIT %(page)s",
                {**_defaults(), "after": after, "page": PAGE},
            )
            rows = cursor.fetchall()
        if rows:
            yield [account_id for account_id, _ in rows]
            after = rows[-1][1]
        if len(rows) < PAGE:
            return


@transaction.atomic
def _evaluate_page(account_ids: Sequence[uuid.UUID], *, now: datetime) -> int:
    AlertState.objects.bulk_create(
        [AlertState(account_id=account_id) for account_id in account_ids], ignore_conflicts=True
    )
    states = _locked_states(account_ids)
    made: list[tuple[Alert, Standing]] = []
    for standing in _standings(list(states), now=now):
        state = states[standing.account_id]
        made.extend((alert, standing) for alert in compare(state, standing, now=now))
    AlertState.objects.bulk_create(
        states.values(), update_conflicts=True, unique_fields=["account"], update_fields=AlertState.FIGURES
    )
    _write(made, now=now)
    return len(made)


def _locked_states(account_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, AlertState]:
    """The states of these accounts that no other pass is looking at, locked in the order of their ids."""
    rows = AlertState.objects.select_for_update(skip_locked=True).filter(account_id__in=list(account_ids))
    return {state.account_id: state for state in rows.order_by("account_id")}


def _standings(account_ids: list[uuid.UUID], *, now: datetime) -> list[Standing]:
    """Balance and grants of each account, seen by one statement so that they fit together."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT a.id, a.balance, a.credit_seq, (SELECT COALESCE(sum(g.amount), 0)::bigint FROM credits_creditgrant g"
            " WHERE g.account_id = a.id AND g.remaining > 0 AND g.ending_at IS NULL),"
            f" {_LOW_CREDITS}, {_LOW_PERCENT}, COALESCE(t.emails, ARRAY[a.email]), COALESCE(t.webhook_url, '')"
            " FROM accounts_account a LEFT JOIN credits_alertsettings t ON t.account_id = a.id"
            " WHERE a.id = ANY(%(ids)s) ORDER BY a.number",
            {**_defaults(), "ids": account_ids, "now": now},
        )
        return [Standing(*row) for row in cursor.fetchall()]


def compare(state: AlertState, standing: Standing, *, now: datetime) -> list[Alert]:
    """Moves the account's state to what it is now, and makes the alerts of the thresholds that were crossed.

    Percent is of the credits of open grants. That sum also shrinks, whenever a grant is used up: so recovery by percent
    asks in addition for a balance above the least since the alert.
    """
    made = []
    low = standing.low_credits > 0 and standing.balance <= standing.low_credits
    if low and not state.credits_fired:
        state.credits_crossings += 1
        made.append(_low(Alert.Kind.LOW_CREDITS, standing, state.credits_crossings, standing.low_credits, now))
    state.credits_fired = low

    low = standing.low_percent > 0 and standing.balance * 100 <= standing.low_percent * standing.granted
    if low and not state.percent_fired:
        state.percent_crossings += 1
        state.percent_fired, state.percent_lowest = True, standing.balance
        made.append(_low(Alert.Kind.LOW_PERCENT, standing, state.percent_crossings, standing.low_percent, now))
    elif not low and (standing.balance > state.percent_lowest or standing.low_percent != state.low_percent):
        state.percent_fired = False
    state.percent_lowest = min(state.percent_lowest, standing.balance)

    state.balance, state.credit_seq = standing.balance, standing.credit_seq
    state.low_credits, state.low_percent = standing.low_credits, standing.low_percent
    return made


def _low(kind: Alert.Kind, standing: Standing, crossing: int, threshold: int, now: datetime) -> Alert:
    return Alert(
        account_id=standing.account_id,
        kind=kind,
        crossing=crossing,
        threshold=threshold,
        balance=standing.balance,
        granted=standing.granted,
        created_at=now,
    )


def _expiring_grants(*, now: datetime) -> Iterable[list[ExpiringGrant]]:
    """Pages of grants that expire within their account's window and were not announced in it, account by account."""
    after: tuple[uuid.UUID, uuid.UUID] = (uuid.UUID(int=0), uuid.UUID(int=0))
    for _ in range(PAGES_MAX):
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT g.account_id, g.id, g.remaining, g.expires_at, {_DAYS} FROM credits_creditgrant g"
                " JOIN accounts_account a ON a.id = g.account_id AND a.state = 'active'"
                " LEFT JOIN credits_alertsettings t ON t.account_id = g.account_id"
                " WHERE g.remaining > 0 AND g.ending_at IS NULL AND g.expires_at IS NOT NULL"
                " AND g.expires_at > %(now)s AND g.expires_at <= %(latest)s"
                f" AND g.expires_at <= %(now)s + make_interval(days => {_DAYS})"
                " AND NOT EXISTS (SELECT FROM credits_expirynotice n WHERE n.grant_id = g.id"
                f" AND n.days = {_DAYS}) AND (g.account_id, g.id) > (%(account)s, %(grant)s)"
                " ORDER BY g.account_id, g.id LIMIT %(page)s",
                {
                    **_defaults(),
                    "now": now,
                    "latest": now + timedelta(days=EXPIRING_DAYS_MAX),
                    "account": after[0],
                    "grant": after[1],
                    "page": PAGE,
                },
            )
            rows = [ExpiringGrant(*row) for row in cursor.fetchall()]
        if rows:
            yield rows
            after = (rows[-1].account_id, rows[-1].grant_id)
        if len(rows) < PAGE:
            return


@transaction.atomic
def _announce_page(grants: Sequence[ExpiringGrant], *, now: datetime) -> int:
    """One alert for the grants of an account that enter its window together."""
    account_ids = list(dict.fromkeys(grant.account_id for grant in grants))
    AlertState.objects.bulk_create(
        [AlertState(account_id=account_id) for account_id in account_ids], ignore_conflicts=True
    )
    states = _locked_states(account_ids)
    # Read again under the lock: another pass may have announced some of them since.
    told = set(
        ExpiryNotice.objects.filter(grant_id__in=[grant.grant_id for grant in grants]).values_list("grant_id", "days")
    )
    standings = {standing.account_id: standing for standing in _standings(list(states), now=now)}
    made: list[tuple[Alert, Standing]] = []
    notices: list[ExpiryNotice] = []
    for account_id, entering in itertools.groupby(grants, key=lambda grant: grant.account_id):
        new = [grant for grant in entering if (grant.grant_id, grant.days) not in told]
        if account_id not in standings or not new:
            continue
        alert = Alert(
            account_id=account_id,
            kind=Alert.Kind.EXPIRING,
            threshold=new[0].days,
            balance=standings[account_id].balance,
            expiring=sum(grant.remaining for grant in new),
            expiring_grants=len(new),
            expires_at=min(grant.expires_at for grant in new),
            created_at=now,
        )
        made.append((alert, standings[account_id]))
        notices.extend(
            ExpiryNotice(alert=alert, grant_id=grant.grant_id, days=grant.days, remaining=grant.remaining)
            for grant in new
        )
    _write(made, now=now)
    for notice in notices:
        notice.alert_id = notice.alert.pk
    ExpiryNotice.objects.bulk_create(notices)
    return len(made)


def _write(made: Sequence[tuple[Alert, Standing]], *, now: datetime) -> None:
    Alert.objects.bulk_create([alert for alert, _ in made])
    AlertDelivery.objects.bulk_create(
        [
            delivery
            for alert, standing in made
            for delivery in deliveries_of(alert, emails=standing.emails, webhook_url=standing.webhook_url, now=now)
        ]
    )


def deliveries_of(alert: Alert, *, emails: Sequence[str], webhook_url: str, now: datetime) -> list[AlertDelivery]:
    """What has to be sent of an alert: one message to each address, one request to the webhook."""
    channels = [(AlertDelivery.Channel.EMAIL, email) for email in emails]
    if webhook_url:
        channels.append((AlertDelivery.Channel.WEBHOOK, webhook_url))
    return [
        AlertDelivery(
            alert=alert,
            channel=channel,
            target=target,
            next_attempt_at=now,
            give_up_at=now + GIVE_UP_AFTER,
            created_at=now,
        )
        for channel, target in channels
    ]


@transaction.atomic
def send_test(*, account: Account, now: datetime) -> Alert:
    """An alert that means nothing, to everything that is set. Raises `NobodyToTell`, `TooManyTests` after 5 in an hour."""
    chosen = preferences_of(account)
    if not (chosen.emails or chosen.webhook_url):
        raise NobodyToTell(
            "There is nothing to send to. Set emails or webhook_url first.", details={"emails": "nobody is set"}
        )
    # The row lock makes two calls at once count each other.
    balance = Account.objects.select_for_update(no_key=True).values_list("balance", flat=True).get(pk=account.pk)
    recent = Alert.objects.filter(account=account, kind=Alert.Kind.TEST, created_at__gt=now - TESTS_WITHIN)
    times = list(recent.order_by("created_at").values_list("created_at", flat=True)[:TESTS_MAX])
    if len(times) >= TESTS_MAX:
        wait_s = max(1, int((times[0] + TESTS_WITHIN - now).total_seconds()))
        raise TooManyTests(
            f"{TESTS_MAX} test alerts were sent within an hour. Wait {wait_s} s.",
            details={"limit": TESTS_MAX, "retry_after_s": wait_s},
            headers={"Retry-After": str(wait_s)},
        )
    alert = Alert.objects.create(account=account, kind=Alert.Kind.TEST, balance=balance, created_at=now)
    AlertDelivery.objects.bulk_create(
        deliveries_of(alert, emails=chosen.emails, webhook_url=chosen.webhook_url, now=now)
    )
    return alert
