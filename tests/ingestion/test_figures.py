"""What `GET /metrics` says of ingestion."""

from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from ingestion.models import IngestionJob
from ingestion.rolling_back import roll_back
from tests.ingestion.files import written
from tests.ingestion.stored import loaded, mark
from tests.ingestion.test_queueing import people, queued

pytestmark = pytest.mark.usefixtures("stores")


def values() -> dict[tuple[str, str], float]:
    text = Client().get("/metrics", headers={"Authorization": "Bearer a token of the tests"}).content.decode()
    return {
        (sample.name.removeprefix("meterhouse_ingestion_"), "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("meterhouse_ingestion_")
    }


def test_rows_bytes_and_seconds_are_summed_over_all_jobs(tmp_path: Path, settings: LazySettings) -> None:
    settings.METRICS_TOKEN = "a token of the tests"
    city = mark()
    path = written(tmp_path, "a.csv", f"id,name,city\n1,Ann,{city}\n1,Ann,{city}\n2\n")
    before = values()
    job = loaded(path)
    roll_back(job.pk, now=timezone.now())
    after = values()
    grown = {key: after[key] - before[key] for key in after}
    assert [grown["rows_total", name] for name in ("read", "loaded", "duplicate", "rejected", "removed")] == [
        3,
        1,
        1,
        1,
        1,
    ]
    assert grown["bytes_total", ""] == path.stat().st_size
    assert all(grown["seconds_total", stage] >= 0 for stage in ("read", "normalise", "load"))
    assert grown["jobs", "rolled_back"] == 1


def test_what_waits_is_told(tmp_path: Path, settings: LazySettings) -> None:
    settings.METRICS_TOKEN = "a token of the tests"
    IngestionJob.objects.filter(state__in=["queued", "running"]).update(state="failed")
    assert values()["queue_age_seconds", ""] == 0
    job = queued(people(tmp_path, mark()))
    IngestionJob.objects.filter(pk=job.pk).update(queued_at=timezone.now() - timedelta(hours=1))
    assert values()["queue_age_seconds", ""] >= 3600
    assert values()["jobs", "queued"] == 1
    IngestionJob.objects.filter(pk=job.pk).update(state="running", waiting_since=timezone.now())
    assert values()["jobs_waiting", ""] == 1
