"""Clients of ClickHouse: one a process and role, and an error of our own when it is away."""

import os

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from django.test import override_settings

from config.clickhouse import client as clients
from config.clickhouse import data_version
from config.clickhouse.client import StoreUnavailable, store_errors

pytestmark = pytest.mark.usefixtures("stores")


def test_writer_is_made_once() -> None:
    assert clients.writer() is clients.writer()
    assert clients.writer() is not clients.reader()


def test_a_forked_process_makes_clients_of_its_own() -> None:
    mine = clients.writer()
    child = os.fork()
    if child == 0:
        same = clients.writer() is mine
        answer = clients.writer().command("SELECT 1")
        os._exit(0 if not same and answer == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert clients.writer() is mine


def test_reader_may_not_write() -> None:
    with pytest.raises(DatabaseError):
        clients.reader().command("CREATE TABLE reader_wrote (a UInt8) ENGINE = Memory")


@pytest.mark.parametrize(
    ("reader_url", "expected"),
    [
        ("", "http://reader:@127.0.0.1:8123/meterhouse"),
        ("http://other:pw@ch:8123/x", "http://other:pw@ch:8123/x"),
    ],
)
def test_reader_url(reader_url: str, expected: str) -> None:
    with override_settings(
        CLICKHOUSE_URL="http://default:pw@127.0.0.1:8123/meterhouse", CLICKHOUSE_READER_URL=reader_url
    ):
        assert clients.reader_url() == expected


def test_a_store_that_is_away_is_503() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        clients.connect("http://default:@127.0.0.1:9/x", read_timeout_s=1)
    assert (caught.value.status, caught.value.code) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "127.0.0.1" not in caught.value.message


def test_what_the_server_refuses_is_no_outage() -> None:
    with pytest.raises(DatabaseError), store_errors():
        clients.writer().command("SELECT nonsense")


def test_the_data_version_always_grows() -> None:
    versions = [data_version.raise_version() for _ in range(5)]
    assert versions == sorted(set(versions))
    assert data_version.current() == versions[-1]
