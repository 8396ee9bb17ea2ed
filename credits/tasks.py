"""What the worker does for the money: the tasks of CELERY_BEAT_SCHEDULE."""

import structlog
from django.db import OperationalError
from django.utils import timezone

from config.celery import app
from config.clickhouse.client import StoreUnavailable
from config.redis import RedisUnavailable
from credits import verification
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
