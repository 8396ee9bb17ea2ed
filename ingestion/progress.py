"""How far a job is, for a page that asks again and again: counts of its last checkpoint, rate, time left."""

from dataclasses import dataclass
from datetime import datetime

from ingestion.models import IngestionJob

_State = IngestionJob.State


@dataclass(frozen=True)
class JobProgress:
    """`fraction` 0 to 1 of the file's bytes read, None while its size is not known; `eta_s` None when it cannot be told."""

    state: str
    text: str
    fraction: float | None
    rows_read: int
    rows_per_s: float
    eta_s: float | None
    is_open: bool


def progress(job: IngestionJob) -> JobProgress:
    """How far the job is, by its last checkpoint. Seconds; rows a second of work, pauses left out."""
    fraction = min(1.0, job.bytes_read / job.content_bytes) if job.content_bytes else None
    if job.state in (_State.DONE, _State.NEEDS_REVIEW):
        fraction = 1.0
    eta_s = None
    if job.state == _State.RUNNING and fraction:
        eta_s = job.busy_seconds * (1 - fraction) / fraction
    return JobProgress(
        state=job.state,
        text=state_text(job),
        fraction=fraction,
        rows_read=job.rows_read,
        rows_per_s=job.rows_per_second,
        eta_s=eta_s,
        is_open=job.state in (_State.QUEUED, _State.RUNNING, _State.ROLLING_BACK),
    )


def state_text(job: IngestionJob) -> str:
    """The job's state in words, with what it waits for."""
    if job.state == _State.RUNNING and job.cancel_requested_at is not None:
        return "running, to be cancelled after this chunk"
    if job.state == _State.RUNNING and job.waiting_since is not None:
        return f"waiting for the store since {_clock(job.waiting_since)}"
    if job.state == _State.RUNNING and not job.sha256:
        return "looking at the file"
    if job.state == _State.CANCELLED and job.rows_loaded:
        return f"cancelled; its {job.rows_loaded:,} loaded rows stay until it is rolled back"
    if job.state == _State.ROLLED_BACK and job.rows_handed_over:
        return f"rolled back; {job.rows_handed_over:,} of its rows stay, for other jobs delivered them too"
    return job.get_state_display()


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
