"""The Dockerfile: what it copies is there and enough, nothing runs as root, everything is pinned."""

import ast
import re
import sys
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from django.conf import settings

from tests.deploy.composed import ROOT, copied, services, stages

FINAL = ("product", "spark", "objects")
PACKAGES = ("config", "accounts", "credits", "ingestion", "search")


def test_the_last_stage_is_the_product() -> None:
    assert list(stages())[-1] == "product"


@pytest.mark.parametrize("name", FINAL)
def test_no_image_runs_as_root(name: str) -> None:
    assert stages()[name].last("USER") == "10001:10001"


def test_every_target_of_the_compose_file_is_a_stage_with_that_user() -> None:
    for service in services().values():
        if "build" in service:
            assert stages()[service["build"]["target"]].last("USER") == service["user"]


@pytest.mark.parametrize("name", list(stages()))
def test_every_base_is_pinned_by_tag(name: str) -> None:
    parent = stages()[name].parent
    assert parent in stages() or re.fullmatch(r"[a-z0-9./-]+:[\w.-]*\d[\w.-]*", parent)


@pytest.mark.parametrize("name", list(stages()))
def test_what_is_copied_exists(name: str) -> None:
    for source, _ in copied(stages()[name]):
        assert (ROOT / source).exists()


def test_every_package_of_the_product_is_copied() -> None:
    sources = {source for source, _ in copied(stages()["application"])}
    local = {app.partition(".")[0] for app in settings.INSTALLED_APPS if (ROOT / app.partition(".")[0]).is_dir()}
    assert sources == {"manage.py", "templates", *local}
    assert local == set(PACKAGES)


def test_the_build_context_holds_what_is_copied_and_no_settings() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = [line.removeprefix("!") for line in lines if line.startswith("!")]
    for stage in stages().values():
        for source, _ in copied(stage):
            assert any(fnmatch(source, pattern) for pattern in let_in), source
    assert not [pattern for pattern in let_in if fnmatch(".env", pattern) or fnmatch("compose.env", pattern)]


@pytest.mark.parametrize("name", list(stages()))
def test_no_stage_is_given_a_secret(name: str) -> None:
    for instruction, value in stages()[name].steps:
        assert instruction not in {"ARG", "ADD"}
        assert not re.search(r"SECRET|PASSWORD|TOKEN|PEPPER", value)


def test_packages_are_installed_with_their_hashes() -> None:
    for stage in stages().values():
        for instruction, value in stage.steps:
            if instruction == "RUN" and "pip install" in value:
                assert "--require-hashes" in value


def test_the_product_is_asked_whether_it_lives() -> None:
    assert "config.alive" in (stages()["product"].last("HEALTHCHECK") or "")


def test_every_library_that_the_product_imports_is_locked_for_it() -> None:
    locked = {
        re.sub(r"[-_.]+", "-", match[1]).lower()
        for match in re.finditer(
            r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements" / "runtime.txt").read_text(), re.MULTILINE
        )
    }
    known = packages_distributions()
    missing = {
        (path.relative_to(ROOT).as_posix(), module)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for module in _imported(path)
        if module not in sys.stdlib_module_names
        and module not in PACKAGES
        and not {re.sub(r"[-_.]+", "-", name).lower() for name in known.get(module, [])} & locked
        and module not in {"pyspark", "py4j"}  # in requirements/spark.txt
    }
    assert missing == set()


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []  # never imported when it runs
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
