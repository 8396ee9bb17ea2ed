"""The same records in each format give the same table, row for row."""

import io
import json
import signal
import zipfile
from pathlib import Path

import pytest

from ingestion import jobs
from ingestion.formats.compression import open_content
from ingestion.formats.detect import DetectedFormat
from ingestion.generator import write
from ingestion.generator_formats import FORMATS
from ingestion.generator_packing import COMPRESSIONS
from ingestion.pipeline import chunks
from tests.ingestion.stored import count, counts, loaded, mark
from tests.ingestion.test_ingest_command import ingest, process, wait_for_rows

ROWS = 3_000

DETECTED = {"mysql": "sql", "pgsql": "sql", "sqlite-dump": "sql"}
Table = tuple[list[bytes | None], list[int]]


def table(path: Path, file_format: str) -> Table:
    """The ids of the clean records, which are hashes of all that is in them, and the numbers of the rejected rows."""
    write(path, rows=ROWS, file_format=file_format, dirt=0.05)
    found = jobs.inspect(path)
    assert found.detected.format == DETECTED.get(file_format, file_format)
    kept = DetectedFormat.from_json(found.detected.as_json())
    ids: list[bytes | None] = []
    rejected: list[int] = []
    for chunk in chunks(kept.reader(path), found.mapping, chunk_rows=700, skip=0):
        ids += chunk.records.column("id").to_pylist()
        rejected += [reject.row for reject in chunk.rejects]
    return ids, rejected


@pytest.fixture(scope="module")
def from_csv(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return table(tmp_path_factory.mktemp("csv") / "records", "csv")


@pytest.mark.parametrize("file_format", [name for name in FORMATS if name != "csv"])
def test_a_format_gives_the_table_of_its_csv(tmp_path: Path, from_csv: Table, file_format: str) -> None:
    ids, rejected = table(tmp_path / "records", file_format)
    assert len(ids) + len(rejected) == ROWS
    assert len(rejected) > 10
    assert rejected == from_csv[1]
    assert ids == from_csv[0]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_is_the_same_for_the_same_seed(tmp_path: Path, file_format: str) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, rows=500, file_format=file_format, seed=7)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("file_format", ["csv", "parquet", "xlsx", "mysql"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_packed_file_holds_the_same_bytes(tmp_path: Path, file_format: str, compression: str) -> None:
    write(tmp_path / "plain", rows=300, file_format=file_format)
    for name in ("a", "b"):
        write(tmp_path / f"{name}.{compression}", rows=300, file_format=file_format)
    assert (tmp_path / f"a.{compression}").read_bytes() != (tmp_path / "plain").read_bytes()
    if compression != "zip":  # whose directory holds the name
        assert (tmp_path / f"a.{compression}").read_bytes() == (tmp_path / f"b.{compression}").read_bytes()
    plain, unpacked = (tmp_path / "plain").read_bytes(), open_content(tmp_path / f"a.{compression}").read()
    if file_format == "xlsx":  # written without going back, its parts are the same
        plain, unpacked = sheet(plain), sheet(unpacked)
    assert unpacked == plain


def sheet(workbook: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(workbook)) as archive:
        return archive.read("xl/worksheets/sheet1.xml")


@pytest.mark.usefixtures("stores")
def test_a_second_format_of_the_same_records_adds_none(tmp_path: Path) -> None:
    seed = int(mark()[1:8], 16)
    for name in FORMATS:
        write(tmp_path / name, rows=300, file_format=name, dirt=0, seed=seed)
    first = loaded(tmp_path / FORMATS[0])
    unique = first.rows_loaded
    assert counts(first) == (300, unique, 300 - unique, 0)
    for name in FORMATS[1:]:
        assert counts(loaded(tmp_path / name)) == (300, 0, 300, 0)
    assert count("job_id = {job:UUID}", job=str(first.pk)) == unique


@pytest.mark.kills
@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize("file_format", ["xml", "parquet", "xlsx"])
def test_kill_minus_9_and_again_gives_every_row_once(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / f"records.{file_format}"
    write(path, rows=110_000, file_format=file_format, seed=int(mark()[1:8], 16))
    running = process(path, "--chunk-rows", "1")
    wait_for_rows(path, 0, running)
    running.send_signal(signal.SIGKILL)
    running.wait(timeout=30)
    answer = json.loads(ingest(path, "--json")[1])[0]
    assert answer["read"] == answer["loaded"] + answer["duplicates"] + answer["rejected"] == 110_000
    assert answer["loaded"] == count("job_id = {job:UUID}", job=answer["job"])
    again = json.loads(ingest(path, "--json", "--again")[1])[0]
    assert (again["loaded"], again["duplicates"]) == (0, answer["loaded"] + answer["duplicates"])
    assert again["rejected"] == answer["rejected"]
