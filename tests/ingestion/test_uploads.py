"""Files that operators bring in the admin: kept under a name of ours, looked at, started once, removed in time."""

import os
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from ingestion import previews, retention, upload_files, uploads, working
from ingestion.formats.batches import UnreadableFile
from ingestion.models import IngestionJob, SavedMapping, Upload
from tests.ingestion.stored import counts, mark
from tests.operators import client_of, make_operator, make_staff, text_of

pytestmark = pytest.mark.usefixtures("stores")
ADD = "/admin/ingestion/upload/add/"

operator = cache(make_operator)


@pytest.fixture(autouse=True)
def upload_folder(tmp_path: Path, settings: Any) -> Path:
    settings.INGEST_UPLOAD_DIR = str(tmp_path / "uploads")
    return tmp_path / "uploads"


def people(city: str, rows: int = 3) -> bytes:
    lines = [f"{number},Ann {number},ann{number}@{city}.example.com,{city}" for number in range(rows)]
    return "\n".join(["id,full name,contact,town", *lines, ""]).encode()


def file(content: bytes, name: str = "people.csv") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content, "text/csv")


def post(content: bytes, name: str = "people.csv", **fields: str) -> Any:
    return client_of(operator()).post(ADD, {"file": file(content, name), **fields})


def uploaded(content: bytes, name: str = "people.csv", **fields: str) -> Upload:
    """An upload that a worker has looked at."""
    response = post(content, name, **fields)
    assert response.status_code == 302, text_of(response)
    key = uuid.UUID(response.headers["Location"].split("/")[-3])
    uploads.look_at(key)
    return Upload.objects.get(pk=key)


def page(upload: Upload) -> str:
    return reverse("admin:ingestion_upload_change", args=[upload.pk])


def as_typed(upload: Upload, **changes: str) -> dict[str, str]:
    """What the page's form sends when nobody touches it, with these changes; columns by their own names."""
    columns = upload.result["mapping"]["columns"]
    typed = {f"column_{place}": column["target"] or "" for place, column in enumerate(columns)}
    places = {column["source"]: f"column_{place}" for place, column in enumerate(columns)}
    return {"wanted": "auto", **typed, **{places.get(name, name): value for name, value in changes.items()}}


def act(upload: Upload, do: str, **changes: str) -> Any:
    return client_of(operator()).post(page(upload), {**as_typed(upload, **changes), "do": do})


def test_an_upload_lies_under_a_name_of_ours_and_is_looked_at(upload_folder: Path) -> None:
    city = mark()
    upload = uploaded(people(city), source="crm")
    assert [path.name for path in upload_folder.iterdir()] == [f"{upload.pk}.csv"]
    assert (upload.state, upload.name, upload.source, upload.uploaded_by) == (
        "ready",
        "people.csv",
        "crm",
        operator().email,
    )
    assert (upload.result["preview"]["judged"], upload.result["preview"]["rejected"]) == (3, 0)


@pytest.mark.parametrize(
    ("given", "shown", "suffix"),
    [
        ("../../etc/cron.d/people.csv", "people.csv", ".csv"),
        ("C:\\data\\people.csv.gz", "people.csv.gz", ".csv.gz"),
        ("a\x00b.csv", "a b.csv", ".csv"),
        ("\u202evsc.exe", "vsc.exe", ""),
        ("...", "...", ""),
        ("", "file", ""),
        ("x" * 1000 + ".csv", "x" * 214 + "…" + "x" * 36 + ".csv", ".csv"),
        ("<script>.CSV", "<script>.CSV", ".csv"),
    ],
)
def test_a_hostile_name_is_text_and_never_a_path(given: str, shown: str, suffix: str) -> None:
    key = uuid.uuid4()
    assert (upload_files.shown_name(given), upload_files.stored_name(given, key)) == (shown, f"{key}{suffix}")


def test_a_hostile_name_and_hostile_cells_are_shown_as_text() -> None:
    content = b"name,email,city\n<script>alert(1)</script>,=cmd|' /C calc'!A0,<b>x</b>\n"
    upload = uploaded(content, "<img src=x onerror=alert(1)>.csv")
    body = client_of(operator()).get(page(upload)).content.decode()
    assert "<script>alert(1)" not in body
    assert "<img src=x" not in body
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in body
    assert "=cmd|" in body


def test_a_file_past_the_limit_is_refused_before_it_is_stored(upload_folder: Path, settings: Any) -> None:
    settings.INGEST_UPLOAD_BYTES_MAX = 100_000
    response = post(b"x" * 200_000)
    text = text_of(response)
    assert (response.status_code, "100,000 bytes" in text, "Choose a file, or" in text) == (413, True, False)
    assert list(upload_folder.glob("*")) == []


def test_a_file_just_past_the_limit_leaves_nothing_on_the_disk(upload_folder: Path, settings: Any) -> None:
    settings.INGEST_UPLOAD_BYTES_MAX = 1_000
    response = post(b"x" * 1_001)
    assert (response.status_code, list(upload_folder.iterdir())) == (413, [])


def test_a_full_disk_is_told(upload_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = upload_files.RESERVE_BYTES + 10
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(free, 0, free))
    response = post(people(mark()))
    assert (response.status_code, "no room for this file" in text_of(response)) == (507, True)
    assert list(upload_folder.iterdir()) == []


def test_an_upload_without_a_token_is_refused_and_leaves_nothing(upload_folder: Path) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(operator())
    assert client.post(ADD, {"file": file(people(mark()))}).status_code == 403
    assert list(upload_folder.iterdir()) == []


def test_staff_without_the_permission_may_not_upload(upload_folder: Path) -> None:
    response = client_of(make_staff("ingestion.view_ingestionjob")).post(ADD, {"file": file(people(mark()))})
    assert (response.status_code, upload_folder.exists()) == (403, False)


def test_a_role_with_one_permission_uploads_and_starts() -> None:
    client = client_of(make_staff("ingestion.load_file"))
    response = client.post(ADD, {"file": file(people(mark()))})
    upload = Upload.objects.get(pk=response.headers["Location"].split("/")[-3])
    uploads.look_at(upload.pk)
    upload.refresh_from_db()
    assert client.post(page(upload), {**as_typed(upload), "do": "start"}).status_code == 302
    assert Upload.objects.get(pk=upload.pk).state == "started"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "Choose a file, or name an address below."),
        ({"place": "/etc/passwd"}, "Only s3:// URLs can be named here."),
        ({"place": "s3://no-such-bucket/x", "file": file(b"a,b\n1,2\n")}, "Either a file or an address, not both."),
    ],
)
def test_a_form_that_makes_no_sense_says_what_to_change(fields: dict[str, Any], told: str) -> None:
    response = client_of(operator()).post(ADD, {"source": "crm", **fields})
    assert (response.status_code, told in text_of(response)) == (200, True)
    assert 'value="crm"' in response.content.decode()


def test_a_path_outside_the_allowed_folders_is_refused(tmp_path: Path, settings: Any) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "people.csv").write_bytes(people(mark()))
    (tmp_path / "secret.csv").write_bytes(people(mark()))
    (tmp_path / "in" / "link.csv").symlink_to(tmp_path / "secret.csv")
    settings.INGEST_ADMIN_FOLDERS = [str(tmp_path / "in")]
    assert uploads.allowed_path(str(tmp_path / "in" / "people.csv")) == tmp_path / "in" / "people.csv"
    for path in ("in/../secret.csv", "in/link.csv", "in", "in/no.csv", "in/\x00"):
        with pytest.raises(UnreadableFile):
            uploads.allowed_path(f"{tmp_path}/{path}")


@pytest.mark.parametrize(
    ("content", "name", "code"),
    [
        (b"%PDF-1.7 nothing to see", "people.csv", "UNKNOWN_FORMAT"),
        (b"   \n ", "people.csv", "UNKNOWN_FORMAT"),
        (b"\x1f\x8b\x08\x00broken", "people.csv.gz", "BROKEN_ARCHIVE"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_refused_with_its_code(content: bytes, name: str, code: str) -> None:
    upload = uploaded(content, name)
    text = text_of(client_of(operator()).get(page(upload)))
    assert (upload.state, upload.error_code, code in text, str(upload.pk) in upload.error) == (
        "refused",
        code,
        True,
        False,
    )


def test_a_file_that_nothing_is_known_of_is_mapped_by_hand() -> None:
    city = mark()
    upload = uploaded(f"aa,bb\n1,{city}\n2,{city}\n".encode())
    assert (upload.state, "No column is an id" in upload.result["note"]) == ("ready", True)
    assert "no record could be found again" in text_of(act(upload, "start"))
    act(upload, "look", bb="city")
    uploads.look_at(upload.pk)
    upload.refresh_from_db()
    assert upload.result["preview"]["rows"][0]["values"] == {"city": city, "metadata": '{"aa":"1"}'}


def test_a_started_upload_becomes_one_job_however_often_it_is_sent() -> None:
    upload = uploaded(people(city := mark()), source="crm")
    places = {act(upload, "start").headers["Location"] for _ in range(3)}
    job = IngestionJob.objects.get(upload=upload)
    assert places == {reverse("admin:ingestion_ingestionjob_change", args=[job.pk])}
    working.carry_out(job.pk)
    job.refresh_from_db()
    assert (job.state, job.source_file, job.source, counts(job)) == ("done", "people.csv", "crm", (3, 3, 0, 0))
    assert city


def test_a_corrected_mapping_is_previewed_before_it_is_loaded() -> None:
    upload = uploaded(people(mark()))
    response = act(upload, "start", town="")
    assert response.headers["Location"] == page(upload)
    upload.refresh_from_db()
    assert (upload.state, upload.job) == ("looking", None)
    uploads.look_at(upload.pk)
    upload.refresh_from_db()
    assert "town" in upload.result["preview"]["rows"][0]["values"]["metadata"]
    act(upload, "start")
    upload.refresh_from_db()
    assert upload.job is not None
    assert upload.job.request is not None
    assert upload.job.request["mapping"]["document"]["columns"]["town"] is None


def test_two_columns_for_one_field_are_told_beside_both() -> None:
    upload = uploaded(people(mark()))
    response = act(upload, "start", town="email")
    assert text_of(response).count("e-mail is taken by") == 2
    upload.refresh_from_db()
    assert upload.job is None


def test_a_mapping_is_saved_by_name_and_for_its_source() -> None:
    source, name = mark(), mark()
    upload = uploaded(people(mark()), source=source)
    act(upload, "start", save_as=name, for_source="on")
    kept = SavedMapping.objects.get(name=name)
    assert (kept.source, kept.document["columns"]["contact"]) == (source, "email")
    assert uploaded(people(mark()), source=source).result["mapping_name"] == name


def test_a_known_file_says_so_and_is_loaded_again_when_asked() -> None:
    content = people(mark())
    first = uploaded(content)
    act(first, "start")
    working.carry_out(IngestionJob.objects.get(upload=first).pk)
    again = uploaded(content, "other.csv")
    assert "This file was loaded before" in text_of(client_of(operator()).get(page(again)))
    act(again, "again")
    job = IngestionJob.objects.get(upload=again)
    working.carry_out(job.pk)
    job.refresh_from_db()
    assert (job.state, counts(job)) == ("done", (3, 0, 3, 0))


def test_the_polled_part_asks_again_while_it_is_looked_at_and_never_after() -> None:
    response = post(people(mark()))
    key = response.headers["Location"].split("/")[-3]
    client, url = client_of(operator()), reverse("admin:ingestion_upload_state", args=[key])
    waiting = client.get(url)
    assert ('hx-trigger="every 1s"' in waiting.content.decode(), "HX-Refresh" in waiting.headers) == (True, False)
    uploads.look_at(uuid.UUID(key))
    done = client.get(url)
    assert ("hx-trigger" in done.content.decode(), done.headers["HX-Refresh"]) == (False, "true")


def test_a_table_of_a_dump_is_chosen() -> None:
    city = mark()
    dump = (
        f"CREATE TABLE people (id int, email text, city text);\nINSERT INTO people VALUES (1,'a@b.example','{city}');\n"
        f"CREATE TABLE shops (id int, name text, city text);\nINSERT INTO shops VALUES (1,'Shop','{city}');\n"
    )
    upload = uploaded(dump.encode(), "all.sql")
    assert upload.result["table"] == "people"
    act(upload, "look", part="shops")
    uploads.look_at(upload.pk)
    upload.refresh_from_db()
    assert (upload.result["table"], upload.options["table"]) == ("shops", "shops")


def test_rejected_rows_are_previewed_and_read_again_with_another_mapping() -> None:
    city = mark()
    upload = uploaded(f"name,label\nAnn {city},x\n,Bob {city}\n".encode())
    act(upload, "start")
    job = IngestionJob.objects.get(upload=upload)
    working.carry_out(job.pk)
    client = client_of(operator())
    response = client.post(reverse("admin:ingestion_ingestionjob_retry", args=[job.pk]))
    retry = Upload.objects.get(pk=response.headers["Location"].split("/")[-3])
    uploads.look_at(retry.pk)
    retry.refresh_from_db()
    assert [row["row"] for row in retry.result["preview"]["rows"]] == [2]
    act(retry, "look", name="", label="name")
    uploads.look_at(retry.pk)
    retry.refresh_from_db()
    assert retry.result["preview"]["rows"][0]["values"]["name"] == f"Bob {city}"
    act(retry, "start")
    second = IngestionJob.objects.get(upload=retry)
    working.carry_out(second.pk)
    second.refresh_from_db()
    assert (second.retry_of, second.state, counts(second)) == (job, "done", (1, 1, 0, 0))


def test_what_was_never_started_goes_after_its_days(upload_folder: Path) -> None:
    old, young = uploaded(people(mark())), uploaded(people(mark()))
    Upload.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=8))
    assert retention.remove_old(now=timezone.now()) >= 1
    assert not Upload.objects.filter(pk=old.pk).exists()
    assert [path.name for path in upload_folder.iterdir()] == [f"{young.pk}.csv"]


@pytest.mark.parametrize(("rejected", "days", "stays"), [(0, 8, False), (1, 8, True), (1, 31, False)])
def test_the_file_of_a_job_stays_while_its_rejects_may_need_it(rejected: int, days: int, stays: bool) -> None:
    upload = uploaded(people(mark()))
    act(upload, "start")
    ended = timezone.now() - timedelta(days=days)
    IngestionJob.objects.filter(upload=upload).update(
        state="done", finished_at=ended, rows_read=rejected, rows_rejected=rejected
    )
    retention.remove_old(now=timezone.now())
    upload.refresh_from_db()
    assert (Path(upload.path).exists(), upload.removed_at is None) == (stays, stays)


def test_a_file_of_nobody_goes_after_a_day(upload_folder: Path) -> None:
    upload_folder.mkdir()
    names = [f"{uuid.uuid4()}.part", f"{uuid.uuid4()}.csv", "notes.txt"]
    for name in names:
        (upload_folder / name).write_text("x")
        os.utime(upload_folder / name, (1, 1))
    (upload_folder / (young := f"{uuid.uuid4()}.part")).write_text("x")
    retention.remove_old(now=timezone.now())
    assert sorted(path.name for path in upload_folder.iterdir()) == sorted(["notes.txt", young])


def test_a_look_that_never_ends_well_is_given_up() -> None:
    response = post(people(mark()))
    key = uuid.UUID(response.headers["Location"].split("/")[-3])
    Upload.objects.filter(pk=key).update(attempts=uploads.ATTEMPTS_MAX)
    uploads.look_at(key)
    assert Upload.objects.get(pk=key).error_code == "NOT_LOOKED_AT"


def test_a_lost_message_is_sent_again() -> None:
    response = post(people(mark()))
    key = response.headers["Location"].split("/")[-3]
    Upload.objects.filter(state="looking").exclude(pk=key).update(state="refused")
    Upload.objects.filter(pk=key).update(sent_at=timezone.now() - timedelta(minutes=2))
    assert (uploads.sweep(now=timezone.now()), uploads.sweep(now=timezone.now())) == (1, 0)


def test_five_starts_at_once_make_one_job() -> None:
    upload = uploaded(people(mark()))

    def start(_: int) -> uuid.UUID:
        try:
            return uploads.start(upload, now=timezone.now())[0].pk
        finally:
            connection.close()

    with ThreadPoolExecutor(5) as pool:
        jobs = set(pool.map(start, range(5)))
    assert jobs == {IngestionJob.objects.get(upload=upload).pk}
    assert IngestionJob.objects.filter(source_path=upload.path).count() == 1


def test_a_look_that_comes_late_does_not_undo_a_newer_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    upload = uploaded(people(mark()))
    act(upload, "look", town="")
    look = previews.look

    def slow(*arguments: Any, **options: Any) -> Any:
        found = look(*arguments, **options)
        monkeypatch.setattr(previews, "look", look)
        Upload.objects.filter(pk=upload.pk).update(turn=99)
        return found

    monkeypatch.setattr(previews, "look", slow)
    uploads.look_at(upload.pk)
    assert Upload.objects.get(pk=upload.pk).state == "looking"


def test_a_sheet_of_a_workbook_is_chosen(tmp_path: Path) -> None:
    with xlsxwriter.Workbook(str(tmp_path / "book.xlsx")) as book:
        for name in ("People", "Shops"):
            sheet = book.add_worksheet(name)
            sheet.write_row(0, 0, ["name", "city"])
            sheet.write_row(1, 0, [f"One of {name}", mark()])
    upload = uploaded((tmp_path / "book.xlsx").read_bytes(), "book.xlsx")
    assert (upload.result["sheets"], upload.result["detected"]["choice"]) == (["People", "Shops"], "People")
    act(upload, "look", part="Shops")
    uploads.look_at(upload.pk)
    upload.refresh_from_db()
    assert upload.result["preview"]["rows"][0]["values"]["name"] == "One of Shops"


def test_an_empty_file_is_refused_and_leaves_nothing(upload_folder: Path) -> None:
    response = post(b"")
    assert (response.status_code, "empty" in text_of(response)) == (200, True)
    assert list(upload_folder.iterdir()) == []
