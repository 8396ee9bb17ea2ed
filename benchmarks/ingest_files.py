"""What the ingestion benchmarks load: generated files that stay for the next run, into a database that is new each time."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.installation import FOLDER, ROOT, Installation

# For trying the benchmarks out; figures for the record need the default.
ROWS = int(os.environ.get("BENCH_INGEST_ROWS", "2000000"))
SEED = 11
DATABASE = "bench_ingest"
COMMAND_TIMEOUT_S = 3 * 3600
SUFFIXES = {"csv": "csv", "jsonl": "jsonl", "parquet": "parquet", "xml": "xml", "mysql": "sql", "xlsx": "xlsx"}


@dataclass(frozen=True)
class Ingested:
    """One run of `manage.py ingest` in a process of its own: its seconds (Django's start left out), counts and memory."""

    seconds: float
    rows_read: int
    rows_loaded: int
    rows_duplicate: int
    rows_rejected: int
    peak_bytes: int

    @property
    def rate(self) -> float:
        return self.rows_read / self.seconds


def generated(installation: Installation, file_format: str, rows: int) -> Path:
    """A file of so many records; made once and kept."""
    path = FOLDER / "ingest" / f"records-{SEED}-{rows}.{SUFFIXES[file_format]}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished-{path.name}")
        command = ["generate_records", "--rows", str(rows), "--seed", str(SEED), "--format", file_format]
        installation.manage(*command, "--out", str(unfinished), timeout_s=COMMAND_TIMEOUT_S)
        unfinished.rename(path)
    return path


@contextmanager
def fresh_database(installation: Installation, name: str = DATABASE, *, keep: bool = False) -> Iterator[Installation]:
    """An installation whose records are none yet; its database is dropped at the end unless it is to be kept."""
    from config.clickhouse.client import writer

    url = installation.environment["CLICKHOUSE_URL"].rpartition("/")[0] + f"/{name}"
    writer().command(f"DROP DATABASE IF EXISTS {name}")
    fresh = Installation({**installation.environment, "CLICKHOUSE_URL": url})
    fresh.manage("migrate_clickhouse", "--verbosity", "0")
    try:
        yield fresh
    finally:
        if not keep:
            writer().command(f"DROP DATABASE IF EXISTS {name}")


def command_of(module: str, *arguments: str) -> list[str]:
    """The command line of one of this package's modules."""
    return [sys.executable, "-m", f"benchmarks.{module}", *arguments]


def ingest(installation: Installation, path: Path, *options: str) -> Ingested:
    """Loads a file by `manage.py ingest` with these options. Raises RuntimeError when it did not end as it should."""
    return ingested(_output(installation, command_of("one_ingest", str(path), *options)))


def ingested(output: str) -> Ingested:
    """What `one_ingest` printed. Raises RuntimeError when the file was not loaded."""
    said = json.loads(output.splitlines()[-1])
    job = said["answer"][0]
    if job["state"] not in {"done", "needs_review"}:
        raise RuntimeError(f"ingest ended as {job['state']}: {json.dumps(job)[:1000]}")
    return Ingested(
        said["seconds"],
        rows_read=job["read"],
        rows_loaded=job["loaded"],
        rows_duplicate=job["duplicates"],
        rows_rejected=job["rejected"],
        peak_bytes=said["peak_bytes"],
    )


def read(installation: Installation, path: Path, how: str) -> float:
    """Rows a second of reading a file and nothing else, in a process of its own; see `one_read`."""
    said = json.loads(_output(installation, command_of("one_read", str(path), how)).splitlines()[-1])
    return float(said["rows"]) / float(said["seconds"])


def _output(installation: Installation, command: list[str]) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=installation.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
        text=True,
    )
    if done.returncode != 0 or not done.stdout.strip():
        raise RuntimeError(f"{' '.join(command[1:])} ended with {done.returncode}: {done.stdout[-1000:]}")
    return done.stdout
