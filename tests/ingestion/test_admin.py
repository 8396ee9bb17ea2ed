"""Ingestion jobs in the operator admin."""

import uuid
from functools import cache
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from ingestion import tasks
from ingestion.models import DeadLetter, IngestionJob, SavedMapping
from tests.operators import client_of, make_operator, make_staff, text_of

pytestmark = pytest.mark.usefixtures("stores")

operator = cache(make_operator)


def make_job(**changes: Any) -> IngestionJob:
    now = timezone.now()
    fields: dict[str, Any] = {
        "source_path": "data/offices.json",
        "source_file": f"offices-{uuid.uuid4().hex[:8]}.json",
        "size_bytes": 4096,
        "sha256": "0" * 64,
        "format": "json",
        "chunk_rows": 1000,
        "created_at": now,
        "started_at": now,
        **changes,
    }
    return IngestionJob.objects.create(**fields)


def page(job: IngestionJob) -> str:
    return reverse("admin:ingestion_ingestionjob_change", args=[job.pk])


def test_the_list_shows_every_count_with_separators() -> None:
    job = make_job(rows_read=1_234_567, rows_loaded=1_230_000, rows_duplicate=4_500, rows_rejected=67)
    text = text_of(client_of(operator()).get("/admin/ingestion/ingestionjob/", {"q": job.source_file}))
    assert all(count in text for count in ("1,234,567", "1,230,000", "4,500", "67"))


def test_a_job_shows_why_rows_were_rejected_most_frequent_first() -> None:
    job = make_job(rows_read=3, rows_rejected=3)
    for row, reason in enumerate(["RAGGED_ROW", "NOT_UTF8", "NOT_UTF8"], start=1):
        DeadLetter.objects.create(job=job, row=row, reason=reason, raw=f"raw {row}", created_at=timezone.now())
    response = client_of(operator()).get(page(job))
    assert [(group["reason"], group["rows"]) for group in response.context["reasons"]] == [
        ("NOT_UTF8", 2),
        ("RAGGED_ROW", 1),
    ]


def test_a_job_shows_its_dead_letters_fifty_at_a_time() -> None:
    job = make_job(rows_read=60, rows_rejected=60)
    now = timezone.now()
    DeadLetter.objects.bulk_create(
        DeadLetter(job=job, row=row, reason="RAGGED_ROW", raw=f"<b>raw {row}</b>", created_at=now)
        for row in range(1, 61)
    )
    body = client_of(operator()).get(page(job)).content.decode()
    assert body.count("&lt;b&gt;raw ") == 50
    assert "&lt;b&gt;raw 51&lt;/b&gt;" not in body
    assert "<b>raw" not in body


def test_a_long_raw_row_is_cut() -> None:
    job = make_job(rows_read=1, rows_rejected=1)
    DeadLetter.objects.create(job=job, row=1, reason="TOO_LONG", raw="x" * 5000, created_at=timezone.now())
    body = client_of(operator()).get(page(job)).content.decode()
    assert "x" * 300 + "…" in body
    assert "x" * 301 not in body


@pytest.mark.parametrize("page_name", ["add", "change", "delete"])
def test_nobody_writes_a_job_by_post(page_name: str) -> None:
    job = make_job()
    arguments = [] if page_name == "add" else [job.pk]
    url = reverse(f"admin:ingestion_ingestionjob_{page_name}", args=arguments)
    assert client_of(operator()).post(url, {"state": "done", "post": "yes"}).status_code == 403
    assert IngestionJob.objects.get(pk=job.pk).state == "running"


def test_saved_mappings_are_shown_and_not_changed_here() -> None:
    name, now = f"crm-{uuid.uuid4().hex[:8]}", timezone.now()
    document = {"columns": {"Contact": "email", "Shoe": None}, "last_first": False}
    mapping = SavedMapping.objects.create(name=name, source=name, document=document, created_at=now, updated_at=now)
    client = client_of(operator())
    text = text_of(client.get("/admin/ingestion/savedmapping/", {"q": name}))
    assert name in text
    assert "email" in text
    change = reverse("admin:ingestion_savedmapping_change", args=[mapping.pk])
    assert "Contact" in text_of(client.get(change))
    assert client.post(change, {"name": "other"}).status_code == 403


def test_a_retry_names_its_job() -> None:
    first = make_job()
    assert first.source_file in text_of(
        client_of(operator()).get(page(make_job(source_file="again.csv", retry_of=first)))
    )


def act(job: IngestionJob, action: str, user: Any = None, **fields: str) -> Any:
    url = reverse(f"admin:ingestion_ingestionjob_{action}", args=[job.pk])
    return client_of(user or operator()).post(url, fields)


def offered(job: IngestionJob) -> list[str]:
    shown = client_of(operator()).get(page(job)).content.decode()
    return [action for action in ("cancel", "go-on", "roll-back") if f"/{job.pk}/{action}" in shown]


@pytest.mark.parametrize(
    ("state", "actions"),
    [
        ("queued", ["cancel"]),
        ("running", ["cancel"]),
        ("done", ["roll-back"]),
        ("failed", ["cancel", "go-on", "roll-back"]),
        ("cancelled", ["go-on", "roll-back"]),
        ("refused", ["go-on"]),
        ("rolled_back", []),
    ],
)
def test_a_job_offers_what_its_state_allows(state: str, actions: list[str]) -> None:
    assert offered(make_job(state=state)) == actions


def test_a_job_is_cancelled_with_a_reason_and_a_name() -> None:
    job = make_job(state="queued")
    assert act(job, "cancel_job", reason="").status_code == 200
    assert IngestionJob.objects.get(pk=job.pk).state == "queued"
    assert act(job, "cancel_job", reason="wrong file").status_code == 302
    assert IngestionJob.objects.get(pk=job.pk).state == "cancelled"
    event = job.events.get(kind="cancel asked for")
    assert (event.message, event.actor) == ("wrong file", operator().get_username())
    assert "wrong file" in text_of(client_of(operator()).get(page(job)))


def test_a_cancelled_job_goes_on() -> None:
    job = make_job(state="cancelled")
    assert act(job, "go_on", reason="right after all").status_code == 302
    assert IngestionJob.objects.get(pk=job.pk).state == "queued"


def test_a_job_is_rolled_back_by_a_worker() -> None:
    job = make_job(state="done")
    assert act(job, "roll_back", reason="wrong export").status_code == 302
    assert IngestionJob.objects.get(pk=job.pk).state == "rolling_back"
    tasks.roll_back(str(job.pk))
    assert IngestionJob.objects.get(pk=job.pk).state == "rolled_back"


def test_what_is_too_late_is_said_on_the_page() -> None:
    response = act(make_job(state="done"), "cancel_job", reason="too late")
    assert response.status_code == 200
    assert "cannot be cancelled any more" in text_of(response)


def test_who_may_only_look_changes_nothing() -> None:
    reader = make_staff("ingestion.view_ingestionjob", "ingestion.stop_job")
    job = make_job(state="done")
    assert act(job, "roll_back", user=reader, reason="mine").status_code == 403
    assert IngestionJob.objects.get(pk=job.pk).state == "done"
