"""The store goes away in the middle of a job: the job stops, says so, and goes on when the store is back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import override_settings

from config.clickhouse import client as clients
from embedded import ports
from embedded.clickhouse_server import ClickHouse
from ingestion.models import IngestionJob
from tests.ingestion.files import written
from tests.ingestion.stored import count, counts, loaded, mark

pytestmark = pytest.mark.usefixtures("stores", "small_blocks")


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[ClickHouse]:
    """A ClickHouse that a test may stop, migrated, and the one that the product uses while the test runs."""
    server = ClickHouse(
        tmp_path / "ch", pids=tmp_path / "pids", logs=tmp_path / "logs", port=ports.free_port(), database="outage"
    )
    server.start(dies_with_parent=True)
    clients.forget_clients()
    with override_settings(**server.urls):
        call_command("migrate_clickhouse", verbosity=0)
        yield server
    clients.forget_clients()
    server.stop()


def test_a_job_whose_store_goes_away_stops_and_goes_on_later(tmp_path: Path, own_store: ClickHouse) -> None:
    city = mark()
    text = "id,name,city\n" + "".join(f"{number},Ann {number},{city}\n" for number in range(100))
    path = written(tmp_path, "people.csv", text)

    def stop_after_the_first_chunk(job: IngestionJob) -> None:
        if job.chunks_done == 1:
            own_store.stop()

    job = loaded(path, chunk_rows=20, on_progress=stop_after_the_first_chunk)
    assert (job.state, job.error_code) == ("stopped", "TEMPORARILY_UNAVAILABLE")
    assert "data store" in job.error
    read, loaded_rows, duplicates, rejected = counts(job)
    assert (loaded_rows, duplicates, rejected) == (read, 0, 0)
    assert 0 < read < 100

    own_store.start(dies_with_parent=True)
    again = loaded(path)
    assert (again.pk, again.state) == (job.pk, "done")
    assert counts(again) == (100, 100, 0, 0)
    assert count("city = {city:String}", city=city) == 100


def test_a_job_whose_store_is_away_from_the_start_is_resumable(tmp_path: Path, own_store: ClickHouse) -> None:
    path = written(tmp_path, "people.csv", f"id,name\n1,{mark()}\n")
    own_store.stop()
    job = loaded(path)
    assert (job.state, counts(job)) == ("stopped", (0, 0, 0, 0))
    own_store.start(dies_with_parent=True)
    again = loaded(path)
    assert (again.pk, again.state, counts(again)) == (job.pk, "done", (1, 1, 0, 0))
