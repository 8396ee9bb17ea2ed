"""The drain as a process: what it does when a store drops it."""

import os

import psycopg
from django.db import connection

from accounts.models import Account
from credits import drain, metering
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
