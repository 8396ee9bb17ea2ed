"""What the worker does for the money: the tasks of CELERY_BEAT_SCHEDULE."""

import structlog
from django.db import OperationalError
from django.utils import timezone

from config.celery import app
from config.clickhouse.client import StoreUnavailable
from config.redis import RedisUnavailable
from credits import alert_delivery, alerts, verification
from credits.models import VerificationRun

log = structlog.get_logger(__name__)

# A large ledger takes long to compare; still below the broker's visibility timeout.
VERIFY_SOFT_LIMIT_S = 3000
VERIFY_LIMIT_S = 3300


@app.task(name="credits.verify_ledger", soft_time_limit=VERIFY_SOFT_LIMIT_S, time_limit=VERIFY_LIMIT_S)
def verify_ledger() -> None:
    """Compares every account, repairs nothing, and keeps the result; the next run makes up for one that fails."""
    try:
        verification.run(now=timezone.now(), trigger=VerificationRun.Trigger.TASK)
    except (verification.VerificationRunning, *RedisUnavailable, OperationalError, StoreUnavailable) as error:
        log.warning("verification_left_out", error=type(error).__name__, reason=str(error)[:300])


@app.task(name="credits.evaluate_alerts")
def evaluate_alerts() -> None:
    """Finds out who has to be told what; what one run misses the next one finds."""
    try:
        alerts.evaluate(now=timezone.now())
    except OperationalError as error:
        log.warning("alerts_left_out", error=type(error).__name__)


@app.task(name="credits.deliver_alerts")
def deliver_alerts() -> None:
    """Sends the alerts that are due; several runs at once share them out."""
    try:
        alert_delivery.deliver_due()
    except OperationalError as error:
        log.warning("alert_deliveries_left_out", error=type(error).__name__)
