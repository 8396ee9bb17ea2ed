"""Alerts from end to end: found, and sent as e-mail, by a real worker; and by the command where there is none."""

import json
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.core import mail
from django.core.management import call_command
from django.utils import timezone

from config.celery import app
from credits import alert_settings
from credits.alert_models import AlertDelivery
from credits.tasks import deliver_alerts, evaluate_alerts
from tests.factories import make_account
from tests.faults.processes import Worker

pytestmark = pytest.mark.usefixtures("stores")

DONE_WITHIN_S = 30.0


def low_account(email: str) -> None:
    account = make_account(credits=50)
    alert_settings.save(
        account=account,
        low_credits=100,
        low_percent=0,
        expiring_days=0,
        emails=[email],
        webhook_url="",
        now=timezone.now(),
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DONE_WITHIN_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_the_worker_finds_and_sends_an_alert(tmp_path: Path) -> None:
    email = f"worker-{tmp_path.name}@example.com"
    low_account(email)
    outbox = tmp_path / "outbox"
    mine = AlertDelivery.objects.filter(target=email)
    worker = Worker(environment={"EMAIL_URL": f"filemail:///{outbox}"})
    try:
        evaluate_alerts.delay()
        wait_until(mine.exists)
        deliver_alerts.delay()
        wait_until(mine.filter(state="delivered").exists)
    finally:
        worker.close()
    assert mine.get().state == "delivered"
    messages = [path.read_text() for path in outbox.iterdir()]
    (message,) = [text for text in messages if f"To: {email}" in text]
    assert "Subject: Meterhouse: 50 credits left" in message
    assert "Top up before it is used up" in message


def test_both_tasks_are_on_the_schedule() -> None:
    scheduled = {entry["task"]: entry["schedule"] for entry in app.conf.beat_schedule.values()}
    assert (scheduled["credits.evaluate_alerts"], scheduled["credits.deliver_alerts"]) == (60, 10)


def test_the_command_finds_and_sends_an_alert(tmp_path: Path) -> None:
    email = f"command-{tmp_path.name}@example.com"
    low_account(email)
    said = StringIO()
    call_command("alerts", "--json", stdout=said)
    report = json.loads(said.getvalue())
    assert sorted(report) == ["alerts", "delivered", "failed", "gave_up"]
    assert report["alerts"] >= 1
    assert len([message for message in mail.outbox if message.to == [email]]) == 1
