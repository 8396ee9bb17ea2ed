"""Reads a Parquet file to its end in a process of its own: a footer that lies can end the process that reads it."""

import os
import resource
import subprocess
import sys
from pathlib import Path

from ingestion.formats.batches import RefusedFile
from ingestion.formats.disk import DiskFull
from ingestion.formats.whole_files import BrokenFile

MEMORY_BYTES_MAX = 6 * 1024**3
DEADLINE_S = 120.0
# How slow a file may be at the least, once past the deadline.
BYTES_A_SECOND = 500_000
_ROOT = Path(__file__).resolve().parent.parent.parent


def probe(path: Path) -> None:
    """Raises `BrokenFile` when reading the file ends its process or takes for ever. What can be told of it is left to tell."""
    paths = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    try:
        outcome = subprocess.run(  # noqa: S603 - our own module, the path as an argument
            [sys.executable, "-m", "ingestion.formats.parquet_probe", str(path.absolute())],
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=DEADLINE_S + path.stat().st_size / BYTES_A_SECOND,
        )
    except subprocess.TimeoutExpired as exc:
        raise BrokenFile(f"{path} takes too long to read for its size. Export it again.") from exc
    if outcome.returncode:
        raise BrokenFile(f"{path} is not a whole Parquet file: its footer is damaged. Copy or export it again.")


def _read(path: Path) -> None:
    from ingestion.formats.parquet_rows import ParquetReader

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        for _ in ParquetReader(path):
            pass
    except (RefusedFile, DiskFull):
        return  # the parent meets it, too, and says so


if __name__ == "__main__":
    _read(Path(sys.argv[1]))
