"""What a job writes down of itself while it is at work: the chunk that it begins, and what became of it."""

import resource
import sys
import time
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from config.clickhouse.locks import holds
from ingestion.engines import LoadableChunk
from ingestion.formats.batches import Reject
from ingestion.loader import Loaded
from ingestion.models import DeadLetter, IngestionJob
from ingestion.outages import lock_lost

DEAD_LETTER_BATCH = 2_000


def announce(job: IngestionJob) -> datetime:
    """The next chunk's `ingested_at`, written down before its rows: by it a second attempt knows the rows of the first."""
    if job.chunk_at is not None:
        return job.chunk_at
    now = timezone.now()
    now -= timedelta(microseconds=now.microsecond % 1000)
    job.chunk_at = now
    job.save(update_fields=["chunk_at"])
    return now


def checkpoint(job: IngestionJob, chunk: LoadableChunk, loaded: Loaded, *, lock: str) -> None:
    """Counts, dead letters and the place to go on from, all in one transaction. Raises `LockLost`."""
    job.rows_read += chunk.rows_read
    job.rows_loaded += loaded.loaded
    job.rows_duplicate += loaded.duplicate
    job.rows_rejected += len(chunk.rejects)
    job.bytes_read += chunk.bytes_read
    job.chunks_done, job.goes_on_at, job.chunk_at = chunk.number + 1, chunk.goes_on_at, None
    job.attempts = 0
    for stage, seconds in chunk.seconds.items():
        job.stage_seconds[stage] = round(job.stage_seconds.get(stage, 0.0) + seconds, 3)
    job.peak_memory_bytes = max(job.peak_memory_bytes, peak_memory_bytes())
    with transaction.atomic():
        # A connection that was lost while the chunk was loaded is replaced without a word: then this job may be another's.
        if not holds(lock):
            raise lock_lost(job)
        DeadLetter.objects.bulk_create(_letters(job, chunk.rejects), batch_size=DEAD_LETTER_BATCH)
        job.save(
            update_fields=[
                "rows_read", "rows_loaded", "rows_duplicate", "rows_rejected", "bytes_read", "chunks_done", "goes_on_at",
                "chunk_at", "attempts", "stage_seconds", "busy_seconds", "peak_memory_bytes",
            ]
        )  # fmt: skip
    # Two chunks of one job never share an ingested_at: by it a repeated attempt knows its own rows.
    time.sleep(0.001)


def _letters(job: IngestionJob, rejects: list[Reject]) -> list[DeadLetter]:
    now = timezone.now()
    return [
        DeadLetter(
            job=job,
            row=reject.row,
            column=reject.column[:200],
            reason=reject.reason,
            message=reject.message.replace("\x00", ""),
            raw=reject.raw,
            created_at=now,
        )
        for reject in rejects
    ]


def peak_memory_bytes() -> int:
    """The most memory that this process has had at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
