"""`GET /metrics`: who may read it, what stands in it, and what it says while a store is away."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import LazySettings
from django.test import Client, override_settings
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from credits import drain, metering
from credits.models import VerificationRun
from tests.factories import make_customer, make_usage, make_verification
from tests.faults.processes import Web
from tests.outages import postgres_away, redis_away

pytestmark = pytest.mark.usefixtures("stores")

TOKEN = "a token of the tests 0123456789"
LABELS = {"endpoint", "status", "code", "script", "le", "store", "consumer", "reason", "step"}
LABELS |= {"outcome", "stage", "state"}


@pytest.fixture
def token(settings: LazySettings) -> None:
    settings.METRICS_TOKEN = TOKEN


def _get(*, given: str | None = TOKEN, address: str = "203.0.113.9", **headers: str) -> Any:
    sent = {"Authorization": f"Bearer {given}"} if given is not None else {}
    return Client().get("/metrics", headers={**sent, **headers}, REMOTE_ADDR=address)


def _values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _value(name: str, *, text: str | None = None, **labels: str) -> float | None:
    """One sample; None when there is none."""
    return _values(text or _get().content.decode()).get((name, tuple(sorted(labels.items()))))


def test_there_are_no_metrics_unless_they_are_configured() -> None:
    assert _get().status_code == 404


def test_debug_alone_opens_them() -> None:
    with override_settings(DEBUG=True):
        assert _get(given=None).status_code == 200


@pytest.mark.parametrize("given", [None, "", "wrong", f"{TOKEN}x", "ünwahr"])
def test_without_the_token_they_are_refused(token: None, given: str | None) -> None:
    response = _get(given=given)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "METRICS_REFUSED")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_that_is_not_set_opens_nothing(settings: LazySettings) -> None:
    settings.METRICS_NETWORKS = ["192.0.2.0/24"]
    assert _get(given="").status_code == 401


def test_with_the_token_they_are_text_for_prometheus(token: None) -> None:
    response = _get()
    assert (response.status_code, response.headers["Content-Type"].split(";")[0]) == (200, "text/plain")


@pytest.mark.parametrize(("address", "status"), [("192.0.2.7", 200), ("192.0.3.7", 401)])
def test_an_allowed_network_needs_no_token(settings: LazySettings, address: str, status: int) -> None:
    settings.METRICS_NETWORKS = ["192.0.2.0/24"]
    assert _get(given=None, address=address).status_code == status


def test_an_address_that_is_only_claimed_opens_nothing(settings: LazySettings) -> None:
    settings.METRICS_NETWORKS = ["192.0.2.0/24"]
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    assert _get(given=None, **forwarded).status_code == 401
    settings.TRUSTED_PROXIES = ["203.0.113.0/24"]
    assert _get(given=None, **forwarded).status_code == 200


def test_labels_name_no_account_and_no_key(token: None) -> None:
    customer = make_customer(credits=10)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    text = _get().content.decode()
    assert {label for _, labels in _values(text) for label, _ in labels} <= LABELS
    assert customer.key_id not in text


def test_requests_are_counted_by_address_and_status(token: None) -> None:
    labels = {"endpoint": "person", "status": "401"}
    before = _value("meterhouse_http_requests_total", **labels) or 0
    timed = _value("meterhouse_http_request_seconds_count", endpoint="person") or 0
    Client().get("/api/v1/person/one")
    Client().get("/api/v1/person/two")
    assert _value("meterhouse_http_requests_total", **labels) == before + 2
    assert _value("meterhouse_http_request_seconds_count", endpoint="person") == timed + 2


@pytest.mark.parametrize(("path", "name"), [("/no/such/page", "unknown"), ("/admin/login/", "admin")])
def test_many_addresses_share_one_name(token: None, path: str, name: str) -> None:
    before = _value("meterhouse_http_request_seconds_count", endpoint=name) or 0
    Client().get(path)
    assert _value("meterhouse_http_request_seconds_count", endpoint=name) == before + 1


def test_refusals_are_counted_by_code(token: None) -> None:
    before = _value("meterhouse_refusals_total", code="MISSING_KEY") or 0
    Client().get("/api/v1/credits")
    assert _value("meterhouse_refusals_total", code="MISSING_KEY") == before + 1


def test_admit_and_settle_are_timed(token: None) -> None:
    customer = make_customer(credits=10)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    before = [_value("meterhouse_redis_script_seconds_count", script=name) or 0 for name in ("admit", "settle")]
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=1)
    metering.settle(hold, total=1, usage=make_usage())
    after = [_value("meterhouse_redis_script_seconds_count", script=name) for name in ("admit", "settle")]
    assert after == [before[0] + 1, before[1] + 1]


def test_lag_stands_there_for_both_consumers(token: None) -> None:
    drain.drain_once()
    text = _get().content.decode()
    assert _value("meterhouse_drain_lag_seconds", text=text, consumer="ledger") == 0
    assert _value("meterhouse_drain_lag_seconds", text=text, consumer="usage") == 0


def test_the_last_ledger_check_stands_there(token: None) -> None:
    make_verification()
    assert _value("meterhouse_ledger_proven") == 1
    make_verification(differs=True)
    assert _value("meterhouse_ledger_proven") == 0


def test_a_ledger_check_that_broke_off_proves_nothing(token: None) -> None:
    make_verification()
    row = VerificationRun.objects.create(trigger="task", started_at=timezone.now())
    assert _value("meterhouse_ledger_proven") == 0
    row.delete()


def test_without_redis_the_rest_is_answered(token: None) -> None:
    with redis_away():
        text = _get().content.decode()
    assert _value("meterhouse_store_up", text=text, store="redis") == 0
    assert _value("meterhouse_store_up", text=text, store="postgres") == 1
    assert _value("meterhouse_drain_lag_seconds", text=text, consumer="ledger") is None
    assert _value("meterhouse_commands_open", text=text) is not None


def test_without_postgres_the_rest_is_answered(token: None) -> None:
    with postgres_away():
        text = _get().content.decode()
    assert _value("meterhouse_store_up", text=text, store="postgres") == 0
    assert _value("meterhouse_drain_lag_seconds", text=text, consumer="ledger") is not None
    assert _value("meterhouse_commands_open", text=text) is None


@pytest.fixture
def webs(tmp_path: Path) -> Iterator[list[Web]]:
    """Two web processes that count together."""
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "METRICS_TOKEN": TOKEN}
    started: list[Web] = []
    try:
        started += [Web(environment=shared)]
        started += [Web(environment=shared)]
        yield started
    finally:
        for web in started:
            web.close()


def test_web_processes_with_one_folder_count_together(webs: list[Web]) -> None:
    for web in webs:
        assert httpx.get(f"{web.url}/api/v1/fields", timeout=10).status_code == 401
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for web in webs:
        text = httpx.get(f"{web.url}/metrics", headers=headers, timeout=10).text
        assert _value("meterhouse_refusals_total", text=text, code="MISSING_KEY") == 2
