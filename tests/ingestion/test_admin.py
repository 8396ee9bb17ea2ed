"""Ingestion jobs in the operator admin."""

import uuid
from functools import cache
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from ingestion.models import DeadLetter, IngestionJob, SavedMapping
from tests.operators import client_of, make_operator, text_of

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
