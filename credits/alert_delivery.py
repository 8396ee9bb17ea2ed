"""Bringing alerts to their addresses: at least once each, with a bound on attempts and on age.

An attempt is claimed first, committed, and made outside any transaction; its claim allows it to write how it ended. A process
that dies in between leaves a claim that runs out, and the alert is sent again under the same event id.
"""

import random
import smtplib
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from django.core.mail import EmailMessage
from django.db import connection
from django.utils import timezone

from config.errors import DomainError
from credits import alert_messages, webhook_addresses, webhooks
from credits.alert_models import ERROR_LENGTH_MAX, AlertDelivery, AlertSettings
from credits.alert_settings import valid_salts
from credits.alerts import GIVE_UP_AFTER
from credits.webhook_addresses import Resolver

log = structlog.get_logger(__name__)

ATTEMPTS_MAX = 8
FIRST_RETRY = timedelta(seconds=30)
RETRY_MAX = timedelta(hours=6)
JITTER = 0.2
# Longer than any attempt takes: three seconds to resolve and ten to send, or ten for each step of a mail server.
CLAIM_KEPT = timedelta(minutes=3)
SENDERS = 8
DELIVERIES_MAX = 1000
PASS_MAX = timedelta(seconds=45)

_OPEN = (AlertDelivery.State.PENDING, AlertDelivery.State.FAILED)

Clock = Callable[[], datetime]


class NotRetryable(DomainError):
    """409: the delivery has arrived, or is still being tried."""

    status = 409


class AttemptFailed(Exception):
    """The receiver did not take the alert. The text may be shown; `status` is the answer's, if there was one."""

    def __init__(self, reason: str, *, status: int | None = None, final: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.final = final


@dataclass(slots=True)
class Report:
    """What a pass did."""

    delivered: int = 0
    failed: int = 0
    gave_up: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, state: str) -> None:
        with self.lock:
            if state == AlertDelivery.State.DELIVERED:
                self.delivered += 1
            elif state == AlertDelivery.State.FAILED:
                self.failed += 1
            else:
                self.gave_up += 1


def deliver_due(
    *,
    clock: Clock = timezone.now,
    resolver: Resolver = webhook_addresses.resolve,
    senders: int = SENDERS,
    attempt_timeout_s: float = webhooks.ATTEMPT_TIMEOUT_S,
) -> Report:
    """Makes the attempts that are due, eight at a time so that a slow receiver does not keep the others waiting.

    Ends when nothing is due, after 1,000 attempts or 45 seconds. Raises `django.db.OperationalError`.
    """
    report = Report()
    report.gave_up = _give_up_exhausted(now=clock())
    left = threading.Semaphore(DELIVERIES_MAX)
    until = clock() + PASS_MAX

    def work() -> None:
        try:
            while clock() < until and left.acquire(blocking=False):
                delivery = claim_next(now=clock())
                if delivery is None:
                    return
                report.count(attempt(delivery, clock=clock, resolver=resolver, timeout_s=attempt_timeout_s))
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=senders, thread_name_prefix="alerts") as pool:
        for done in [pool.submit(work) for _ in range(senders)]:
            done.result()
    return report


def claim_next(*, now: datetime) -> AlertDelivery | None:
    """Takes the delivery that has been due longest, for `CLAIM_KEPT`; None when none is."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE credits_alertdelivery SET attempts = attempts + 1, claim = %s, next_attempt_at = %s WHERE id = ("
            "SELECT id FROM credits_alertdelivery WHERE state IN ('pending', 'failed') AND next_attempt_at <= %s"
            " AND attempts < %s AND give_up_at > %s ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED)"
            " RETURNING id",
            [uuid.uuid4(), now + CLAIM_KEPT, now, ATTEMPTS_MAX, now],
        )
        row = cursor.fetchone()
    return None if row is None else AlertDelivery.objects.select_related("alert__account").get(pk=row[0])


def attempt(
    delivery: AlertDelivery,
    *,
    clock: Clock = timezone.now,
    resolver: Resolver = webhook_addresses.resolve,
    timeout_s: float = webhooks.ATTEMPT_TIMEOUT_S,
) -> str:
    """Sends a claimed delivery and writes how it ended; the state it is in then."""
    try:
        status = (
            _send_email(delivery)
            if delivery.channel == AlertDelivery.Channel.EMAIL
            else _send_webhook(delivery, now=clock(), resolver=resolver, timeout_s=timeout_s)
        )
    except AttemptFailed as error:
        return _mark_failed(delivery, error, now=clock())
    _mark(delivery, AlertDelivery.State.DELIVERED, now=clock(), response_status=status, last_error="")
    log.info("alert_delivered", delivery=delivery.pk, channel=delivery.channel, attempts=delivery.attempts)
    return AlertDelivery.State.DELIVERED


def _send_email(delivery: AlertDelivery) -> int | None:
    subject, text = alert_messages.email(delivery.alert)
    # The same id at each attempt, so that a mailbox can tell a repetition.
    name = f"<{alert_messages.event_id(delivery.alert)}.{delivery.pk}@alerts.meterhouse>"
    message = EmailMessage(subject, text, to=[delivery.target], headers={"Message-ID": name})
    try:
        message.send()
    except (smtplib.SMTPException, OSError) as error:
        code = getattr(error, "smtp_code", None)
        answered = f" ({code})" if isinstance(code, int) else ""
        raise AttemptFailed(f"the mail server did not take it: {type(error).__name__}{answered}") from error
    return None


def _send_webhook(delivery: AlertDelivery, *, now: datetime, resolver: Resolver, timeout_s: float) -> int:
    chosen = AlertSettings.objects.filter(account_id=delivery.alert.account_id).first()
    if chosen is None or not chosen.webhook_url:
        raise AttemptFailed("the webhook was removed from the settings", final=True)
    if chosen.webhook_url != delivery.target:
        # The settings decide, so that an address that was mended gets what the old one did not take.
        AlertDelivery.objects.filter(pk=delivery.pk).update(target=chosen.webhook_url)
    try:
        return webhooks.send(
            url=chosen.webhook_url,
            salts=valid_salts(chosen, now=now),
            event_id=alert_messages.event_id(delivery.alert),
            body=alert_messages.webhook_body(delivery.alert),
            timestamp=int(now.timestamp()),
            resolver=resolver,
            timeout_s=timeout_s,
        ).status
    except webhooks.WebhookFailed as error:
        raise AttemptFailed(str(error), status=error.status) from error
    except webhook_addresses.WebhookAddressRefused as error:
        raise AttemptFailed(f"refused: {error.reason}") from error
    except webhook_addresses.NameUnresolved as error:
        raise AttemptFailed(str(error)) from error


def backoff(attempts: int, *, spread: float) -> timedelta:
    """How long to wait after that many attempts: 30 s, 2 min, 8 min … 6 h, by up to a fifth more or less (`spread` -1 to 1)."""
    wait: timedelta = min(RETRY_MAX, FIRST_RETRY * 4 ** (attempts - 1))
    return wait * (1 + JITTER * spread)


def _mark_failed(delivery: AlertDelivery, error: AttemptFailed, *, now: datetime) -> str:
    again_at = now + backoff(delivery.attempts, spread=random.uniform(-1, 1))  # noqa: S311 - spreads load, no secret
    over = error.final or delivery.attempts >= ATTEMPTS_MAX or again_at >= delivery.give_up_at
    state = AlertDelivery.State.GAVE_UP if over else AlertDelivery.State.FAILED
    _mark(delivery, state, now=now, response_status=error.status, last_error=str(error), next_attempt_at=again_at)
    log.warning(
        "alert_delivery_gave_up" if over else "alert_delivery_failed",
        delivery=delivery.pk,
        channel=delivery.channel,
        attempts=delivery.attempts,
        error=str(error)[:ERROR_LENGTH_MAX],
    )
    return state


def _mark(
    delivery: AlertDelivery,
    state: AlertDelivery.State,
    *,
    now: datetime,
    response_status: int | None,
    last_error: str,
    next_attempt_at: datetime | None = None,
) -> None:
    """Writes how the attempt ended, unless its claim has passed to another: then that one's word counts."""
    AlertDelivery.objects.filter(pk=delivery.pk, claim=delivery.claim).update(
        state=state,
        claim=None,
        response_status=response_status,
        last_error=last_error[:ERROR_LENGTH_MAX],
        next_attempt_at=next_attempt_at or now,
        finished_at=None if state in _OPEN else now,
    )


def _give_up_exhausted(*, now: datetime) -> int:
    """Ends deliveries whose last attempt nobody wrote the end of, and those that are too old for another; how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE credits_alertdelivery SET state = 'gave_up', claim = NULL, finished_at = %s, last_error ="
            " CASE WHEN last_error = '' THEN 'no attempt could be finished in time' ELSE last_error END"
            " WHERE id IN (SELECT id FROM credits_alertdelivery WHERE state IN ('pending', 'failed')"
            " AND next_attempt_at <= %s AND (attempts >= %s OR give_up_at <= %s) LIMIT %s FOR UPDATE SKIP LOCKED)",
            [now, now, ATTEMPTS_MAX, now, DELIVERIES_MAX],
        )
        ended: int = cursor.rowcount
    if ended:
        log.warning("alert_deliveries_gave_up", deliveries=ended)
    return ended


def retry(*, delivery: AlertDelivery, now: datetime) -> AlertDelivery:
    """Gives a delivery that has failed all its attempts once more, the next one at once. Raises `NotRetryable`."""
    changed = AlertDelivery.objects.filter(
        pk=delivery.pk, state__in=[AlertDelivery.State.FAILED, AlertDelivery.State.GAVE_UP]
    ).update(
        state=AlertDelivery.State.PENDING,
        attempts=0,
        claim=None,
        next_attempt_at=now,
        give_up_at=now + GIVE_UP_AFTER,
        finished_at=None,
    )
    if not changed:
        raise NotRetryable("Only a delivery that failed can be tried again.")
    delivery.refresh_from_db()
    return delivery
