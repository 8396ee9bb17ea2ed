"""What the worker does for the money, run by a real worker and brought up by a real beat."""

import time

from django_celery_beat.models import IntervalSchedule, PeriodicTask

from config.celery import app
from config.schedule import Scheduler
from credits.models import VerificationRun
from tests.factories import make_customer
from tests.faults.processes import Beat, Worker

DONE_WITHIN_S = 30.0


def test_beat_queues_the_ledger_check_and_the_worker_carries_it_out(stores: None) -> None:
    make_customer(credits=10)
    Scheduler(app=app, lazy=True).update_from_dict(app.conf.beat_schedule)
    every_second, _ = IntervalSchedule.objects.get_or_create(every=1, period="seconds")
    PeriodicTask.objects.filter(name="verify-ledger").update(interval=every_second)
    last = VerificationRun.objects.order_by("-id").values_list("id", flat=True).first() or 0
    worker, beat = Worker(), Beat()
    try:
        ended = VerificationRun.objects.filter(id__gt=last, trigger="task", finished_at__isnull=False)
        deadline = time.monotonic() + DONE_WITHIN_S
        while not ended.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        beat.close()
        worker.close()
        PeriodicTask.objects.filter(name="verify-ledger").delete()
    run = ended.first()
    assert run is not None
    assert run.accounts >= 1
