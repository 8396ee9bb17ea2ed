"""deploy/monitoring: rules that Prometheus can read, about figures that the product gives."""

import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from django.conf import LazySettings
from django.test import Client

from ingestion.models import IngestionJob
from tests.deploy.composed import ROOT
from tests.factories import make_verification

pytestmark = pytest.mark.usefixtures("stores")

FOLDER = ROOT / "deploy" / "monitoring"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
TOKEN = "of-the-tests-0123456789"


def _selectors(node: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """(name, labels that must be equal) of every series in a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name or "", {match.name: match.value for match in node.matchers.matchers}
    for name in ("lhs", "rhs", "expr", "vector_selector", "args"):
        found = getattr(node, name, None)
        for part in found if isinstance(found, list) else [found]:
            if part is not None:
                yield from _selectors(part)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
class TestEveryRule:
    def test_is_about_figures_that_the_product_gives(self, rule: dict[str, Any], settings: LazySettings) -> None:
        make_verification()
        settings.METRICS_TOKEN = TOKEN
        text = Client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).content.decode()
        given = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
        named = list(_selectors(promql_parser.parse(rule["expr"])))
        assert named
        assert {name for name, _ in named} <= given

    def test_names_states_that_there_are(self, rule: dict[str, Any]) -> None:
        for name, labels in _selectors(promql_parser.parse(rule["expr"])):
            if name == "meterhouse_ingestion_jobs":
                assert labels["state"] in IngestionJob.State.values

    def test_says_how_urgent_it_is_and_what_to_do(self, rule: dict[str, Any]) -> None:
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert set(rule["annotations"]) == {"summary", "action"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))


def test_every_alert_has_a_name_of_its_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


def test_the_configuration_reads_the_rules_and_the_page_that_exists() -> None:
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (scraped,) = configuration["scrape_configs"]
    assert configuration["rule_files"] == ["alerts.yml"]
    assert (scraped["metrics_path"], scraped["static_configs"]) == ("/metrics", [{"targets": ["web:8000"]}])
