"""What the worker does for the money: the tasks of CELERY_BEAT_SCHEDULE."""

from django.utils import timezone

from config.celery import app
from credits import verify


@app.task(name="credits.verify_ledger")
def verify_ledger() -> None:
    """Compares every account, and repairs nothing."""
    verify.verify(now=timezone.now())
