"""A file is uploaded, looked at, mapped, loaded, and its rejects are read again, in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ingestion.models import IngestionJob, Upload
from tests.e2e.browser import Visit
from tests.e2e.conftest import visiting
from tests.faults.processes import IngestionWorker, Web, Worker
from tests.ingestion.files import written
from tests.ingestion.stored import count, counts, mark

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser


@pytest.fixture
def upload_visit(
    stores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clickhouse_schema: None
) -> Iterator[Visit]:
    """An operator in front of web, worker and ingestion that share a folder of uploads."""
    folder = {"INGEST_UPLOAD_DIR": str(tmp_path / "uploads"), "INGEST_UPLOAD_BYTES_MAX": "1000000"}
    # What other tests left waiting is none of these workers' business.
    Upload.objects.filter(state="looking").update(state="refused")
    IngestionJob.objects.filter(state__in=["queued", "running"]).update(state="failed")
    processes = [Web(environment=folder), Worker(environment=folder), IngestionWorker(environment=folder)]
    try:
        with visiting(processes[0].url, monkeypatch) as visit:  # type: ignore[attr-defined]
            yield visit
    finally:
        for process in processes:
            process.close()


def becomes(page: "Page", column: str) -> "Locator":
    """The select that says what a column becomes."""
    return page.locator(f"select[aria-label='Becomes, of {column}']")


def test_operator_uploads_maps_loads_and_reads_rejects_again(upload_visit: Visit, tmp_path: Path) -> None:
    city, page = mark(), upload_visit.page
    lines = [f"Ann {number},p{number}@example.com,{city},{number:05}" for number in range(40)]
    path = written(tmp_path, "people.csv", "\n".join(["name,label,town,code", *lines, f",,,{city}", ""]))
    upload_visit.goto("/admin/ingestion/upload/")
    page.click("a[href$='/upload/add/'] >> nth=0")
    page.set_input_files("#id_file", path)
    page.fill("#id_source", "crm")
    page.click("button:has-text('Upload and look')")
    page.wait_for_selector("text=The first rows as they will be stored")
    assert becomes(page, "label").input_value() == "email"
    becomes(page, "town").select_option("")
    page.click("button:has-text('Preview again')")
    page.wait_for_selector("th:has-text('metadata')")
    becomes(page, "town").select_option("city")
    page.fill("#id_save_as", mark())
    page.click("button:has-text('Load this file')")
    page.wait_for_selector("text=The mapping has changed")
    page.wait_for_selector("button:has-text('Load this file')")
    page.dblclick("button:has-text('Load this file')")
    page.wait_for_selector("text=Why rows were rejected")
    job = IngestionJob.objects.get(source_file="people.csv", upload__source="crm", rows_read=41)
    assert (job.state, counts(job)) == ("needs_review", (41, 40, 0, 1))
    assert page.locator(".mh-tile-value").all_inner_texts() == ["41", "40", "0", "1"]
    page.click("a:has-text('NOTHING_USABLE') >> nth=0")
    assert city in page.inner_text("#rejected")
    page.click("button:has-text('Read the rejected rows again')")
    page.wait_for_selector("text=The first rejected rows")
    becomes(page, "town").select_option("")
    becomes(page, "code").select_option("city")
    page.click("button:has-text('Preview again')")
    page.wait_for_selector("text=0 would be rejected")
    page.click("button:has-text('Read the rejected rows again')")
    page.wait_for_selector(".mh-tile-value >> text=/^1$/")
    page.wait_for_selector("text=done >> nth=0")
    retry = IngestionJob.objects.get(retry_of=job)
    assert (retry.state, counts(retry), count("city = {city:String}", city=city)) == ("done", (1, 1, 0, 0), 41)


def test_a_file_that_is_too_large_is_told_before_it_leaves(upload_visit: Visit, tmp_path: Path) -> None:
    page = upload_visit.page
    upload_visit.goto("/admin/ingestion/upload/add/")
    page.set_input_files("#id_file", written(tmp_path, "large.csv", "name\n" + "x" * 1_000_001))
    assert "more than the" in page.inner_text("[data-upload-trouble]")
    page.click("button:has-text('Upload and look')")
    assert page.url.endswith("/add/")
    assert not (tmp_path / "uploads").exists()


def test_no_page_of_an_upload_is_wider_than_a_phone(upload_visit: Visit, tmp_path: Path) -> None:
    page = upload_visit.page
    page.set_viewport_size({"width": 390, "height": 844})
    upload_visit.goto("/admin/ingestion/upload/add/")
    widths = [page.evaluate("document.documentElement.scrollWidth")]
    line = f"Ann,{mark()}@example.com,{'x' * 300},{'long words ' * 40}\n"
    page.set_input_files("#id_file", written(tmp_path, "wide.csv", "name,email,address,about\n" + line))
    page.click("button:has-text('Upload and look')")
    page.wait_for_selector("text=The first rows as they will be stored")
    widths.append(page.evaluate("document.documentElement.scrollWidth"))
    page.click("button:has-text('Load this file')")
    page.wait_for_selector("text=Rows read")
    widths.append(page.evaluate("document.documentElement.scrollWidth"))
    assert [width for width in widths if width > 390] == []
