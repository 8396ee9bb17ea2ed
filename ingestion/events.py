"""What happened to a job, in the order in which it happened."""

from django.utils import timezone

from ingestion.models import IngestionEvent, IngestionJob

KEPT = 200
MESSAGE_MAX = 1000


def note(job: IngestionJob, kind: str, message: str = "", *, actor: str = "") -> IngestionEvent:
    """Writes an event down. Of each job the newest KEPT stay."""
    event = IngestionEvent.objects.create(
        job=job, at=timezone.now(), kind=kind, message=message.replace("\x00", "")[:MESSAGE_MAX], actor=actor
    )
    kept = IngestionEvent.objects.filter(job=job).values_list("id", flat=True)[KEPT - 1 : KEPT]
    IngestionEvent.objects.filter(job=job, id__lt=next(iter(kept), 0)).delete()
    return event
