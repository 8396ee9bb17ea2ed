"""Watched folders and buckets: each file once, when it stands still, whatever becomes of it."""

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from ingestion import tasks, watching, working
from ingestion.models import IngestionJob, WatchedFile, WatchedSource
from ingestion.watching import Looked, look_at
from tests.ingestion.files import written
from tests.ingestion.s3_server import Bucket
from tests.ingestion.stored import count, mark
from tests.operators import client_of, make_operator

pytestmark = pytest.mark.usefixtures("stores")
MINUTE = timedelta(minutes=1)


class Watch:
    """A watched source and a clock that goes on by a minute with each look."""

    def __init__(self, path: str | Path, *, source: str = "") -> None:
        self.source = WatchedSource.objects.create(path=str(path), source=source)
        self.now: datetime = timezone.now()

    def look(self) -> Looked:
        self.now += MINUTE
        return look_at(self.source, now=self.now)

    def jobs(self) -> list[IngestionJob]:
        files = WatchedFile.objects.filter(watched=self.source).order_by("path")
        return [file.job for file in files if file.job is not None]

    @property
    def error(self) -> tuple[str, str]:
        self.source.refresh_from_db()
        return self.source.error_code, self.source.error


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "exports"
    place.mkdir()
    yield place
    WatchedSource.objects.filter(path__startswith=str(tmp_path)).delete()


def test_a_file_is_taken_once_when_it_stands_still(folder: Path) -> None:
    watch, name = Watch(folder), mark()
    written(folder, "a.csv", f"id,name\n1,{name}\n")
    assert watch.look() == Looked(files=1, taken=0, waiting=1)
    assert watch.look() == Looked(files=1, taken=1, waiting=0)
    assert watch.look() == Looked(files=1, taken=0, waiting=0)
    (job,) = watch.jobs()
    assert (job.state, job.source_path, job.requested_by) == ("queued", str(folder / "a.csv"), "watched source")
    working.carry_out(job.pk)
    assert count("name = {name:String}", name=name) == 1
    assert watch.error == ("", "")


def test_a_file_that_grows_is_left_until_it_stands_still(folder: Path) -> None:
    watch, path = Watch(folder), written(folder, "a.csv", "id,name\n")
    watch.look()
    for row in range(3):
        with path.open("a") as file:
            file.write(f"{row},Ann\n")
        os.utime(path, ns=(row, row))
        assert watch.look().taken == 0
    assert watch.look().taken == 1


def test_two_looks_at_once_are_no_proof_that_a_file_stands_still(folder: Path) -> None:
    watch = Watch(folder)
    written(folder, "a.csv", "id,name\n1,Ann\n")
    watch.look()
    assert look_at(watch.source, now=watch.now + timedelta(seconds=1)).taken == 0


def test_a_refused_file_is_shown_and_not_tried_again(folder: Path) -> None:
    watch = Watch(folder)
    written(folder, "a.pdf", "%PDF-1.7 nothing to load")
    for _ in range(2):
        watch.look()
    (job,) = watch.jobs()
    working.carry_out(job.pk)
    assert watch.look().taken == 0
    (job,) = watch.jobs()
    assert (job.state, job.error_code) == ("refused", "UNKNOWN_FORMAT")


def test_a_file_that_is_replaced_is_taken_again(folder: Path) -> None:
    watch = Watch(folder)
    written(folder, "a.csv", "id,name\n1,Ann\n")
    for _ in range(2):
        watch.look()
    written(folder, "a.csv", "id,name\n1,Ann\n2,Bob\n")
    assert [watch.look().taken for _ in range(3)] == [0, 1, 0]


def test_the_same_content_under_another_name_is_loaded_once(folder: Path) -> None:
    watch, name = Watch(folder), mark()
    for file in ("a.csv", "b.csv"):
        written(folder, file, f"id,name\n1,{name}\n")
    for _ in range(2):
        watch.look()
    states = [done.state for done in (working.carry_out(job.pk) for job in watch.jobs()) if done is not None]
    assert states == ["done", "skipped"]
    assert count("name = {name:String}", name=name) == 1


def test_a_file_that_went_is_forgotten(folder: Path) -> None:
    watch, path = Watch(folder), written(folder, "a.csv", "id\n1\n")
    watch.look()
    path.unlink()
    assert watch.look() == Looked()
    assert not WatchedFile.objects.filter(watched=watch.source).exists()


def test_a_look_takes_a_bounded_number(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "TAKEN_A_LOOK_MAX", 2)
    watch = Watch(folder)
    for number in range(3):
        written(folder, f"{number}.csv", f"id\n{number}\n")
    assert [watch.look().taken for _ in range(4)] == [0, 2, 1, 0]


def test_a_folder_that_is_not_there_is_an_error_and_an_empty_one_is_not(folder: Path) -> None:
    watch, gone = Watch(folder), Watch(folder / "gone")
    assert (watch.look(), watch.error) == (Looked(), ("", ""))
    gone.look()
    assert gone.error[0] == "UNREADABLE_FILE"
    assert "There is no folder" in gone.error[1]


def test_an_object_is_taken_at_the_first_look(bucket: Bucket) -> None:
    watch = Watch(bucket.url("exports/"))
    assert (watch.look(), watch.error) == (Looked(), ("", ""))
    bucket.put("exports/a.csv", f"id,name\n1,{mark()}\n")
    assert [watch.look().taken for _ in range(2)] == [1, 0]
    (job,) = watch.jobs()
    done = working.carry_out(job.pk)
    assert done is not None
    assert (done.state, done.source_path) == ("done", bucket.url("exports/a.csv"))
    watch.source.delete()


def test_a_bucket_that_is_not_there_stands_at_the_source() -> None:
    watch = Watch("s3:///exports/")
    watch.look()
    assert watch.error[0] == "INVALID_URL"
    watch.source.delete()


def test_a_job_whose_store_was_away_goes_on_when_it_answers(bucket: Bucket) -> None:
    watch = Watch(bucket.url("exports/"))
    bucket.put("exports/a.csv", "id,name\n1,Ann\n")
    watch.look()
    (job,) = watch.jobs()
    IngestionJob.objects.filter(pk=job.pk).update(state="stopped", error_code="SOURCE_AWAY")
    watch.look()
    job.refresh_from_db()
    assert (job.state, job.error_code) == ("queued", "")
    watch.source.delete()


def test_beat_looks_at_enabled_sources(folder: Path) -> None:
    watch, off = Watch(folder), Watch(folder / "off")
    WatchedSource.objects.filter(pk=off.source.pk).update(enabled=False)
    tasks.look()
    for one in (watch, off):
        one.source.refresh_from_db()
    assert watch.source.looked_at is not None
    assert off.source.looked_at is None


def told(*arguments: str) -> str:
    out = StringIO()
    call_command("watch", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_adds_lists_looks_and_removes(folder: Path) -> None:
    path = str(folder)
    assert "is watched" in told(path, "--source", "crm")
    assert "not looked at" in told(path, "--source", "crm", "--off")
    assert f"{path} (off)  source 'crm', last look never" in told()
    told(path, "--look")
    assert WatchedSource.objects.get(path=path).looked_at is not None
    told(path, "--remove")
    with pytest.raises(CommandError, match="is not watched"):
        told(path, "--remove")


def test_the_admin_shows_files_and_errors(folder: Path) -> None:
    watch = Watch(folder)
    written(folder, "a.csv", "id\n1\n")
    watch.look()
    WatchedSource.objects.filter(pk=watch.source.pk).update(error_code="NO_SUCH_BUCKET", error="There is none.")
    client: Client = client_of(make_operator())
    page = client.get(reverse("admin:ingestion_watchedsource_change", args=[watch.source.pk])).content.decode()
    assert "a.csv" in page
    assert "waits until it stands still" in page
    assert "NO_SUCH_BUCKET: There is none." in page
    assert str(folder) in client.get(reverse("admin:ingestion_watchedsource_changelist")).content.decode()


def test_the_admin_adds_and_switches_off(folder: Path) -> None:
    client: Client = client_of(make_operator())
    added = {"path": str(folder), "source": "crm", "enabled": "on"}
    assert client.post(reverse("admin:ingestion_watchedsource_add"), added).status_code == 302
    watched = WatchedSource.objects.get(path=str(folder))
    assert (watched.source, watched.enabled) == ("crm", True)
    inline = {f"files-{name}_FORMS": "0" for name in ("TOTAL", "INITIAL", "MIN_NUM", "MAX_NUM")}
    page = reverse("admin:ingestion_watchedsource_change", args=[watched.pk])
    assert client.post(page, {"path": str(folder), "source": "crm", **inline}).status_code == 302
    watched.refresh_from_db()
    assert watched.enabled is False
