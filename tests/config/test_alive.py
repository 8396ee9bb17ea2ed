"""`python -m config.alive`: what containers ask."""

import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from django.test import Client, override_settings

from config import alive


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "alive"
    monkeypatch.setenv("ALIVE_FILE", str(path))
    return path


def test_a_file_just_touched_is_a_sign_of_life(file: Path) -> None:
    alive.Sign(str(file)).give()
    assert alive.main(["--file-within", "60"]) == 0


def test_an_old_file_is_none(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.touch()
    os.utime(file, (time.time() - 61, time.time() - 61))
    assert alive.main(["--file-within", "60"]) == 1
    assert capsys.readouterr().err == f"Not alive: {file} was touched 61 s ago.\n"


def test_no_file_is_none(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert alive.main(["--file-within", "60"]) == 1
    assert capsys.readouterr().err == f"Not alive: {file}: No such file or directory.\n"


def test_without_the_setting_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("ALIVE_FILE", raising=False)
    assert alive.main(["--file-within", "60"]) == 1
    assert capsys.readouterr().err == "Not alive: ALIVE_FILE is not set.\n"


def test_a_sign_without_a_path_touches_nothing() -> None:
    alive.Sign("").give()


def test_a_sign_is_given_once_a_second_at_most(file: Path) -> None:
    sign = alive.Sign(str(file))
    sign.give()
    file.unlink()
    sign.give()
    assert not file.exists()


class _Answers(BaseHTTPRequestHandler):
    hosts: list[str] = []

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        self.send_response(200 if self.path == "/good" else 503)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Keeps quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_answer_of_200_is_a_sign_of_life_and_another_is_none(address: str) -> None:
    assert (alive.main([f"{address}/good"]), alive.main([f"{address}/bad"])) == (0, 1)


@pytest.mark.parametrize(
    ("allowed", "host"), [(".example.com,b", "example.com"), ("api.example.com", "api.example.com")]
)
def test_it_asks_under_a_name_that_is_allowed(
    address: str, allowed: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLOWED_HOSTS", allowed)
    _Answers.hosts.clear()
    assert alive.main([f"{address}/good"]) == 0
    assert _Answers.hosts == [host]


def test_nobody_listening_is_none() -> None:
    assert alive.main(["http://127.0.0.1:1/good"]) == 1


@pytest.mark.parametrize(("path", "status"), [("/api/v1/health", 200), ("/api/v1/fields", 301)])
def test_with_https_alone_health_still_answers_plain_http(path: str, status: int) -> None:
    with override_settings(SECURE_SSL_REDIRECT=True):
        assert Client().get(path).status_code == status
