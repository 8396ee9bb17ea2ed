"""Objects in S3 and its like: which there are under a URL, and one of them as a local file while it is read.

An object is downloaded before it is read: a file is looked at several times (its SHA-256, its format, a sample, a dump's
tables, its rows), Parquet, workbooks and zip are read from their end, and a job that is resumed reads again from the start.
The copy is of one version (its ETag), held to a size, a free disk and a deadline, and goes when it has been read; what a
process that was killed left behind goes with the next download.
"""

import errno
import fnmatch
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, IncompleteReadError
from django.conf import settings
from urllib3.exceptions import HTTPError

from ingestion.formats.batches import FileChanged
from ingestion.formats.disk import DiskFull
from ingestion.formats.whole_files import TooLarge
from ingestion.s3_errors import InvalidUrl, NoSuchKey, SourceAway, Stopped, told
from ingestion.temporary import own_folder

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

SCHEME = "s3://"
LISTED_MAX, PAGE = 1_000_000, 1000
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS = 5, 30, 3
# A download that breaks off goes on where it was, so often in a row without a byte.
BREAKS_MAX = 4
BREAK_S = 0.5
DEADLINE_S = 120.0
BYTES_A_SECOND_MIN = 250_000
DISK_SPARED_BYTES = 512 * 1024 * 1024
_STEP = 1024 * 1024
_NAME_BYTES_MAX = 200


@dataclass(frozen=True)
class S3Object:
    """One version of an object; as text its URL."""

    bucket: str
    key: str
    size: int
    etag: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rpartition("/")[2]


def is_s3(text: str) -> bool:
    return text.startswith(SCHEME)


@lru_cache(maxsize=4)
def _client(endpoint: str) -> "S3Client":
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        s3={"addressing_style": "path"} if endpoint else {},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session = boto3.session.Session()
    region = session.region_name or "us-east-1"
    return session.client("s3", region_name=region, endpoint_url=endpoint or None, config=config)


def client() -> "S3Client":
    """A client of S3_ENDPOINT_URL, or of AWS, with the keys of the standard AWS environment. Connects at its first call."""
    return _client(settings.S3_ENDPOINT_URL)


def listed(url: str) -> tuple[list[S3Object], list[tuple[str, str]]]:
    """The objects that a URL means, sorted, and those that are left out with the reason, as for local folders.

    `s3://bucket/key` is that object; with nothing of this name, the objects below `key/`. A key with `*`, `?` or `[` that is
    no object is a pattern; `**` stands for any folders. Raises `InvalidUrl`, `NoSuchKey`, the refusals of `told`, `SourceAway`.
    """
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise InvalidUrl(f"{url} names no bucket. Write s3://bucket/prefix.")
    try:
        if key and not key.endswith("/"):
            found = _head(bucket, key)
            if found is not None:
                return [found], []
        pattern = key if any(mark in key for mark in "*?[") else ""
        if pattern:
            folder = pattern[: min(pattern.find(mark) for mark in "*?[" if mark in pattern)].rpartition("/")[0]
        else:
            folder = key.rstrip("/")
        return _below(bucket, f"{folder}/" if folder else "", pattern=pattern, url=url)
    except (BotoCoreError, ClientError) as exc:
        raise told(exc, url) from exc


def located(url: str) -> S3Object:
    """The object of this URL as it is now. Raises as `listed` does."""
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    try:
        found = _head(bucket, key)
    except (BotoCoreError, ClientError) as exc:
        raise told(exc, url) from exc
    if found is None:
        raise NoSuchKey(f"{url} is not there. Check bucket and key; keys are case-sensitive.")
    return found


def _head(bucket: str, key: str) -> S3Object | None:
    try:
        head = client().head_object(Bucket=bucket, Key=key)
    except ClientError as exc:
        if exc.response.get("Error", {}).get("Code") in ("404", "NoSuchKey", "NotFound"):
            return None
        raise
    return S3Object(bucket, key, head["ContentLength"], head["ETag"])


def _below(bucket: str, prefix: str, *, pattern: str, url: str) -> tuple[list[S3Object], list[tuple[str, str]]]:
    objects: list[S3Object] = []
    skipped: list[tuple[str, str]] = []
    seen = 0
    for page in (
        client()
        .get_paginator("list_objects_v2")
        .paginate(Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": PAGE})
    ):
        for entry in page.get("Contents", []):
            seen += 1
            found = S3Object(bucket, entry["Key"], entry["Size"], entry["ETag"])
            below = found.key[len(prefix) :]
            if pattern:
                if _matches(found.key.split("/"), pattern.split("/")) and below:
                    objects.append(found)
            elif any(part.startswith(".") for part in below.split("/")):
                skipped.append((str(found), "is hidden"))
            elif not found.name:
                continue  # what consoles write to show a folder
            else:
                objects.append(found)
        if seen > LISTED_MAX:
            raise InvalidUrl(f"{url} holds more than {LISTED_MAX:,} objects. Name its folders one by one.")
    if not objects and not skipped:
        what = "matches no object" if pattern else "is no object, and nothing lies below it"
        raise NoSuchKey(f"{url} {what}. Check bucket and key; keys are case-sensitive.")
    return sorted(objects, key=lambda one: one.key.split("/")), sorted(skipped)


def _matches(parts: list[str], patterns: list[str]) -> bool:
    """Whether a key's parts match a pattern's: `*` stays within a part, `**` is any folders, neither means what is hidden."""
    reached = _past_folders({0}, patterns)
    for part in parts:
        following = {place for place in reached if patterns[place : place + 1] == ["**"] and not part.startswith(".")}
        for place in reached:
            wanted = patterns[place] if place < len(patterns) else "**"
            hidden = part.startswith(".") and not wanted.startswith(".")
            if wanted != "**" and not hidden and fnmatch.fnmatchcase(part, wanted):
                following.add(place + 1)
        reached = _past_folders(following, patterns)
    return len(patterns) in reached


def _past_folders(places: set[int], patterns: list[str]) -> set[int]:
    """The places, and those behind a `**` that stands for no folder."""
    reached = set(places)
    for place, wanted in enumerate(patterns):
        if place in reached and wanted == "**":
            reached.add(place + 1)
    return reached


@contextmanager
def downloaded(
    found: S3Object,
    *,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Path]:
    """A local copy of an object, under its own name; it goes at the end. `on_progress` gets the bytes that are there.

    Raises `TooLarge`, `DiskFull`, `FileChanged` when the object is not the version any more that was listed, `Stopped`,
    `SourceAway` when the store goes away or is too slow, and the refusals of `told`.
    """
    most = settings.INGEST_DOWNLOAD_BYTES_MAX
    if found.size > most:
        raise TooLarge(
            f"{found} has {found.size:,} bytes; INGEST_DOWNLOAD_BYTES_MAX allows {most:,}. Raise it, or split it."
        )
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(own_folder(settings.INGEST_TEMPORARY))
            free = shutil.disk_usage(folder).free
            if found.size + DISK_SPARED_BYTES > free:
                raise DiskFull(
                    f"{found} has {found.size:,} bytes and {folder.parent} has room for {max(0, free - DISK_SPARED_BYTES):,}."
                    " Make room, or set INGEST_TEMPORARY to a larger disk."
                )
            path = folder / _local_name(found)
            _download(found, path, on_progress, should_stop)
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DiskFull(
                f"The disk became full while {found} was fetched. Make room, or set INGEST_TEMPORARY."
            ) from exc
        yield path


def _local_name(found: S3Object) -> str:
    """The object's name as a file's: its suffix counts where the content leaves the format open."""
    name = "".join("_" if character in "\x00\\" else character for character in found.name)
    while len(name.encode("utf-8", "replace")) > _NAME_BYTES_MAX:
        name = name[1:]
    return name if name.strip(".") else "object"


def _download(found: S3Object, path: Path, on_progress: Callable[[int], None], should_stop: Callable[[], bool]) -> None:
    ends = time.monotonic() + DEADLINE_S + found.size / BYTES_A_SECOND_MIN
    done = breaks = 0
    with path.open("xb") as file:
        while True:
            try:
                for data in _chunks(found, done):
                    file.write(data)
                    done, breaks = done + len(data), 0
                    on_progress(done)
                    if should_stop():
                        raise Stopped(f"Stopped while {found} was fetched.")
                    if time.monotonic() > ends:
                        raise SourceAway(
                            f"{found} comes too slowly: {done:,} of {found.size:,} bytes are there. Try again."
                        )
                break
            except (BotoCoreError, ClientError, HTTPError) as exc:
                breaks += 1
                reason = told(exc, str(found))
                if breaks > BREAKS_MAX or not isinstance(reason, SourceAway):
                    raise reason from exc
                time.sleep(BREAK_S * breaks)
    if done != found.size:
        raise FileChanged(f"{found} had {found.size:,} bytes when it was listed and has {done:,} now. Load it anew.")


def _chunks(found: S3Object, at: int) -> Iterator[bytes]:
    """The bytes of that version from `at` on. Raises as the client does, when it ends early too."""
    if at >= found.size:
        return
    options: dict[str, Any] = {"Range": f"bytes={at}-"} if at else {}
    answer = client().get_object(Bucket=found.bucket, Key=found.key, IfMatch=found.etag, **options)
    if at and answer["ResponseMetadata"]["HTTPStatusCode"] != 206:
        raise IncompleteReadError(actual_bytes=at, expected_bytes=found.size)
    with closing(answer["Body"]) as body:
        while data := body.read(_STEP):
            yield data
