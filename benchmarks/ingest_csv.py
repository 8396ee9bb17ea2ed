"""P7: a CSV file through the whole pipeline, against ClickHouse doing the same work alone."""

import os
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client

from benchmarks.figures import Finding, median_ratio, spread
from benchmarks.ingest_files import ROWS, fresh_database, generated, ingest
from benchmarks.ingest_sql import LEFT_OUT, insert_select
from benchmarks.installation import FOLDER, Installation

GOAL_RATIO, GOAL_RATE = 0.8, 300_000
ROUNDS = 5
ALONE = "records_by_clickhouse"
_SETTINGS = {"input_format_csv_skip_first_lines": 1, "input_format_allow_errors_ratio": 0.01}


@dataclass(frozen=True)
class _Difference:
    """How the two tables differ, in rows."""

    ours_alone: int
    theirs_alone: int
    otherwise: int
    same: int


def measure(installation: Installation, say: Callable[[str], None]) -> Finding:
    """Rows a second of both sides, each round into a new database; then both tables beside one another."""
    say(f"P7: a file of {ROWS:,} records …")
    path = generated(installation, "csv", ROWS)
    ours: list[float] = []
    alone: list[float] = []
    prepared: list[float] = []
    peak = 0
    for number in range(ROUNDS + 1):
        with fresh_database(installation) as fresh:
            done = ingest(fresh, path)
        with fresh_database(installation) as fresh:
            statement_s = _alone(fresh, _one_row(path), table="records")
            _empty(fresh)
            taken_s = _alone(fresh, path, table="records") - statement_s
        say(f"P7: round {number}/{ROUNDS}: {done.rate:,.0f} rows/s, ClickHouse alone {done.rows_read / taken_s:,.0f}")
        if number:  # the first round warms the file cache and both sides' compiled code
            ours.append(done.rate)
            alone.append(done.rows_read / taken_s)
            prepared.append(statement_s)
            peak = max(peak, done.peak_bytes)
    difference = _compare(installation, path)
    size_mb = path.stat().st_size / 1e6
    rejected = f"{done.rows_duplicate:,} duplicates, {done.rows_rejected:,} rejected"
    return Finding(
        "P7",
        "CSV through the whole pipeline against ClickHouse alone",
        ["", "rows/s, median (lowest–highest round)", "ratio", "goal"],
        [
            ["ClickHouse alone, INSERT … SELECT … FROM file() with the same rules", spread(alone), "1.00", ""],
            ["ingest", spread(ours), f"{median_ratio(ours, alone):.2f}", f"≥ {GOAL_RATIO}, ≥ {GOAL_RATE:,}/s"],
        ],
        f"{ROWS:,} generated records, {size_mb:,.0f} MB ({rejected}), {ROUNDS} rounds in turns, each into a new, "
        f"empty table with "
        "the same indexes and projections. Ours is `manage.py ingest` whole, in a new process each time, without "
        "Django's start "
        f"(peak memory {peak / 2**20:,.0f} MiB). ClickHouse's side is `benchmarks/ingest_sql.py` on {os.cpu_count()} "
        f"threads, "
        f"without the time to prepare the statement (median {statistics.median(prepared):.1f} s, seen on a file of "
        f"one row); "
        f"{LEFT_OUT}. Of the different records {difference.same:,} are the same in every column, "
        f"{difference.otherwise:,} have the "
        f"same id and another column that differs, {difference.ours_alone:,} are in our table alone, "
        f"{difference.theirs_alone:,} "
        "in the other.",
    )


def _alone(installation: Installation, path: Path, *, table: str) -> float:
    """Seconds that ClickHouse takes for the whole file."""
    from ingestion import generator, jobs

    mapping = jobs.inspect(path).mapping
    client = _client(installation)
    cpus = os.cpu_count() or 1
    statement = insert_select(
        str(path), generator.COLUMNS, mapping, job_id=str(uuid.uuid4()), at="2026-01-01 00:00:00", table=table
    )
    begun = time.perf_counter()
    client.command(statement, settings={**_SETTINGS, "max_threads": cpus, "max_insert_threads": cpus})
    return time.perf_counter() - begun


def _one_row(path: Path) -> Path:
    """A file of the header and the first record of another."""
    short = FOLDER / "ingest" / "one-row.csv"
    with path.open("rb") as file:
        short.write_bytes(file.readline() + file.readline())
    return short


def _empty(installation: Installation) -> None:
    _client(installation).command("TRUNCATE TABLE records")


def _compare(installation: Installation, path: Path) -> _Difference:
    """Loads the file by both sides into one database and compares all of it."""
    columns = "user_id, email, name, phone, address, city, country, created_date, status, metadata, data_quality_score"
    with fresh_database(installation) as fresh:
        ingest(fresh, path)
        client = _client(fresh)
        client.command(f"CREATE TABLE {ALONE} AS records")
        _alone(fresh, path, table=ALONE)

        def count(question: str) -> int:
            return int(client.query(f"SELECT uniqExact(id) FROM {question}").result_rows[0][0])

        def only(one: str, other: str) -> int:
            return count(f"{one} WHERE id NOT IN (SELECT id FROM {other})")

        def joined(condition: str) -> int:
            digest = f"SELECT id, cityHash64({columns}, arrayStringConcat(validation_errors, ',')) AS digest FROM"
            return count(f"({digest} records) AS a JOIN ({digest} {ALONE}) AS b USING (id) WHERE {condition}")

        return _Difference(
            only("records", ALONE),
            only(ALONE, "records"),
            joined("a.digest != b.digest"),
            joined("a.digest = b.digest"),
        )


def _client(installation: Installation) -> Client:
    from config.clickhouse.client import connect

    return connect(installation.environment["CLICKHOUSE_URL"], read_timeout_s=3600)
