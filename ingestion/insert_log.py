"""Which inserts into `records` were begun, in their order, by whatever job or process.

A loader that keeps the ids it has seen in memory learns from it what others have added since. An insert is announced before its
rows, under the writer's lock, so that rows are never there without their announcement.
"""

from collections.abc import Sequence
from datetime import datetime

from django.db.models import Max

from ingestion.models import RecordsInsert


def announce(at: datetime) -> int:
    """Writes down that rows with this `ingested_at` are about to come; returns its place in the order."""
    return RecordsInsert.objects.create(ingested_at=at).pk


def newest() -> int:
    """The place of the last announced insert, 0 when there is none."""
    return RecordsInsert.objects.aggregate(newest=Max("pk"))["newest"] or 0


def since(place: int, *, limit: int) -> Sequence[tuple[int, datetime]]:
    """Place and `ingested_at` of the first `limit` inserts that were announced after `place`, in order."""
    later = RecordsInsert.objects.filter(pk__gt=place).order_by("pk")
    return list(later.values_list("pk", "ingested_at")[:limit])
