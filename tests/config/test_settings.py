"""`.env.example` tells the truth about `config/settings.py`, and secrets have no defaults outside DEBUG."""

import ast
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / ".env.example"
SOURCES = (ROOT / "config" / "settings.py", ROOT / "config" / "env.py")
SECRETS = ("SECRET_KEY", "ADMIN_SECRET", "KEY_PEPPER")
_SETTING = re.compile(r"# ([A-Z][A-Z0-9_]+)=(.*)")
# Defaults that are computed: what the example says of them is a sentence.
_COMPUTED = {"LOG_JSON"}


def read_settings() -> dict[str, Any]:
    """Every setting that the sources read → the literal default, '' for a secret, None where it is computed."""
    found: dict[str, Any] = {}
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
                continue
            reader, name = ast.unparse(node.func), str(node.args[0].value)
            if reader == "secret":
                found[name] = ""
            elif reader.startswith("env.") and reader != "env.read_env":
                default = next(keyword.value for keyword in node.keywords if keyword.arg == "default")
                try:
                    found[name] = ast.literal_eval(default)
                except ValueError:
                    found[name] = None
    return found


def _example() -> dict[str, str]:
    """Every setting of the example → its default as it is written there."""
    matches = map(_SETTING.fullmatch, EXAMPLE.read_text().splitlines())
    return {match[1]: match[2] for match in matches if match}


def _written(default: Any) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list):
        return ",".join(default)
    return str(default)


def _start(**environment: str) -> subprocess.CompletedProcess[str]:
    """Loads the settings in a process that knows nothing but `environment`."""
    return subprocess.run(
        [sys.executable, "-c", "import django; django.setup()"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "IGNORE_ENV_FILES": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_example_lists_every_setting_and_no_other() -> None:
    assert sorted(_example()) == sorted(read_settings())


def test_the_example_states_the_true_default_of_every_setting() -> None:
    settings = {name: default for name, default in read_settings().items() if name not in _COMPUTED}
    assert {name: _example()[name] for name in settings} == {name: _written(value) for name, value in settings.items()}


def test_the_example_explains_every_setting_on_the_line_above() -> None:
    lines = EXAMPLE.read_text().splitlines()
    unexplained = [
        line
        for above, line in itertools.pairwise(lines)
        if _SETTING.fullmatch(line) and not re.fullmatch(r"# [A-Z].*\.", above)
    ]
    assert unexplained == []


def test_the_example_copied_as_it_is_changes_nothing() -> None:
    assert [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")] == []


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", ["", "local-admin", "changeme", "fifteen-letters"])
def test_a_missing_published_or_short_secret_stops_the_start(name: str, value: str) -> None:
    secrets = {secret: f"{secret}-0123456789" for secret in SECRETS}
    started = _start(**{**secrets, name: value})
    assert started.returncode == 1
    assert started.stderr.splitlines()[-1].startswith(
        f"django.core.exceptions.ImproperlyConfigured: {name} is not set, is shorter than 16 characters"
    )


def test_secrets_of_ones_own_start_the_settings() -> None:
    started = _start(**{secret: f"{secret}-0123456789" for secret in SECRETS})
    assert (started.returncode, started.stderr) == (0, "")


def test_debug_starts_without_secrets() -> None:
    started = _start(DEBUG="1")
    assert (started.returncode, started.stderr) == (0, "")


def test_the_process_environment_comes_before_the_files() -> None:
    program = "from django.conf import settings; print(settings.RATE_LIMIT_RPM, settings.DATABASES['default']['NAME'])"
    environment = {"RATE_LIMIT_RPM": "7", "DATABASE_URL": "postgresql://db.example/ledger", "DEBUG": "1"}
    shown = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "config.settings", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert shown.stdout == "7 ledger\n"
