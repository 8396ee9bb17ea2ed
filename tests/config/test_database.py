"""The pool of PostgreSQL connections."""

import psycopg
import pytest
from django.db import connection


@pytest.mark.usefixtures("committed_db")
def test_connections_that_broke_in_the_pool_are_replaced() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        broken = cursor.fetchone()[0]
    conninfo = connection.get_connection_params()
    connection.close()
    with psycopg.connect(dbname=conninfo["dbname"], host=conninfo.get("host"), user=conninfo.get("user")) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [broken])
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        assert cursor.fetchone()[0] != broken
