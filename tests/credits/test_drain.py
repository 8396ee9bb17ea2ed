"""The drain as a process: what it does when a store drops it."""

import os
import uuid

import psycopg
import pytest
from django.db import connection

from accounts.models import Account
from config.redis import PARTITIONS, money
from credits import counters, drain, metering
from tests.factories import make_customer, make_usage


def test_the_drain_goes_on_when_postgres_dropped_its_connection(stores: None) -> None:
    customer = make_customer(credits=10)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=3)
    metering.settle(hold, total=3, usage=make_usage())
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [backend])
    passes = iter(range(3))
    drain.run(stopping=lambda: next(passes, None) is None)
    assert Account.objects.get(pk=customer.account.pk).balance == 7


@pytest.mark.parametrize("reported", ["[1]", "{", '{"rows":"many"}', "null"])
def test_usage_that_cannot_be_read_is_passed_over(stores: None, reported: str) -> None:
    customer = make_customer(credits=10)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    fields = {
        "account": str(customer.number),
        "epoch": "1",
        "seq": "",
        "debit": "0",
        "total": "0",
        "operation": str(uuid.uuid4()),
        "key": customer.key_id,
        "usage": reported,
    }
    money().xadd(counters.journal_key(customer.number % PARTITIONS), fields)  # type: ignore[arg-type]
    assert drain.drain_once().usage_events >= 1
    assert drain.drain_once().usage_events == 0
