"""How long uploaded files are kept: until nobody has loaded them for days, or their job and its retries need them no more."""

import uuid
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q

from ingestion import upload_files
from ingestion.models import IngestionJob, Upload

log = structlog.get_logger(__name__)

REMOVED_MAX = 100
_State = IngestionJob.State
_UNDER_WAY = (_State.QUEUED, _State.RUNNING, _State.ROLLING_BACK)
# How a job ended whose file nobody reads again.
_ENDED_WELL = (_State.DONE, _State.SKIPPED, _State.ROLLED_BACK)


def remove_old(*, now: datetime) -> int:
    """Removes uploads past their time, REMOVED_MAX at most, and files that belong to none. Returns how many.

    What was never started goes with its row after INGEST_UPLOAD_DAYS. The file of a job stays INGEST_UPLOAD_DAYS after it was
    loaded without a rejected row, else INGEST_UPLOAD_KEPT_DAYS after its end or that of its last retry: that long rejected
    rows can be read again, and a stopped job can go on.
    """
    unused = now - timedelta(days=settings.INGEST_UPLOAD_DAYS)
    kept = now - timedelta(days=settings.INGEST_UPLOAD_KEPT_DAYS)
    removed = 0
    never_started = Upload.objects.filter(job=None, created_at__lt=unused).exclude(state=Upload.State.LOOKING)
    for key in list(never_started.order_by("created_at").values_list("pk", flat=True)[:REMOVED_MAX]):
        removed += _forget(key)
    well = Q(job__state__in=_ENDED_WELL, job__rows_rejected=0, job__finished_at__lt=unused)
    needed = Q(job__state__in=_UNDER_WAY) | Q(job__retries__state__in=_UNDER_WAY)
    needed |= Q(job__retries__finished_at__gte=kept)
    started = Upload.objects.filter(is_stored=True, removed_at=None, job__isnull=False)
    over = started.filter(well | Q(job__finished_at__lt=kept)).exclude(needed)
    for upload in over.order_by("created_at")[: REMOVED_MAX - removed]:
        if upload_files.remove(Path(upload.path)):
            Upload.objects.filter(pk=upload.pk).update(removed_at=now)
            removed += 1
    return removed + _remove_orphans(REMOVED_MAX - removed)


def _forget(key: uuid.UUID) -> int:
    with transaction.atomic():
        # Somebody may be starting it at this moment.
        upload = Upload.objects.select_for_update(of=("self",)).filter(pk=key, job=None).first()
        if upload is None:
            return 0
        path, is_stored = Path(upload.path), upload.is_stored
        upload.delete()
    if is_stored:
        upload_files.remove(path)
    return 1


def _remove_orphans(most: int) -> int:
    """Files of uploads that broke off when their process died, or whose row went without them."""
    removed = 0
    for path in upload_files.orphans():
        if removed >= most:
            break
        if not Upload.objects.filter(pk=path.name.partition(".")[0]).exists():
            removed += upload_files.remove(path)
            log.info("orphaned_upload_removed", file=path.name)
    return removed
