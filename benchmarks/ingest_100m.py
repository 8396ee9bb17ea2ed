"""P7-100M: one load of 100 million rows, and whether its end is as fast as its beginning. Run when it is asked for.

The database `bench_100m` stays, for measuring searches on it; the next run begins with dropping it.
"""

import os
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.figures import Finding
from benchmarks.ingest_files import COMMAND_TIMEOUT_S, command_of, fresh_database, generated, ingested
from benchmarks.installation import ROOT, Installation

ROWS = int(os.environ.get("BENCH_100M_ROWS", "100000000"))
STEPS = 20
DATABASE = "bench_100m"
GOAL = 0.7
POLL_S = 0.5
MERGES_REST_S = 3.0


@dataclass
class _Course:
    """How the load went: (seconds, rows read) whenever there were more, peak memory of the loader and of ClickHouse."""

    seen: list[tuple[float, int]] = field(default_factory=lambda: [(0.0, 0)])
    loader_bytes: int = 0
    store_bytes: int = 0
    output: str = ""

    def seconds_at(self, rows: int) -> float:
        """When so many rows had been read, between two checkpoints by their share."""
        for (before_s, before), (after_s, after) in zip(self.seen, self.seen[1:], strict=False):
            if after >= rows:
                return before_s + (after_s - before_s) * (rows - before) / max(1, after - before)
        return self.seen[-1][0]


def measure(installation: Installation, say: Callable[[str], None]) -> Finding:
    """Rows a second for every twentieth of the load, then the time until no merge is left."""
    say(f"P7-100M: a file of {ROWS:,} records, made once …")
    path = generated(installation, "csv", ROWS)
    with fresh_database(installation, DATABASE, keep=True) as fresh:
        begun = time.monotonic()
        course = _load(fresh, path, say)
        loaded_s = time.monotonic() - begun
        merges_s = _wait_for_merges(say)
        parts, size = _stored()
    done = ingested(course.output)
    rows = []
    rates = []
    for step in range(STEPS):
        first, last = ROWS * step // STEPS, ROWS * (step + 1) // STEPS
        rates.append((last - first) / max(0.001, course.seconds_at(last) - course.seconds_at(first)))
        rows.append([f"{first:,} to {last:,}", f"{rates[-1]:,.0f}", f"{rates[-1] / rates[0]:.2f}", ""])
    rows[-1][-1] = f"≥ {GOAL}"
    whole = done.rows_read / (loaded_s + merges_s)
    rows.append(["all, merges after the last row included", f"{whole:,.0f}", f"{whole / rates[0]:.2f}", f"≥ {GOAL}"])
    return Finding(
        "P7-100M",
        f"one load of {ROWS:,} rows into an empty table",
        ["rows", "rows/s", "to the first", "goal"],
        rows,
        f"`manage.py ingest` of one generated CSV file of {path.stat().st_size / 1e9:,.1f} GB: {done.rows_loaded:,} "
        f"loaded, "
        f"{done.rows_duplicate:,} duplicates, {done.rows_rejected:,} rejected in {loaded_s:,.0f} s with the look at "
        f"the file "
        f"before; merges ran beside it and for {merges_s:,.0f} s after the last row. Then {parts} parts, "
        f"{size / 1e9:,.1f} GB on "
        f"disk ({size / max(1, done.rows_loaded):.0f} bytes a row). Peak memory: loader "
        f"{done.peak_bytes / 2**20:,.0f} MiB (the "
        f"processes it starts included {course.loader_bytes / 2**20:,.0f}), ClickHouse "
        f"{course.store_bytes / 2**20:,.0f} MiB.",
    )


def _load(installation: Installation, path: Path, say: Callable[[str], None]) -> _Course:
    from ingestion.models import IngestionJob

    known = set(IngestionJob.objects.values_list("pk", flat=True))
    course = _Course()
    log = path.with_suffix(".log")
    with log.open("w+") as output:
        process = subprocess.Popen(
            command_of("one_ingest", str(path)),
            cwd=ROOT,
            env=installation.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
        )
        try:
            _watch(process, course, known, say)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    course.output = log.read_text()
    if process.returncode != 0 or not course.output.strip():
        raise RuntimeError(f"the load ended with {process.returncode}: {course.output[-1000:]}")
    return course


def _watch(
    process: "subprocess.Popen[bytes]", course: _Course, known: set[uuid.UUID], say: Callable[[str], None]
) -> None:
    from ingestion.models import IngestionJob

    loader, store = psutil.Process(process.pid), _store_process()
    started: float | None = None
    told, deadline = 0, time.monotonic() + COMMAND_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_S)
        course.loader_bytes = max(course.loader_bytes, _memory(loader))
        course.store_bytes = max(course.store_bytes, _memory(store))
        job = IngestionJob.objects.exclude(pk__in=known).only("rows_read").first()
        if job is None:
            continue
        # The clock of the steps starts with the job: the whole file has been looked at before.
        started = started or time.monotonic()
        if job.rows_read > course.seen[-1][1]:
            course.seen.append((time.monotonic() - started, job.rows_read))
        if job.rows_read >= told + ROWS // STEPS:
            told = job.rows_read
            say(f"P7-100M: {told:,} rows after {course.seen[-1][0]:,.0f} s")


def _memory(process: psutil.Process | None) -> int:
    """Bytes that a process and its children hold; shared pages count for each."""
    if process is None:
        return 0
    found = 0
    try:
        for one in (process, *process.children(recursive=True)):
            found += one.memory_info().rss
    except psutil.Error:
        return found
    return found


def _store_process() -> psutil.Process | None:
    """The embedded ClickHouse of this installation."""
    from benchmarks.installation import FOLDER

    try:
        return psutil.Process(int((FOLDER / ".local" / "pids" / "clickhouse.pid").read_text().split()[0]))
    except (OSError, ValueError, psutil.Error):
        return None


def _wait_for_merges(say: Callable[[str], None]) -> float:
    """Seconds until the last merge had ended."""
    from config.clickhouse.client import writer

    begun = ended = time.monotonic()
    while time.monotonic() - ended < MERGES_REST_S:
        running = writer().query(f"SELECT count() FROM system.merges WHERE database = '{DATABASE}'").result_rows[0][0]
        if running:
            ended = time.monotonic()
        if ended - begun > COMMAND_TIMEOUT_S:
            raise RuntimeError("merges do not end")
        time.sleep(0.2)
    say(f"P7-100M: merges ended {ended - begun:,.0f} s after the last row")
    return ended - begun


def _stored() -> tuple[int, int]:
    from config.clickhouse.client import writer

    found = writer().query(
        f"SELECT count(), sum(bytes_on_disk) FROM system.parts WHERE database = '{DATABASE}' AND table = 'records' "
        f"AND active"
    )
    return int(found.result_rows[0][0]), int(found.result_rows[0][1])
