import json
from typing import Any

import pytest
from django.test import Client


def get(api: Client, address: str) -> tuple[int, Any]:
    response = api.get(address)
    return response.status_code, json.loads(response.content)


def test_health_reports_every_store(api: Client) -> None:
    assert get(api, "/health") == (
        200,
        {"ok": True, "status": "ok", "postgres": True, "redis": True, "clickhouse": True},
    )


@pytest.mark.parametrize("name", ["postgres", "redis", "clickhouse"])
def test_health_is_503_when_a_store_is_down(api: Client, request: pytest.FixtureRequest, name: str) -> None:
    request.getfixturevalue(f"{name}_away")
    up = {"postgres": True, "redis": True, "clickhouse": True, name: False}
    assert get(api, "/health") == (503, {"ok": False, "status": "degraded", **up})


@pytest.mark.usefixtures("postgres_away", "redis_away", "clickhouse_away")
def test_liveness_asks_no_store(api: Client) -> None:
    assert get(api, "/api/v1/health") == (200, {"ok": True, "status": "ok"})


def test_readiness_stands_without_redis(api: Client, redis_away: None) -> None:
    expected = {"ready": True, "can_decide": False, "can_answer": True}
    assert get(api, "/api/v1/health/ready") == (200, expected)


def test_readiness_stands_without_clickhouse(api: Client, clickhouse_away: None) -> None:
    expected = {"ready": True, "can_decide": True, "can_answer": False}
    assert get(api, "/api/v1/health/ready") == (200, expected)


@pytest.mark.usefixtures("redis_away", "clickhouse_away")
def test_readiness_is_503_when_requests_can_be_neither_decided_nor_answered(api: Client) -> None:
    assert get(api, "/api/v1/health/ready") == (503, {"ready": False, "can_decide": False, "can_answer": False})


@pytest.mark.parametrize("address", ["/health", "/api/v1/health", "/api/v1/health/ready"])
def test_health_refuses_to_be_changed(api: Client, address: str) -> None:
    assert api.post(address).status_code == 405
