"""The engines that can work on a job: `local` in this process, `spark` on a cluster.

Both read with the readers of `formats`, clean with `normalise` and load with `Loader`; the job, its checkpoints and its dead
letters are kept by `ingestion.jobs` alone, whichever engine works.
"""

import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from config.errors import DomainError
from ingestion.formats.batches import Reject
from ingestion.formats.detect import DetectedFormat
from ingestion.mapping import Mapping

if TYPE_CHECKING:  # the loader needs Django's apps, which an executor sets up only when it loads
    from ingestion.loader import Loaded

ENGINES = ("local", "spark")


class EngineUnavailable(DomainError):
    """503: what an engine needs is not there. Nothing was begun."""

    status = 503
    code = "ENGINE_UNAVAILABLE"


class EngineFailed(DomainError):
    """503: an engine broke down in the middle of a job, which can be taken up from its last checkpoint."""

    status = 503
    code = "ENGINE_FAILED"


@dataclass(frozen=True)
class Work:
    """What is left of a job: everything that its last checkpoint says.

    `is_copy`: the file is this machine's own copy of one that lies elsewhere; `only`: the row numbers that a retry reads.
    """

    job_id: uuid.UUID
    source_file: str
    path: Path
    size_bytes: int
    detected: DetectedFormat
    mapping: Mapping
    chunk_rows: int
    chunks_done: int = 0
    rows_read: int = 0
    goes_on_at: dict[str, Any] = field(default_factory=dict)
    is_copy: bool = False
    only: pa.Int64Array | None = None


class LoadableChunk(Protocol):
    """Some rows of a file, clean and not loaded yet: `rows_read` = records + rejects. `seconds` by stage.

    `goes_on_at`: what the engine must know, besides the number of chunks, to go on behind this one.
    """

    number: int
    rejects: list[Reject]
    bytes_read: int
    seconds: dict[str, float]
    goes_on_at: dict[str, Any]

    @property
    def rows_read(self) -> int: ...


class Run(Protocol):
    """An engine at work on one job."""

    def chunks(self) -> Generator[LoadableChunk]:
        """The chunks that are left, in the order of the file: the same every time. Raises `RefusedFile`, `EngineFailed`."""
        ...

    def load(self, chunk: Any, *, at: datetime) -> "Loaded":
        """Loads the chunk that `chunks` gave last; see `Loader.load`. Raises what that raises, and `EngineFailed`."""
        ...


def make_ready(engine: str) -> None:
    """Starts what an engine needs, once a process. Raises `EngineUnavailable`."""
    if engine not in ENGINES:
        raise EngineUnavailable(f"There is no engine '{engine}'. Choose one of: {', '.join(ENGINES)}.")
    if engine == "spark":
        from ingestion.engines.spark_session import session

        session()


def beginning(engine: str) -> dict[str, Any]:
    """What a new job keeps in `goes_on_at`: the settings of the engine that decide where its chunks end."""
    if engine == "spark":
        from ingestion.engines import spark

        return spark.beginning()
    return {}


def begin(engine: str, work: Work) -> Run:
    """Sets an engine to work. Raises `EngineUnavailable`, `StoreUnavailable`, `RefusedFile`."""
    # Here, for both need what this module defines, and PySpark is there only where it is wanted.
    if engine == "spark":
        from ingestion.engines.spark import SparkRun

        return SparkRun(work)
    from ingestion.engines.local import LocalRun

    return LocalRun(work)
