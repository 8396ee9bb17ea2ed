"""How alerts reach their addresses: at least once, again after failure, with an end."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.core import mail
from django.test import override_settings
from django.utils import timezone

from accounts.models import Account
from credits import alert_delivery, alert_messages, alert_settings, alerts, webhooks
from credits.alert_delivery import ATTEMPTS_MAX, CLAIM_KEPT, backoff, claim_next, deliver_due
from credits.alert_models import Alert, AlertDelivery
from tests.credits.receiver import Receiver, loopback, receiving
from tests.credits.test_webhooks import is_signed
from tests.factories import make_account


@pytest.fixture(autouse=True)
def alone(stores: None) -> Iterator[None]:
    """The loopback may be sent to, and what other tests left to deliver has ended."""
    AlertDelivery.objects.filter(finished_at=None).update(state="gave_up", finished_at=timezone.now())
    with override_settings(ALERT_WEBHOOK_ALLOWED_NETWORKS=["127.0.0.0/8"], ALERT_WEBHOOK_ALLOW_HTTP=True):
        yield


def save(account: Account, *, emails: list[str] | None = None, url: str = "") -> alert_settings.Saved:
    return alert_settings.save(
        account=account,
        low_credits=100,
        low_percent=0,
        expiring_days=0,
        emails=emails,
        webhook_url=url,
        now=timezone.now(),
        resolver=loopback,
    )


def alert_by_webhook(receiver: Receiver) -> tuple[Alert, str]:
    """An alert of a low balance with one webhook to deliver, and the secret it is signed with."""
    account = make_account(credits=50)
    secret = save(account, emails=[], url=receiver.url).secret
    assert secret is not None
    alerts.evaluate(now=timezone.now())
    return Alert.objects.get(account=account), secret


def deliver(*, at: datetime | None = None, timeout_s: float = 10) -> alert_delivery.Report:
    moment = at or timezone.now()
    return deliver_due(clock=lambda: moment, resolver=loopback, senders=2, attempt_timeout_s=timeout_s)


def delivery_of(alert: Alert) -> AlertDelivery:
    return AlertDelivery.objects.get(alert=alert)


def test_a_webhook_says_what_happened_and_is_signed() -> None:
    with receiving() as receiver:
        alert, secret = alert_by_webhook(receiver)
        deliver()
    (received,) = receiver.received
    assert json.loads(received.body) == {
        "id": f"evt_{alert.event_id.hex}",
        "type": "credits.low_balance",
        "timestamp": alert.created_at.isoformat().replace("+00:00", "Z"),
        "account": {"id": str(alert.account_id), "number": alert.account.number},
        "data": {"unit": "credits", "threshold": 100, "balance": 50},
    }
    assert received.headers["webhook-id"] == f"evt_{alert.event_id.hex}"
    assert is_signed(received, secret)
    row = delivery_of(alert)
    assert (row.state, row.attempts, row.response_status, row.last_error) == ("delivered", 1, 200, "")


def test_what_was_delivered_is_not_sent_again() -> None:
    with receiving() as receiver:
        alert_by_webhook(receiver)
        deliver()
        deliver(at=timezone.now() + timedelta(hours=1))
    assert len(receiver.received) == 1


def test_after_a_failure_it_is_sent_again_with_the_same_id_and_body() -> None:
    with receiving() as receiver:
        receiver.statuses = [500]
        alert, secret = alert_by_webhook(receiver)
        deliver()
        failed = delivery_of(alert)
        deliver()  # not due yet
        deliver(at=failed.next_attempt_at)
    first, second = receiver.received
    assert (failed.state, failed.attempts, failed.response_status) == ("failed", 1, 500)
    assert failed.last_error == "answered 500"
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert is_signed(second, secret)
    row = delivery_of(alert)
    assert (row.state, row.attempts, row.response_status, row.last_error) == ("delivered", 2, 200, "")


def test_a_receiver_that_is_too_slow_is_tried_again() -> None:
    with receiving() as receiver:
        receiver.delay_s = 60
        alert, _ = alert_by_webhook(receiver)
        deliver(timeout_s=0.2)
    row = delivery_of(alert)
    assert (row.state, row.response_status, row.last_error) == ("failed", None, "no answer within 0.2 s")


def test_a_receiver_that_is_down_is_tried_again() -> None:
    with receiving() as receiver:
        alert, _ = alert_by_webhook(receiver)
    deliver()
    row = delivery_of(alert)
    assert (row.state, row.last_error) == ("failed", "the connection failed: ConnectionRefusedError")


def test_waiting_grows_to_six_hours() -> None:
    waits = [backoff(attempts, spread=0) for attempts in range(1, 9)]
    assert [wait.total_seconds() for wait in waits] == [30, 120, 480, 1920, 7680, 21600, 21600, 21600]
    assert [backoff(1, spread=spread).total_seconds() for spread in (-1, 1)] == [24, 36]


def test_a_failed_delivery_waits_by_its_number_of_attempts() -> None:
    with receiving() as receiver:
        receiver.statuses = [500, 500]
        alert, _ = alert_by_webhook(receiver)
        start = timezone.now()
        deliver(at=start)
        first = delivery_of(alert).next_attempt_at - start
        deliver(at=start + first)
        second = delivery_of(alert).next_attempt_at - start - first
    assert timedelta(seconds=24) <= first <= timedelta(seconds=36)
    assert timedelta(seconds=96) <= second <= timedelta(seconds=144)


def test_it_gives_up_after_the_last_attempt_and_says_so() -> None:
    with receiving() as receiver:
        receiver.statuses = [500] * 20
        alert, _ = alert_by_webhook(receiver)
        for _ in range(ATTEMPTS_MAX + 3):
            row = delivery_of(alert)
            report = deliver(at=row.next_attempt_at)
            if report.gave_up:
                break
    row = delivery_of(alert)
    assert (row.state, row.attempts, row.last_error) == ("gave_up", 8, "answered 500")
    assert (len(receiver.received), row.finished_at is not None) == (8, True)


def test_it_gives_up_what_is_too_old() -> None:
    with receiving() as receiver:
        alert, _ = alert_by_webhook(receiver)
        report = deliver(at=timezone.now() + timedelta(hours=49))
    row = delivery_of(alert)
    assert (row.state, row.attempts, report.gave_up, receiver.received) == ("gave_up", 0, 1, [])
    assert row.last_error == "no attempt could be finished in time"


def test_a_process_that_dies_after_sending_sends_again_with_the_same_id() -> None:
    with receiving() as receiver:
        alert, _ = alert_by_webhook(receiver)
        now = timezone.now()
        claimed = claim_next(now=now)
        assert claimed is not None
        alert_delivery._send_webhook(claimed, now=now, resolver=loopback, timeout_s=5)  # and dies before it marks
        deliver(at=now + CLAIM_KEPT - timedelta(seconds=1))
        assert len(receiver.received) == 1
        deliver(at=now + CLAIM_KEPT)
    assert [request.headers["webhook-id"] for request in receiver.received] == [alert_messages.event_id(alert)] * 2
    assert (delivery_of(alert).state, delivery_of(alert).attempts) == ("delivered", 2)


def test_an_attempt_whose_claim_ran_out_does_not_write_over_the_next_one() -> None:
    with receiving() as receiver:
        alert, _ = alert_by_webhook(receiver)
        slow = claim_next(now=timezone.now())
        assert slow is not None
        deliver(at=timezone.now() + CLAIM_KEPT)
        receiver.statuses = [500]
        alert_delivery.attempt(slow, resolver=loopback)
    assert (delivery_of(alert).state, delivery_of(alert).response_status) == ("delivered", 200)


def test_a_claim_that_ran_out_at_the_last_attempt_is_given_up() -> None:
    with receiving() as receiver:
        alert, _ = alert_by_webhook(receiver)
        AlertDelivery.objects.filter(alert=alert).update(attempts=ATTEMPTS_MAX - 1)
        now = timezone.now()
        assert claim_next(now=now) is not None
        deliver(at=now + CLAIM_KEPT)
    assert (delivery_of(alert).state, receiver.received) == ("gave_up", [])


def test_a_name_that_turns_to_an_address_inside_is_refused_when_sent() -> None:
    with receiving() as receiver:
        alert, _ = alert_by_webhook(receiver)
        now = timezone.now()
        deliver_due(clock=lambda: now, resolver=lambda host, port: ["10.0.0.1"], senders=1)
    row = delivery_of(alert)
    assert (row.state, receiver.received) == ("failed", [])
    assert row.last_error == "refused: the host is, or resolves to, an address that is not public"


def test_an_address_that_was_mended_gets_what_the_old_one_did_not_take() -> None:
    with receiving() as old:
        alert, secret = alert_by_webhook(old)
    deliver()
    with receiving() as new:
        assert save(alert.account, emails=[], url=new.url).secret is None
        deliver(at=delivery_of(alert).next_attempt_at)
    assert is_signed(new.received[0], secret)
    assert (delivery_of(alert).state, delivery_of(alert).target) == ("delivered", new.url)


def test_a_webhook_that_was_removed_is_given_up_at_once() -> None:
    with receiving() as receiver:
        alert, _ = alert_by_webhook(receiver)
        save(alert.account, emails=[])
        deliver()
    row = delivery_of(alert)
    assert (row.state, row.attempts, receiver.received) == ("gave_up", 1, [])
    assert row.last_error == "the webhook was removed from the settings"


def test_a_renewed_secret_signs_beside_the_old_one_for_a_day() -> None:
    with receiving() as receiver:
        alert, old = alert_by_webhook(receiver)
        now = timezone.now()
        new = alert_settings.rotate_secret(account=alert.account, now=now).secret
        assert new is not None
        deliver(at=now)
        alerts.send_test(account=alert.account, now=now + timedelta(hours=24))
        deliver(at=now + timedelta(hours=24))
    during, after = receiver.received
    assert (is_signed(during, old), is_signed(during, new)) == (True, True)
    assert (is_signed(after, old), is_signed(after, new)) == (False, True)


def test_an_email_says_what_happened_and_what_to_do() -> None:
    account = make_account(credits=50, name="Acme\nResearch")
    save(account)
    alerts.evaluate(now=timezone.now())
    deliver()
    (message,) = [message for message in mail.outbox if message.to == [account.email]]
    assert message.subject == "Meterhouse: 50 credits left"
    assert f"Account: Acme Research (customer {account.number})" in message.body
    assert "come down to 50 credits; you asked to be told at 100." in message.body
    assert "Top up before it is used up" in message.body


def test_an_email_that_the_server_does_not_take_is_tried_again() -> None:
    account = make_account(credits=50)
    save(account)
    alerts.evaluate(now=timezone.now())
    with receiving() as closed:
        pass
    with override_settings(
        EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend", EMAIL_HOST="127.0.0.1", EMAIL_PORT=closed.port
    ):
        deliver()
    row = AlertDelivery.objects.get(alert__account=account)
    assert (row.state, row.last_error) == ("failed", "the mail server did not take it: ConnectionRefusedError")
    deliver(at=row.next_attempt_at)
    row.refresh_from_db()
    assert (row.state, len([message for message in mail.outbox if message.to == [account.email]])) == ("delivered", 1)


def test_each_attempt_of_an_email_has_the_same_message_id() -> None:
    account = make_account(credits=50)
    save(account)
    alerts.evaluate(now=timezone.now())
    now = timezone.now()
    claimed = claim_next(now=now)
    assert claimed is not None
    alert_delivery._send_email(claimed)  # and dies before it marks
    deliver(at=now + CLAIM_KEPT)
    ids = [message.extra_headers["Message-ID"] for message in mail.outbox if message.to == [account.email]]
    assert (len(ids), len(set(ids))) == (2, 1)


def test_each_channel_is_delivered_by_itself() -> None:
    account = make_account(credits=50)
    with receiving() as receiver:
        receiver.statuses = [500]
        save(account, emails=["a@example.com", "b@example.com"], url=receiver.url)
        alerts.evaluate(now=timezone.now())
        deliver()
    states = (
        AlertDelivery.objects.filter(alert__account=account)
        .order_by("channel", "target")
        .values_list("state", flat=True)
    )
    assert list(states) == ["delivered", "delivered", "failed"]


def test_a_delivery_that_gave_up_can_be_tried_again() -> None:
    with receiving() as receiver:
        alert, _ = alert_by_webhook(receiver)
        AlertDelivery.objects.filter(alert=alert).update(state="gave_up", attempts=8, finished_at=timezone.now())
        alert_delivery.retry(delivery=delivery_of(alert), now=timezone.now())
        deliver()
    row = delivery_of(alert)
    assert (row.state, row.attempts, len(receiver.received)) == ("delivered", 1, 1)


@pytest.mark.parametrize("state", ["pending", "delivered"])
def test_a_delivery_that_did_not_fail_is_not_tried_again(state: str) -> None:
    with receiving() as receiver:
        alert, _ = alert_by_webhook(receiver)
    finished = timezone.now() if state == "delivered" else None
    AlertDelivery.objects.filter(alert=alert).update(state=state, finished_at=finished)
    with pytest.raises(alert_delivery.NotRetryable):
        alert_delivery.retry(delivery=delivery_of(alert), now=timezone.now())
    assert delivery_of(alert).state == state


def test_the_texts_of_the_other_kinds() -> None:
    account = make_account()
    moment = datetime(2031, 5, 1, 12, tzinfo=UTC)
    common = {"account": account, "created_at": moment}
    percent = Alert(kind="low_percent", threshold=20, balance=150, granted=1000, crossing=1, **common)
    empty = Alert(kind="low_percent", threshold=20, balance=0, granted=0, crossing=2, **common)
    expiring = Alert(
        kind="expiring", threshold=7, balance=9000, expiring=1500, expiring_grants=2, expires_at=moment, **common
    )
    test = Alert(kind="test", balance=5, **common)
    lines = [alert_messages.email(alert)[1].split("\n\n")[1] for alert in (percent, empty, expiring, test)]
    assert lines == [
        "The balance has come down to 150 credits, 20 % or less of the 1,000 credits that your open grants were given with.",
        "All credits are used up.",
        "1,500 of your 9,000 credits expire within 7 days: in 2 grants, the first on 2031-05-01 at 12:00 UTC.",
        "This is a test. The balance is 5 credits.",
    ]
    assert [alert_messages.event(alert)["type"] for alert in (percent, expiring, test)] == [
        "credits.low_balance",
        "credits.expiring_soon",
        "alerts.test",
    ]


def test_the_secret_is_not_in_the_database() -> None:
    with receiving() as receiver:
        alert, secret = alert_by_webhook(receiver)
    row = alert.account.alert_settings
    assert webhooks.secret_of(row.webhook_salt) == secret
    stored = " ".join(str(getattr(row, field.attname)) for field in row._meta.fields)
    assert secret.removeprefix("whsec_") not in stored
