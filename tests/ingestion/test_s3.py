"""`s3://` as a path: what is found under a URL, what is loaded from there, and what is said when it cannot be."""

import gzip
import json
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.management import CommandError
from django.utils import timezone

from embedded import ports
from ingestion import s3, temporary, working
from ingestion.discovery import discover
from ingestion.formats.batches import FileChanged
from ingestion.formats.disk import DiskFull
from ingestion.formats.whole_files import TooLarge
from ingestion.generator import write
from ingestion.models import IngestionJob
from ingestion.queueing import enqueue, resume
from ingestion.s3 import S3Object, downloaded, listed
from ingestion.s3_errors import InvalidUrl, NoCredentials, NoSuchBucket, NoSuchKey, SourceAway, SourceForbidden, Stopped
from tests.ingestion.s3_server import Bucket
from tests.ingestion.stored import count, counts, mark
from tests.ingestion.test_ingest_command import ingest, process, wait_for_rows


def keys(url: str) -> list[str]:
    return [found.key for found in listed(url)[0]]


def only(url: str) -> S3Object:
    (found,) = listed(url)[0]
    return found


def test_a_prefix_is_a_folder(bucket: Bucket) -> None:
    for key in ("exports/b.csv", "exports/a/z.csv", "exports/.hidden/x.csv", "exports/", "other.csv", "exports2/c.csv"):
        bucket.put(key, "" if key.endswith("/") else "id\n1\n")
    found = discover([bucket.url("exports")])
    assert [str(place) for place in found.files] == [bucket.url("exports/a/z.csv"), bucket.url("exports/b.csv")]
    assert [(one.path, one.why) for one in found.skipped] == [(bucket.url("exports/.hidden/x.csv"), "is hidden")]
    assert keys(bucket.url("exports/")) == ["exports/a/z.csv", "exports/b.csv"]
    assert keys(bucket.url("")) == ["exports/a/z.csv", "exports/b.csv", "exports2/c.csv", "other.csv"]


def test_a_pattern_matches_as_in_folders(bucket: Bucket) -> None:
    for key in ("e/2024-1.csv", "e/2024-2.txt", "e/sub/2024-3.csv", "e/sub/deep/4.csv", "e/.2024.csv"):
        bucket.put(key, "x")
    assert keys(bucket.url("e/2024-*.csv")) == ["e/2024-1.csv"]
    assert keys(bucket.url("e/*.csv")) == ["e/2024-1.csv"]
    assert keys(bucket.url("e/**/*.csv")) == ["e/2024-1.csv", "e/sub/2024-3.csv", "e/sub/deep/4.csv"]
    assert keys(bucket.url("*/sub/?024-3.csv")) == ["e/sub/2024-3.csv"]


def test_a_key_with_marks_of_a_pattern_is_itself(bucket: Bucket) -> None:
    bucket.put("a[1].csv", "x")
    bucket.put("a1.csv", "x")
    assert keys(bucket.url("a[1].csv")) == ["a[1].csv"]


def test_more_than_a_page_is_listed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PAGE", 2)
    for number in range(5):
        bucket.put(f"many/{number}.csv", "x")
    assert keys(bucket.url("many")) == [f"many/{number}.csv" for number in range(5)]


def test_a_listing_has_a_bound(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "LISTED_MAX", 1)
    for name in ("a", "b"):
        bucket.put(f"many/{name}.csv", "x")
    with pytest.raises(InvalidUrl, match="more than 1 objects"):
        listed(bucket.url("many"))


def test_the_copy_is_whole_and_goes(bucket: Bucket, settings: LazySettings) -> None:
    content = bytes(range(256)) * 10_000
    bucket.put("folder/data.bin", content)
    seen: list[int] = []
    with downloaded(only(bucket.url("folder/data.bin")), on_progress=seen.append) as path:
        assert path.name == "data.bin"
        assert path.read_bytes() == content
    assert seen[-1] == len(content)
    assert list(Path(settings.INGEST_TEMPORARY).iterdir()) == []


def test_a_name_cannot_leave_the_folder_of_its_copy(bucket: Bucket, settings: LazySettings) -> None:
    with downloaded(S3Object(bucket.name, "a/..", 0, '""')) as path:
        assert path.name == "object"
        assert path.resolve().is_relative_to(settings.INGEST_TEMPORARY)
    with downloaded(S3Object(bucket.name, "é" * 500 + ".csv", 0, '""')) as path:
        assert path.name.endswith("é.csv")


def test_copies_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "meterhouse-copy-left"
    (left / "copy").mkdir(parents=True)
    (left / "in-use").touch()
    begun = tmp_path / "meterhouse-copy-begun"
    begun.mkdir()
    with temporary.own_folder(str(tmp_path)) as first, temporary.own_folder(str(tmp_path)) as second:
        assert not left.exists()
        assert begun.exists()
        assert first.exists()
        assert second.exists()


def test_an_object_that_was_replaced_is_refused(bucket: Bucket) -> None:
    found = only(bucket.put("a.csv", "id\n1\n"))
    bucket.put("a.csv", "id\n2\n")
    with pytest.raises(FileChanged, match=r"a\.csv was replaced"), downloaded(found):
        pass


def test_an_object_past_the_limit_is_refused(bucket: Bucket, settings: LazySettings) -> None:
    settings.INGEST_DOWNLOAD_BYTES_MAX = 4
    with pytest.raises(TooLarge, match="INGEST_DOWNLOAD_BYTES_MAX"), downloaded(only(bucket.put("a.csv", "id\n1\n"))):
        pass


def test_an_object_that_the_disk_has_no_room_for_is_refused(bucket: Bucket, settings: LazySettings) -> None:
    settings.INGEST_DOWNLOAD_BYTES_MAX = 2**63
    with pytest.raises(DiskFull, match="INGEST_TEMPORARY"), downloaded(S3Object(bucket.name, "a.csv", 2**60, '""')):
        pass


def test_a_download_ends_when_it_is_to_stop(bucket: Bucket, settings: LazySettings) -> None:
    found = only(bucket.put("a.csv", "id\n1\n"))
    with pytest.raises(Stopped), downloaded(found, should_stop=lambda: True):
        pass
    assert list(Path(settings.INGEST_TEMPORARY).iterdir()) == []


@pytest.mark.parametrize(
    ("url", "refusal", "says"),
    [
        ("s3://no-such-bucket-here/a.csv", NoSuchBucket, "no such bucket"),
        ("s3://no-such-bucket-here/", NoSuchBucket, "no such bucket"),
        ("{}/none.csv", NoSuchKey, "Check bucket and key"),
        ("{}/none-*.csv", NoSuchKey, "matches no object"),
        ("{}", NoSuchKey, "nothing lies below it"),
        ("s3:///a.csv", InvalidUrl, "names no bucket"),
        ("s3://Not A Bucket/a.csv", InvalidUrl, "no URL of an object"),
    ],
)
def test_what_is_not_there_is_refused(bucket: Bucket, url: str, refusal: type[Exception], says: str) -> None:
    with pytest.raises(refusal, match=says):
        listed(url.format(bucket.url("")[:-1]))


def test_without_keys_it_says_which_are_missing(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    s3._client.cache_clear()
    with pytest.raises(NoCredentials, match="AWS_ACCESS_KEY_ID"):
        listed(bucket.url(""))


def test_keys_that_may_not_read_are_told(bucket: Bucket) -> None:
    bucket.put("a.csv", "x")

    def demand_keys_after(calls: str) -> None:
        url, plain = f"{bucket.endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        request = urllib.request.Request(url, data=calls.encode(), headers=plain, method="POST")
        urllib.request.urlopen(request, timeout=5).close()

    demand_keys_after("0")
    try:
        with pytest.raises(SourceForbidden, match="what they may read"):
            listed(bucket.url("a.csv"))
    finally:
        demand_keys_after("1000000000")


def test_a_store_that_is_away_is_told(bucket: Bucket, settings: LazySettings) -> None:
    settings.S3_ENDPOINT_URL = f"http://127.0.0.1:{ports.free_port()}"
    with pytest.raises(SourceAway, match="S3_ENDPOINT_URL"):
        listed(bucket.url("a.csv"))


@contextmanager
def breaking_server(content: bytes, *, gives: int) -> Iterator[tuple[str, list[str]]]:
    """A store whose every answer breaks off after `gives` bytes, and the ranges it was asked for."""
    ranges: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "bytes=0-")
            ranges.append(asked)
            rest = content[int(asked.removeprefix("bytes=").rstrip("-")) :]
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("ETag", '"e"')
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[:gives])
            self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: the test's output is its own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", ranges
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_download_that_breaks_off_goes_on_where_it_was(
    bucket: Bucket, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "BREAK_S", 0.01)
    content = bytes(range(250)) * 4
    with breaking_server(content, gives=400) as (url, ranges):
        settings.S3_ENDPOINT_URL = url
        with downloaded(S3Object(bucket.name, "a.csv", len(content), '"e"')) as path:
            assert path.read_bytes() == content
    assert ranges == ["bytes=0-", "bytes=400-", "bytes=800-"]


def test_a_download_that_only_breaks_off_ends(
    bucket: Bucket, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "BREAK_S", 0.01)
    with breaking_server(b"x" * 1000, gives=0) as (url, ranges):
        settings.S3_ENDPOINT_URL = url
        with pytest.raises(SourceAway), downloaded(S3Object(bucket.name, "a.csv", 1000, '"e"')):
            pass
    assert len(ranges) == s3.BREAKS_MAX + 1


def test_a_download_that_is_too_slow_ends(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "DEADLINE_S", -1.0)
    with pytest.raises(SourceAway, match="too slowly"), downloaded(only(bucket.put("a.csv", "id\n1\n"))):
        pass


@pytest.mark.usefixtures("stores")
def test_objects_are_loaded_and_known_by_their_content(bucket: Bucket) -> None:
    name = mark()
    url = bucket.put("exports/people.csv.gz", gzip.compress(f"id,name\n1,{name}\n2,{name}\n".encode()))
    code, out, _ = ingest(url, "--json")
    (answer,) = json.loads(out)
    assert (code, answer["path"], answer["read"], answer["loaded"]) == (0, url, 2, 2)
    job = IngestionJob.objects.get(pk=answer["job"])
    assert (job.source_path, job.source_file) == (url, "people.csv.gz")
    bucket.put("again/other-name.gz", gzip.compress(b"other"))
    bucket.client.copy_object(
        Bucket=bucket.name, Key="again/other-name.gz", CopySource=f"{bucket.name}/exports/people.csv.gz"
    )
    code, out, _ = ingest(bucket.url("again"), "--json")
    assert [(one["path"], one["state"]) for one in json.loads(out)] == [(bucket.url("again/other-name.gz"), "skipped")]
    assert count("job_id = {job:UUID}", job=answer["job"]) == 2


@pytest.mark.usefixtures("stores")
def test_a_refusal_names_the_object_and_not_its_copy(bucket: Bucket, settings: LazySettings) -> None:
    code, _, err = ingest(bucket.put("broken.gz", gzip.compress(b"id\n1\n" * 100)[:-9]))
    assert code == 2
    assert f"BROKEN_ARCHIVE: {bucket.url('broken.gz')} is" in err
    assert settings.INGEST_TEMPORARY not in err


@pytest.mark.usefixtures("stores")
def test_the_command_ends_with_2_for_a_wrong_bucket_and_3_for_a_store_that_is_away(
    bucket: Bucket, settings: LazySettings
) -> None:
    with pytest.raises(CommandError, match="NO_SUCH_BUCKET") as refused:
        ingest("s3://no-such-bucket-here/a.csv")
    settings.S3_ENDPOINT_URL = f"http://127.0.0.1:{ports.free_port()}"
    with pytest.raises(CommandError, match="SOURCE_AWAY") as away:
        ingest(bucket.url("a.csv"))
    assert (refused.value.returncode, away.value.returncode) == (2, 3)


@pytest.mark.kills
@pytest.mark.usefixtures("stores")
def test_a_load_from_s3_that_was_killed_goes_on(bucket: Bucket, tmp_path: Path, settings: LazySettings) -> None:
    write(tmp_path / "people.csv", rows=120_000, seed=int(mark()[1:8], 16))
    url = bucket.put("people.csv", tmp_path / "people.csv")
    running = process(url, "--chunk-rows", "1", INGEST_TEMPORARY=settings.INGEST_TEMPORARY)
    wait_for_rows(url, 0, running)
    running.send_signal(signal.SIGKILL)
    running.wait(timeout=30)
    assert len(list(Path(settings.INGEST_TEMPORARY).iterdir())) == 1
    time.sleep(0.1)
    answer = json.loads(ingest(url, "--json")[1])[0]
    assert answer["read"] == answer["loaded"] + answer["duplicates"] + answer["rejected"] == 120_000
    assert answer["loaded"] == count("job_id = {job:UUID}", job=answer["job"])
    assert IngestionJob.objects.filter(source_path=url).count() == 1
    assert counts(IngestionJob.objects.get(source_path=url))[0] == 120_000
    assert list(Path(settings.INGEST_TEMPORARY).iterdir()) == []


@pytest.mark.usefixtures("stores")
def test_a_worker_loads_an_object_and_says_when_the_store_is_away(bucket: Bucket, settings: LazySettings) -> None:
    url = bucket.put("people.csv", f"id,name\n1,{mark()}\n")
    first = enqueue(path=url, now=timezone.now())
    endpoint, settings.S3_ENDPOINT_URL = settings.S3_ENDPOINT_URL, f"http://127.0.0.1:{ports.free_port()}"
    away = working.carry_out(first.pk)
    assert away is not None
    assert (away.state, away.error_code) == ("stopped", "SOURCE_AWAY")
    settings.S3_ENDPOINT_URL = endpoint
    resume(first.pk, now=timezone.now())
    done = working.carry_out(first.pk)
    assert done is not None
    assert (done.state, done.source_path, done.source_file, counts(done)) == ("done", url, "people.csv", (1, 1, 0, 0))
    assert list(Path(settings.INGEST_TEMPORARY).iterdir()) == []


@pytest.mark.usefixtures("stores")
def test_a_worker_that_leaves_while_it_fetches_gives_the_job_back(bucket: Bucket) -> None:
    job = enqueue(path=bucket.put("people.csv", f"id,name\n1,{mark()}\n"), now=timezone.now())
    left = working.carry_out(job.pk, should_stop=lambda: True)
    assert left is not None
    assert left.state == "queued"


@pytest.mark.usefixtures("stores")
def test_a_worker_refuses_what_is_not_there_by_its_url(bucket: Bucket) -> None:
    job = working.carry_out(enqueue(path=bucket.url("none.csv"), now=timezone.now()).pk)
    assert job is not None
    assert (job.state, job.error_code) == ("refused", "NO_SUCH_KEY")
    assert bucket.url("none.csv") in job.error


@pytest.mark.usefixtures("stores")
def test_rejected_rows_of_an_object_are_read_again_from_there(bucket: Bucket) -> None:
    url = bucket.put("people.csv", f"id,name\n1,{mark()}\n2\n")
    (first,) = json.loads(ingest(url, "--json")[1])
    assert (first["loaded"], first["rejected"]) == (1, 1)
    (again,) = json.loads(ingest("--retry", first["job"], "--json")[1])
    assert (again["path"], again["read"], again["rejected"], again["retry_of"]) == (url, 1, 1, first["job"])
    bucket.put("people.csv", "id,name\n9,Other\n")
    code, _, err = ingest("--retry", first["job"])
    assert code == 2
    assert f"FILE_CHANGED: {url} is not the file" in err
