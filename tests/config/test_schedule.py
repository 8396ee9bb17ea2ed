"""Beat's schedule: what its start puts into the database, and what it leaves alone."""

import pytest
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from config.celery import app
from config.schedule import Scheduler


@pytest.fixture
def name(committed_db: None, request: pytest.FixtureRequest) -> str:
    """The name of an entry that is this test's own."""
    return f"entry of {request.node.name}"


def _start(name: str, *, task: str = "credits.verify_ledger", every_s: int = 600) -> None:
    scheduler = Scheduler(app=app, lazy=True)
    scheduler.update_from_dict({name: {"task": task, "schedule": every_s, "options": {"expire_seconds": every_s}}})


def test_missing_entry_is_added(name: str) -> None:
    _start(name)
    entry = PeriodicTask.objects.get(name=name)
    assert (entry.task, entry.interval.every, entry.interval.period, entry.expire_seconds, entry.enabled) == (
        "credits.verify_ledger",
        600,
        "seconds",
        600,
        True,
    )


def test_starting_again_keeps_what_operators_changed(name: str) -> None:
    _start(name)
    hourly, _ = IntervalSchedule.objects.get_or_create(every=1, period="hours")
    PeriodicTask.objects.filter(name=name).update(interval=hourly, enabled=False)
    _start(name)
    entry = PeriodicTask.objects.get(name=name)
    assert (entry.interval, entry.enabled) == (hourly, False)


def test_entry_of_another_task_is_replaced(name: str) -> None:
    _start(name, task="credits.renamed")
    _start(name)
    assert PeriodicTask.objects.get(name=name).task == "credits.verify_ledger"


def test_every_scheduled_task_is_one_that_the_worker_knows() -> None:
    app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert scheduled - set(app.tasks) == set()


def test_a_task_is_ended_before_the_broker_hands_it_out_again() -> None:
    limits = app.conf.task_soft_time_limit, app.conf.task_time_limit
    assert limits == (540, 600)
    assert app.conf.broker_transport_options["visibility_timeout"] == 8 * 3600
