"""What ingestion has done and has to do, for `GET /metrics`: read from the jobs' table, for workers are not scraped."""

from django.db import connection
from django.db.models import Count, Min, Sum
from django.utils import timezone
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ingestion.models import IngestionJob

_State = IngestionJob.State
# What a stage may be called in a label: a job's own words must not make series.
STAGES = ("read", "normalise", "load")
_ROWS = {
    "read": "rows_read",
    "loaded": "rows_loaded",
    "duplicate": "rows_duplicate",
    "rejected": "rows_rejected",
    "removed": "rows_removed",
    "handed_over": "rows_handed_over",
}


def of_jobs() -> list[Metric]:
    """Sums over all jobs, jobs by state, and how long the oldest waits. One pass over the table of jobs."""
    sums = IngestionJob.objects.aggregate(**{f"sum_{name}": Sum(column) for name, column in _ROWS.items()})
    read = IngestionJob.objects.aggregate(read=Sum("bytes_read"))["read"] or 0
    rows = CounterMetricFamily("meterhouse_ingestion_rows", "Rows of all jobs, by outcome.", labels=["outcome"])
    for name in _ROWS:
        rows.add_metric([name], sums[f"sum_{name}"] or 0)
    states = GaugeMetricFamily("meterhouse_ingestion_jobs", "Ingestion jobs by state.", labels=["state"])
    counted = dict(IngestionJob.objects.order_by().values_list("state").annotate(count=Count("pk")))
    for state in _State.values:
        states.add_metric([state], counted.get(state, 0))
    stages = CounterMetricFamily("meterhouse_ingestion_seconds", "Seconds of all jobs, by stage.", labels=["stage"])
    for stage, seconds in _stage_seconds().items():
        stages.add_metric([stage], seconds)
    open_jobs = IngestionJob.objects.filter(state=_State.QUEUED).aggregate(oldest=Min("queued_at"))["oldest"]
    waiting = IngestionJob.objects.filter(state=_State.RUNNING, waiting_since__isnull=False).count()
    age_s = max(0.0, (timezone.now() - open_jobs).total_seconds()) if open_jobs is not None else 0.0
    return [
        rows,
        CounterMetricFamily("meterhouse_ingestion_bytes", "Bytes of files read, unpacked.", read),
        stages,
        states,
        GaugeMetricFamily("meterhouse_ingestion_queue_age_seconds", "How long the oldest queued job waits.", age_s),
        GaugeMetricFamily("meterhouse_ingestion_jobs_waiting", "Running jobs that wait for ClickHouse.", waiting),
    ]


def _stage_seconds() -> dict[str, float]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT stage, sum(seconds::float)"
            " FROM ingestion_ingestionjob, jsonb_each_text(stage_seconds) AS spent(stage, seconds)"
            " WHERE stage = ANY(%s) GROUP BY stage",
            [list(STAGES)],
        )
        found = dict(cursor.fetchall())
    return {stage: found.get(stage, 0.0) for stage in STAGES}
