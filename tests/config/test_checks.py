"""What a deployment is told about its background work."""

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.core.checks import CheckMessage
from django.test import override_settings
from django_celery_beat.models import PeriodicTask

from config import checks
from config.celery import app
from config.schedule import Scheduler
from tests.outages import postgres_away


def ids(messages: list[CheckMessage]) -> list[str | None]:
    return [message.id for message in messages]


def test_a_broker_in_the_money_database_is_an_error_and_on_its_server_a_warning() -> None:
    with override_settings(CELERY_BROKER_URL=settings.REDIS_URL):
        assert ids(checks.check_broker(None)) == ["config.E001"]
    with override_settings(REDIS_URL="redis://a/0,redis://b/0", CELERY_BROKER_URL="redis://b/2"):
        assert ids(checks.check_broker(None)) == ["config.W002"]
    with override_settings(REDIS_URL="redis://a/0", CELERY_BROKER_URL="amqp://b//"):
        assert checks.check_broker(None) == []


def test_every_task_ends_before_it_is_handed_out_again() -> None:
    assert checks.check_task_limits(None) == []


@pytest.mark.parametrize(("soft_s", "hard_s"), [(3000, 28_800), (3300, 3300), (10, 30_000)])
def test_a_task_that_may_outlive_its_message_is_an_error(
    monkeypatch: pytest.MonkeyPatch, soft_s: int, hard_s: int
) -> None:
    app.loader.import_default_modules()
    task = app.tasks["credits.verify_ledger"]
    monkeypatch.setattr(task, "soft_time_limit", soft_s)
    monkeypatch.setattr(task, "time_limit", hard_s)
    (found,) = checks.check_task_limits(None)
    assert (found.id, found.msg.startswith("credits.verify_ledger")) == ("config.E003", True)


@pytest.fixture
def empty_schedule(committed_db: None) -> Iterator[None]:
    """No entry of the settings' schedule, before and after."""
    PeriodicTask.objects.filter(name__in=settings.CELERY_BEAT_SCHEDULE).delete()
    yield
    PeriodicTask.objects.filter(name__in=settings.CELERY_BEAT_SCHEDULE).delete()


def test_a_schedule_that_beat_has_not_filled_is_a_warning(empty_schedule: None) -> None:
    assert ids(checks.check_schedule(None)) == ["config.W004"]
    Scheduler(app=app, lazy=True).update_from_dict(app.conf.beat_schedule)
    assert checks.check_schedule(None) == []


def test_an_entry_that_is_switched_off_is_a_warning(empty_schedule: None) -> None:
    Scheduler(app=app, lazy=True).update_from_dict(app.conf.beat_schedule)
    PeriodicTask.objects.filter(name="verify-ledger").update(enabled=False)
    (found,) = checks.check_schedule(None)
    assert (found.id, found.msg) == ("config.W005", "Switched off in the schedule: verify-ledger.")


def test_a_schedule_that_cannot_be_asked_is_an_error(committed_db: None) -> None:
    with postgres_away():
        assert ids(checks.check_schedule(None)) == ["config.E010"]
