"""Operators choose when background tasks run, not which ones there are."""

from functools import cache

import pytest
from django.urls import reverse
from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks

from tests.operators import client_of, make_operator, make_staff, text_of

operator = cache(make_operator)


@pytest.fixture
def entry(committed_db: None, request: pytest.FixtureRequest) -> PeriodicTask:
    every, _ = IntervalSchedule.objects.get_or_create(every=600, period="seconds")
    return PeriodicTask.objects.create(
        name=f"entry of {request.node.name}", task="credits.verify_ledger", interval=every, expire_seconds=600
    )


def _url(entry: PeriodicTask) -> str:
    return reverse("admin:django_celery_beat_periodictask_change", args=[entry.pk])


def test_new_times_are_kept_with_their_expiry(entry: PeriodicTask) -> None:
    response = client_of(operator()).post(_url(entry), {"enabled": "on", "every_s": "60"})
    entry.refresh_from_db()
    assert response.status_code == 302
    assert (entry.interval.every, entry.interval.period, entry.expire_seconds, entry.enabled) == (
        60,
        "seconds",
        60,
        True,
    )


def test_an_entry_is_switched_off_and_its_runs_stay_counted(entry: PeriodicTask) -> None:
    PeriodicTask.objects.filter(pk=entry.pk).update(total_run_count=5)
    client_of(operator()).post(_url(entry), {"every_s": "600"})
    entry.refresh_from_db()
    assert (entry.enabled, entry.total_run_count) == (False, 5)


def test_beat_is_told_of_a_change(entry: PeriodicTask) -> None:
    before = PeriodicTasks.last_change()
    client_of(operator()).post(_url(entry), {"enabled": "on", "every_s": "60"})
    assert PeriodicTasks.last_change() > before


@pytest.mark.parametrize("every_s", ["", "4", "-1", "604801", "soon"])
def test_times_out_of_bounds_are_refused(entry: PeriodicTask, every_s: str) -> None:
    response = client_of(operator()).post(_url(entry), {"enabled": "on", "every_s": every_s})
    entry.refresh_from_db()
    assert (response.status_code, entry.interval.every) == (200, 600)


def test_a_reader_may_not_change_times(entry: PeriodicTask) -> None:
    staff = make_staff("django_celery_beat.view_periodictask")
    assert client_of(staff).get(_url(entry)).status_code == 200
    assert client_of(staff).post(_url(entry), {"enabled": "on", "every_s": "60"}).status_code == 403


def test_the_list_says_when_each_task_runs(entry: PeriodicTask) -> None:
    text = text_of(client_of(operator()).get("/admin/django_celery_beat/periodictask/"))
    assert f"{entry.name} credits.verify_ledger every 600 seconds" in text
