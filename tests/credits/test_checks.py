"""What a deployment is told before money depends on it."""

import pytest
from django.conf import settings
from django.core.checks import CheckMessage
from django.db import connection
from django.test import override_settings

from config.redis import money
from credits import alert_checks, checks
from tests.outages import redis_away

pytestmark = pytest.mark.usefixtures("stores")


def ids(messages: list[CheckMessage]) -> list[str | None]:
    return [message.id for message in messages]


def test_a_query_that_may_outlive_its_hold_is_an_error() -> None:
    assert checks.check_durations(None) == []
    with override_settings(QUERY_TIMEOUT_S=30, HOLD_S=30):
        assert ids(checks.check_durations(None)) == ["credits.E001"]


def test_a_cache_in_the_money_database_is_an_error_and_on_its_server_a_warning() -> None:
    with override_settings(CACHE_URL=settings.REDIS_URL):
        assert ids(checks.check_redis_urls(None)) == ["credits.E002"]
    with override_settings(REDIS_URL="redis://a/0", CACHE_URL="redis://a/1"):
        assert ids(checks.check_redis_urls(None)) == ["credits.W003"]
    with override_settings(REDIS_URL="redis://a/0", CACHE_URL="redis://b/0"):
        assert checks.check_redis_urls(None) == []


def test_several_servers_that_are_not_called_a_cluster_are_an_error() -> None:
    with override_settings(REDIS_URL="redis://a/0,redis://b/0", CACHE_URL="redis://c/0"):
        assert ids(checks.check_redis_urls(None)) == ["credits.E004"]
        with override_settings(REDIS_CLUSTER=True):
            assert checks.check_redis_urls(None) == []


@pytest.mark.parametrize(
    ("name", "value", "check_id"),
    [
        ("maxmemory-policy", "allkeys-lru", "credits.E011"),
        ("appendonly", "no", "credits.E012"),
        ("repl-backlog-ttl", "3600", "credits.W014"),
    ],
)
def test_a_redis_that_may_lose_credits_is_named(name: str, value: str, check_id: str) -> None:
    sound = {"maxmemory-policy": "noeviction", "appendonly": "yes", "repl-backlog-ttl": "0"}
    before = {key: str(money().config_get(key)[key]) for key in sound}
    try:
        for key, good in sound.items():
            money().config_set(key, good)
        assert checks.check_redis(None) == []
        money().config_set(name, value)
        assert ids(checks.check_redis(None)) == [check_id]
    finally:
        for key, good in before.items():
            money().config_set(key, good)


def test_a_redis_that_cannot_be_asked_is_an_error() -> None:
    with redis_away():
        assert ids(checks.check_redis(None)) == ["credits.E010"]


def test_commits_that_are_not_waited_for_are_an_error() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
        assert checks.check_postgres(None) == []
        cursor.execute("SET synchronous_commit = off")
        assert ids(checks.check_postgres(None)) == ["credits.E021"]
        cursor.execute("RESET synchronous_commit")


def test_the_reader_of_the_embedded_engine_is_read_only_and_limited() -> None:
    assert checks.check_clickhouse(None) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALERT_LOW_CREDITS", -1), ("ALERT_LOW_PERCENT", 100), ("ALERT_EXPIRING_DAYS", 91), ("ALERT_EXPIRING_DAYS", -1)],
)
def test_a_default_of_alerts_that_nobody_could_choose_is_an_error(name: str, value: int) -> None:
    assert alert_checks.check_alert_defaults(None) == []
    with override_settings(**{name: value}):
        assert ids(alert_checks.check_alert_defaults(None)) == ["credits.E041"]


def test_a_misspelt_network_for_webhooks_is_an_error() -> None:
    with override_settings(ALERT_WEBHOOK_ALLOWED_NETWORKS=["10.1.2.0/24", "10.1.2.3/24", "localhost"]):
        assert ids(alert_checks.check_webhook_networks(None)) == ["credits.E042", "credits.E042"]
    with override_settings(ALERT_WEBHOOK_ALLOWED_NETWORKS=["10.1.2.0/24", "fd00::/64"]):
        assert alert_checks.check_webhook_networks(None) == []
