"""Jobs: every row counted, every interruption mended."""

import threading
from collections.abc import Iterable
from datetime import UTC
from pathlib import Path

import pytest
from django.db import IntegrityError, connection
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from config.clickhouse.locks import try_lock, unlock
from ingestion import jobs
from ingestion.jobs import inspect
from ingestion.models import DeadLetter, IngestionJob
from tests.ingestion.files import written
from tests.ingestion.packing import PACKERS
from tests.ingestion.stored import count, counts, found, loaded, mark

pytestmark = pytest.mark.usefixtures("stores")


def people(city: str, numbers: Iterable[int], *, extra: str = "") -> str:
    return "id,name,city\n" + "".join(f"{number},Ann {number},{city}\n" for number in numbers) + extra


def test_a_file_is_loaded_and_counted(tmp_path: Path) -> None:
    city = mark()
    job = loaded(written(tmp_path, "people.csv", people(city, range(30))))
    assert counts(job) == (30, 30, 0, 0)
    assert (job.state, job.format, job.source_file, job.error_code) == ("done", "csv", "people.csv", "")
    assert job.bytes_read == job.size_bytes
    assert job.finished_at is not None
    assert job.peak_memory_bytes > 0
    assert set(job.stage_seconds) == {"read", "normalise", "load"}
    assert count("city = {city:String} AND job_id = {job:UUID}", city=city, job=str(job.id)) == 30


def test_the_same_file_again_loads_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "people.csv", people(mark(), range(30)))
    first, second, third = loaded(path), loaded(path), loaded(path)
    assert [counts(job) for job in (first, second, third)] == [(30, 30, 0, 0), (30, 0, 30, 0), (30, 0, 30, 0)]


def test_the_same_record_in_another_format_is_a_duplicate(tmp_path: Path) -> None:
    city = mark()
    loaded(written(tmp_path, "a.csv", f"id,name,city,zip\n7,Ann,{city},02458\n"))
    job = loaded(written(tmp_path, "a.jsonl", f'{{"id": 7, "city": "{city}", "name": " Ann", "zip": "02458"}}\n'))
    assert counts(job) == (1, 0, 1, 0)


def test_rejected_rows_become_dead_letters(tmp_path: Path) -> None:
    city = mark()
    job = loaded(written(tmp_path, "a.csv", people(city, range(2), extra=f',,\n9,"Bo,{city}\n1,2\n')))
    assert counts(job) == (5, 2, 0, 3)
    assert list(DeadLetter.objects.filter(job=job).values_list("row", "column", "reason", "raw")) == [
        (3, "", "NOTHING_USABLE", ",,"),
        (4, "", "UNCLOSED_QUOTE", f'9,"Bo,{city}'),
        (5, "", "RAGGED_ROW", "1,2"),
    ]


@pytest.mark.parametrize(("rows", "state"), [(999, "done"), (998, "needs_review")])
def test_rejects_over_the_threshold_need_review(tmp_path: Path, rows: int, state: str) -> None:
    path = written(tmp_path, "a.csv", people(mark(), range(rows), extra="1,2\n"))
    with override_settings(REJECT_THRESHOLD=0.001):
        assert loaded(path).state == state


def test_counts_that_do_not_add_up_are_refused_by_the_database(tmp_path: Path) -> None:
    job = loaded(written(tmp_path, "a.csv", people(mark(), range(1))))
    with pytest.raises(IntegrityError):
        IngestionJob.objects.filter(pk=job.pk).update(rows_read=2)


def test_stop_between_chunks_and_go_on(tmp_path: Path, small_blocks: None) -> None:
    city = mark()
    path = written(tmp_path, "a.csv", people(city, range(100)))
    seen: list[int] = []
    job = loaded(
        path, chunk_rows=20, on_progress=lambda job: seen.append(job.rows_read), should_stop=lambda: len(seen) > 2
    )
    assert (job.state, job.error_code) == ("stopped", "STOPPED")
    stopped_at = counts(job)
    assert 0 < stopped_at[0] < 100
    assert stopped_at == (stopped_at[0], stopped_at[0], 0, 0)
    again = loaded(path)
    assert again.pk == job.pk
    assert (again.state, counts(again)) == ("done", (100, 100, 0, 0))
    assert count("city = {city:String}", city=city) == 100


@pytest.mark.parametrize("packer", PACKERS)
def test_a_compressed_file_goes_on_where_it_stopped(tmp_path: Path, small_blocks: None, packer: str) -> None:
    city = mark()
    path = written(tmp_path, "a.csv", PACKERS[packer](people(city, range(100)).encode()))
    seen: list[int] = []
    job = loaded(
        path, chunk_rows=20, on_progress=lambda job: seen.append(job.rows_read), should_stop=lambda: len(seen) > 2
    )
    assert job.state == "stopped"
    assert 0 < counts(job)[0] < 100
    again = loaded(path)
    assert (again.pk, again.state, counts(again)) == (job.pk, "done", (100, 100, 0, 0))
    assert (again.size_bytes, again.bytes_read) == (path.stat().st_size, len(people(city, range(100)).encode()))


def test_a_compressed_copy_of_a_loaded_file_adds_nothing(tmp_path: Path) -> None:
    text = people(mark(), range(30))
    loaded(written(tmp_path, "a.csv", text))
    copies = [loaded(written(tmp_path, f"a.{packer}", pack(text.encode()))) for packer, pack in PACKERS.items()]
    assert [counts(job) for job in copies] == [(30, 0, 30, 0)] * 5


def test_an_attempt_that_died_before_its_checkpoint_is_repeated_exactly(tmp_path: Path, small_blocks: None) -> None:
    city = mark()
    path = written(tmp_path, "a.csv", people(city, [*range(60), *range(10)], extra="broken\n"))
    seen: list[int] = []
    job = loaded(
        path, chunk_rows=20, on_progress=lambda job: seen.append(job.rows_read), should_stop=lambda: len(seen) > 1
    )
    first_chunk = counts(job)[0]
    # What kill -9 leaves between the insert and the checkpoint: rows in the store, nothing of them in the job.
    at = found("city", city, "ingested_at")[0]["ingested_at"].replace(tzinfo=UTC)
    IngestionJob.objects.filter(pk=job.pk).update(
        state="running", rows_read=0, rows_loaded=0, chunks_done=0, chunk_at=at, finished_at=None
    )
    assert count("city = {city:String}", city=city) == first_chunk
    again = loaded(path)
    assert again.pk == job.pk
    assert counts(again) == (71, 60, 10, 1)
    assert DeadLetter.objects.filter(job=job).count() == 1
    assert count("city = {city:String}", city=city) == 60


def test_a_job_that_a_living_process_works_on_is_left_alone(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", people(mark(), range(3)))
    job = loaded(path)
    IngestionJob.objects.filter(pk=job.pk).update(state="running")
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        try_lock(jobs.job_lock(job))
        held.set()
        release.wait(20)
        unlock(jobs.job_lock(job))
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    other = loaded(path)
    release.set()
    thread.join()
    assert other.pk != job.pk
    assert counts(other) == (3, 0, 3, 0)


def test_overlapping_jobs_at_once_load_each_record_once(tmp_path: Path, small_blocks: None) -> None:
    city = mark()
    paths = [written(tmp_path, f"{start}.csv", people(city, range(start, start + 100))) for start in (0, 50)]
    results: dict[int, IngestionJob] = {}

    def work(place: int) -> None:
        results[place] = loaded(paths[place], chunk_rows=10)
        connection.close()

    threads = [threading.Thread(target=work, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[place].state for place in (0, 1)] == ["done", "done"]
    assert sum(counts(results[place])[1] for place in (0, 1)) == 150
    assert sum(counts(results[place])[2] for place in (0, 1)) == 50
    assert count("city = {city:String}", city=city) == 150


_ROW = st.tuples(st.integers(0, 5), st.sampled_from(["Ann", "Bo", '"Cy', ""]), st.booleans())


@settings(max_examples=12)
@given(rows=st.lists(_ROW, min_size=1, max_size=25), chunk_rows=st.integers(1, 30))
def test_rows_read_are_loaded_duplicate_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str, bool]], chunk_rows: int
) -> None:
    city = mark()
    lines = [f"{number},{name},{city}" if whole else f"{number}" for number, name, whole in rows]
    path = written(tmp_path_factory.mktemp("jobs"), "a.csv", "id,name,city\n" + "\n".join(lines) + "\n")
    jobs_done = [loaded(path, chunk_rows=chunk_rows) for _ in range(3)]
    # A quote that is never closed costs its own row; so does a row that is too short.
    whole = [(number, name) for number, name, whole in rows if whole and not name.startswith('"')]
    broken = len(rows) - len(whole)
    different = len(set(whole))
    assert counts(jobs_done[0]) == (len(rows), different, len(whole) - different, broken)
    assert [counts(job) for job in jobs_done[1:]] == [(len(rows), 0, len(whole), broken)] * 2
    assert count("city = {city:String}", city=city) == different


def test_inspect_reads_a_file_without_loading_it(tmp_path: Path) -> None:
    city = mark()
    inspection = inspect(written(tmp_path, "a.csv", people(city, range(3))))
    assert ("name", "name") in [(column.source, column.target) for column in inspection.mapping.columns]
    assert count("city = {city:String}", city=city) == 0
