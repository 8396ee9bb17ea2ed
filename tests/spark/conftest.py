"""A Spark of two threads and their Python processes, started once a module; executors find the stores of this test worker."""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings
from django.test import override_settings

from ingestion.engines import spark_session

PART_BYTES = 30_000


@pytest.fixture(scope="module")
def spark(clickhouse_schema: None) -> Iterator[None]:
    """Spark on this machine, with parts of a few kilobytes, so that a small file has many."""
    before = os.environ["DATABASE_URL"]
    path = f"/{settings.DATABASES['default']['NAME']}"
    os.environ["DATABASE_URL"] = urlunsplit(urlsplit(before)._replace(path=path))
    with override_settings(SPARK_MASTER="local[2]", SPARK_PART_BYTES=PART_BYTES):
        spark_session.session()
        yield
        spark_session.end()
    os.environ["DATABASE_URL"] = before
