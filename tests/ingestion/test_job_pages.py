"""A job's page in the operator admin: polled progress, rejected rows by reason and as CSV, another try at them."""

import csv
import io
from functools import cache
from typing import Any

import pytest
from django.http import StreamingHttpResponse
from django.urls import reverse
from django.utils import timezone

from ingestion.admin_job_pages import duration_text
from ingestion.models import DeadLetter, IngestionJob, Upload
from tests.ingestion.test_admin import make_job, page
from tests.operators import client_of, make_operator, make_staff, text_of

pytestmark = pytest.mark.usefixtures("stores")

operator = cache(make_operator)


def get(job: IngestionJob, name: str, **query: str) -> Any:
    return client_of(operator()).get(reverse(f"admin:ingestion_ingestionjob_{name}", args=[job.pk]), query)


def rejected(*raws: tuple[str, str], **changes: Any) -> IngestionJob:
    """A job that has ended with these rejected rows: reason and raw text."""
    job = make_job(**{"state": "needs_review", "rows_read": len(raws), "rows_rejected": len(raws), **changes})
    for row, (reason, raw) in enumerate(raws, start=1):
        DeadLetter.objects.create(job=job, row=row, reason=reason, raw=raw, created_at=timezone.now())
    return job


def lines(response: Any) -> list[list[str]]:
    assert isinstance(response, StreamingHttpResponse)
    return list(csv.reader(io.StringIO(response.getvalue().decode())))


def test_a_running_job_is_polled_and_shows_how_far_it_is() -> None:
    job = make_job(
        state="running", rows_read=2_000, rows_loaded=2_000, bytes_read=25, content_bytes=100, busy_seconds=10.0
    )
    response = get(job, "progress")
    assert ('hx-trigger="every 2s"' in response.content.decode(), "HX-Refresh" in response.headers) == (True, False)
    assert all(part in text_of(response) for part in ("25%", "200 rows a second", "about 30 s left", "2,000"))


def test_a_job_that_waits_for_the_store_says_so() -> None:
    job = make_job(state="running", waiting_since=timezone.now())
    assert "Waiting for the store since" in text_of(get(job, "progress"))


@pytest.mark.parametrize("state", ["done", "needs_review", "failed", "cancelled", "refused", "rolled_back"])
def test_a_job_that_has_ended_is_not_polled(state: str) -> None:
    job = make_job(state=state)
    response = get(job, "progress")
    assert ("hx-trigger" in response.content.decode(), response.headers["HX-Refresh"]) == (False, "true")
    assert "every 2s" not in client_of(operator()).get(page(job)).content.decode()


def test_rejected_rows_of_one_reason_are_listed_and_escaped() -> None:
    job = rejected(("RAGGED_ROW", "<b>one</b>"), ("NOT_UTF8", "two"))
    response = client_of(operator()).get(page(job), {"reason": "RAGGED_ROW"})
    assert [letter.raw for letter in response.context["of_reason"]] == ["<b>one</b>"]
    assert "<b>one" not in response.content.decode()


def test_rejected_rows_come_as_csv_in_which_a_formula_stays_text() -> None:
    job = rejected(("RAGGED_ROW", "=1+1"), ("NOT_UTF8", 'a,"b"'))
    response = get(job, "rejects")
    assert response.headers["Content-Disposition"] == f'attachment; filename="rejected-{job.pk}.csv"'
    assert lines(response) == [
        ["row", "column", "reason", "message", "raw"],
        ["1", "", "RAGGED_ROW", "", "'=1+1"],
        ["2", "", "NOT_UTF8", "", 'a,"b"'],
    ]


def test_rejected_rows_as_csv_are_of_one_reason_when_it_is_named() -> None:
    job = rejected(("RAGGED_ROW", "one"), ("NOT_UTF8", "two"))
    assert [line[4] for line in lines(get(job, "rejects", reason="NOT_UTF8"))[1:]] == ["two"]


@pytest.mark.parametrize("state", ["running", "queued", "rolled_back", "failed"])
def test_rejects_are_read_again_only_of_a_job_that_has_ended(state: str) -> None:
    job = rejected(("RAGGED_ROW", "one"), state=state)
    response = client_of(operator()).post(reverse("admin:ingestion_ingestionjob_retry", args=[job.pk]), follow=True)
    assert "there is nothing to read again" in text_of(response)
    assert not Upload.objects.filter(retry_of=job).exists()


def test_a_reader_of_jobs_may_not_have_rejects_read_again() -> None:
    job = rejected(("RAGGED_ROW", "one"))
    client = client_of(make_staff("ingestion.view_ingestionjob"))
    assert client.post(reverse("admin:ingestion_ingestionjob_retry", args=[job.pk])).status_code == 403
    assert "Read the rejected rows again" not in text_of(client.get(page(job)))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")]
)
def test_the_time_that_is_left_is_told_in_two_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
