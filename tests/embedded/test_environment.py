"""`.local/env`: what is written there, and which of the user's settings come first."""

import subprocess
from pathlib import Path

import pytest

from embedded import environment
from embedded.errors import EmbeddedError


def test_written_file_is_private_and_can_be_sourced(tmp_path: Path) -> None:
    path = tmp_path / "env"
    environment.write(path, {"BASE_URL": "http://127.0.0.1:8000", "ADMIN_SECRET": "a b$c`d"})
    assert path.stat().st_mode & 0o777 == 0o600
    shell = subprocess.run(
        ["sh", "-c", '. "$0"; printf "%s|%s" "$BASE_URL" "$ADMIN_SECRET"', path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == "http://127.0.0.1:8000|a b$c`d"


def test_written_file_reads_back(tmp_path: Path) -> None:
    values = {"A": "x=y", "B": "", "DATABASE_URL": "postgresql://postgres@/meterhouse?host=/tmp/x"}
    environment.write(tmp_path / "env", values)
    assert environment.read(tmp_path / "env") == values


def test_missing_file_reads_as_empty(tmp_path: Path) -> None:
    assert environment.read(tmp_path / "env") == {}


def test_value_with_a_quote_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="ADMIN_SECRET may have no quote"):
        environment.write(tmp_path / "env", {"ADMIN_SECRET": "it's"})


def test_secrets_are_made_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.SECRETS:
        monkeypatch.delenv(name, raising=False)
    made = environment.with_secrets({})
    assert {name for name in environment.SECRETS if len(made[name]) >= 32} == set(environment.SECRETS)
    assert len({made[name] for name in environment.SECRETS}) == len(environment.SECRETS)
    assert environment.with_secrets(made) == made


def test_secret_of_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_SECRET", "of the user")
    assert environment.with_secrets({"ADMIN_SECRET": "kept"})["ADMIN_SECRET"] == "of the user"


def test_url_of_the_user_counts_and_ours_does_not(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = checkout / "own.json"
    environment.remember_own(own, {"REDIS_URL": "redis://127.0.0.1:6379/0"})
    (checkout / ".env").write_text("CLICKHOUSE_URL=http://clickhouse:8123/meterhouse\n")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:6379/0")
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/meterhouse")
    assert environment.given_urls(checkout, own) == {
        "DATABASE_URL": "postgresql://db/meterhouse",
        "CLICKHOUSE_URL": "http://clickhouse:8123/meterhouse",
    }
