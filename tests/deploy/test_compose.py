"""docker-compose.yml: nothing runs as root or with a secret that somebody else knows, and nothing starts too early."""

import re
from typing import Any

import pytest

from tests.config.test_settings import read_settings
from tests.deploy.composed import ROOT, compose, example, filled, made, ours, services, variables

# What the programs themselves read from the environment, beside the product's settings.
PROGRAMS = {
    "PROMETHEUS_MULTIPROC_DIR", "GRANIAN_WORKERS", "GRANIAN_BLOCKING_THREADS", "TMPDIR",
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION",
    "SPARK_MASTER_HOST", "SPARK_MASTER_PORT", "SPARK_MASTER_WEBUI_PORT", "SPARK_WORKER_CORES", "SPARK_WORKER_MEMORY",
    "SPARK_WORKER_WEBUI_PORT", "PYSPARK_SUBMIT_ARGS", "SPARK_WORKER_DIR", "SPARK_LOCAL_DIRS",
    "SPARK_DAEMON_MEMORY", "SPARK_DAEMON_JAVA_OPTS",
}  # fmt: skip
SECRET = re.compile(r"SECRET|PASSWORD|PEPPER|TOKEN|AUTH|_PASS\b")
ONE_SHOT = {"migrate"}
FROM_ELSEWHERE = {"postgres", "redis", "cache", "clickhouse", "rabbitmq", "objects", "spark-master", "spark-worker"}


def every(services_: dict[str, Any]) -> list[Any]:
    return [pytest.param(name, service, id=name) for name, service in services_.items()]


def test_every_process_and_store_has_a_service() -> None:
    processes = {line.split(":")[0] for line in (ROOT / "Procfile").read_text().splitlines()}
    assert processes <= set(services())
    assert set(services()) >= FROM_ELSEWHERE


@pytest.mark.parametrize("name", ["drain", "worker", "ingestion", "beat"])
def test_a_process_is_started_as_the_procfile_does(name: str) -> None:
    lines = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    assert services()[name]["command"] == ["python", *lines[name].split()[1:]]


@pytest.mark.parametrize(("name", "service"), every(services()))
class TestEveryService:
    def test_is_not_root(self, name: str, service: dict[str, Any]) -> None:
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])

    def test_has_no_more_rights_than_its_user(self, name: str, service: dict[str, Any]) -> None:
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service

    def test_says_whether_it_is_healthy(self, name: str, service: dict[str, Any]) -> None:
        if name in ONE_SHOT:
            assert service["healthcheck"] == {"disable": True}
        else:
            assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
            assert {"interval", "timeout", "start_period", "retries"} < set(service["healthcheck"])

    def test_comes_back_by_itself(self, name: str, service: dict[str, Any]) -> None:
        assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")

    def test_has_a_limit_of_memory_and_time_to_stop(self, name: str, service: dict[str, Any]) -> None:
        assert re.fullmatch(r"\d+[mg]|\$\{[A-Z_]+_MEMORY:-\d+g\}", service["deploy"]["resources"]["limits"]["memory"])
        assert re.fullmatch(r"\d+s", service["stop_grace_period"])

    def test_listens_outside_only_where_the_operator_says(self, name: str, service: dict[str, Any]) -> None:
        for port in service.get("ports", []):
            assert filled(port, {}).startswith("127.0.0.1:")

    def test_pins_its_image(self, name: str, service: dict[str, Any]) -> None:
        tag = filled(service["image"], {}).rpartition(":")[2]
        assert tag not in {"", "latest"}

    def test_has_no_secret_but_given_ones(self, name: str, service: dict[str, Any]) -> None:
        for setting, value in service.get("environment", {}).items():
            if SECRET.search(setting):
                found = variables(value)
                assert found, setting
                assert all(operator == ":?" for operator, _ in found.values()), setting

    def test_starts_after_what_it_needs(self, name: str, service: dict[str, Any]) -> None:
        for needed, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
            assert how == {"condition": wanted}
            assert needed in services()


@pytest.mark.parametrize(("name", "service"), every(ours()))
def test_our_services_write_nowhere_but_into_memory_and_volumes(name: str, service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["tmpfs"][0].startswith("/tmp:uid=10001,mode=0700")  # noqa: S108 - in the container


@pytest.mark.parametrize(("name", "service"), every(ours()))
def test_our_services_are_given_settings_that_exist(name: str, service: dict[str, Any]) -> None:
    assert set(service["environment"]) - PROGRAMS <= set(read_settings())


def test_who_needs_the_schemas_waits_for_the_migrations() -> None:
    for name in ("web", "drain", "worker", "ingestion", "beat"):
        assert services()[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert set(services()["migrate"]["depends_on"]) == {"postgres", "clickhouse"}


def test_the_example_lists_every_variable_and_no_other() -> None:
    assert set(variables(compose())) == set(example())


def test_the_example_states_the_default_that_the_file_takes() -> None:
    for name, (operator, default) in variables(compose()).items():
        assert example()[name] == (default if operator == ":-" else ""), name


def test_a_missing_secret_says_what_to_do() -> None:
    refused = {name: words for name, (operator, words) in variables(compose()).items() if operator == ":?"}
    assert set(refused) == {name for name, value in made().items() if value and not example()[name]}
    assert set(refused.values()) == {"make one with deploy/compose/make-env.sh"}


def test_made_secrets_are_long_fit_into_urls_and_differ() -> None:
    secrets = [value for name, value in made().items() if not example()[name] and value]
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in secrets)
    assert len(set(secrets)) == len(secrets) >= 10


def test_the_network_of_the_stores_leads_nowhere() -> None:
    assert compose()["networks"]["stores"] == {"internal": True}
    outside = {name for name, service in services().items() if "outside" in service["networks"]}
    assert outside == {"migrate", "web", "drain", "worker", "ingestion", "beat"}


def test_every_volume_is_used_and_every_used_one_is_there() -> None:
    used = {
        volume.split(":")[0]
        for service in services().values()
        for volume in service.get("volumes", [])
        if not volume.startswith(".")
    }
    assert used == set(compose()["volumes"])


def test_mounted_files_exist() -> None:
    for service in services().values():
        for volume in service.get("volumes", []):
            if volume.startswith("."):
                assert (ROOT / volume.split(":")[0]).is_file()
                assert volume.endswith(":ro")
