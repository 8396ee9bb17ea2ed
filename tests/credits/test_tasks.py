"""What the worker does for the money, run by a real worker."""

import time

from accounts.models import Account
from credits import metering
from credits.tasks import verify_ledger
from tests.factories import make_customer, make_usage
from tests.faults.processes import Worker

DONE_WITHIN_S = 20.0


def test_the_worker_runs_what_is_queued(stores: None) -> None:
    customer = make_customer(credits=10)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=3)
    metering.settle(hold, total=3, usage=make_usage())
    worker = Worker()
    try:
        verify_ledger.delay()
        deadline = time.monotonic() + DONE_WITHIN_S
        while Account.objects.get(pk=customer.account.pk).balance != 7 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        worker.close()
    assert Account.objects.get(pk=customer.account.pk).balance == 7
