"""A real S3 server in a process of its own (moto's), a bucket in it, and the settings that lead there."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from django.conf import LazySettings

from embedded import ports
from ingestion import s3
from tests.ingestion.stored import mark

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


def started(folder: Path) -> "tuple[subprocess.Popen[bytes], str]":
    """A server's process and its URL."""
    port = ports.free_port()
    url = f"http://127.0.0.1:{port}"
    log = (folder / "s3.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, **KEYS},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    log.close()
    until = time.monotonic() + 30
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > until:
            raise AssertionError((folder / "s3.log").read_text())
        time.sleep(0.1)
    return process, url


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class Bucket:
    """A bucket of one test."""

    def __init__(self, client: "S3Client", name: str, endpoint: str) -> None:
        self.client, self.name, self.endpoint = client, name, endpoint

    def put(self, key: str, content: bytes | str | Path) -> str:
        """Writes an object and returns its URL."""
        body = content.read_bytes() if isinstance(content, Path) else content
        self.client.put_object(Bucket=self.name, Key=key, Body=body)
        return self.url(key)

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, url = started(tmp_path_factory.mktemp("s3"))
    yield url
    process.kill()
    process.wait(timeout=10)


@pytest.fixture
def bucket(
    s3_endpoint: str, settings: LazySettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Bucket]:
    for name, value in {**KEYS, "AWS_EC2_METADATA_DISABLED": "true", "S3_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    settings.S3_ENDPOINT_URL = s3_endpoint
    settings.INGEST_TEMPORARY = str(tmp_path / "copies")
    s3._client.cache_clear()
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    name = f"bucket-{mark()}"
    client.create_bucket(Bucket=name)
    yield Bucket(client, name, s3_endpoint)
    client.close()
    s3._client.cache_clear()
