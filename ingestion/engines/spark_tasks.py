"""What runs on Spark's executors: `prepare` reads and normalises a part of a file, `load` loads a chunk of it.

Between the two a chunk's clean records lie in a file on the executor's own disk, in the folder that Spark removes with the
executor. Spark sends `load` to the node that prepared; wherever the file is not found, the part is prepared again, which gives
the same. So nothing but counts and rejected rows travels through the JVM and to the driver.
"""

import os
import platform
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")  # an executor's Python begins with nothing

import django
from clickhouse_connect.driver.exceptions import Error as StoreError
from django.apps import apps
from django.db import Error as DatabaseError
from django.db import connection

from config.errors import DomainError
from ingestion.cleansing import CLEAN_SCHEMA, normalise
from ingestion.formats.batches import Batch, Reject
from ingestion.formats.detect import DetectedFormat
from ingestion.formats.ranges import Place, check_size, presumed_place, range_reader
from ingestion.mapping import Mapping
from ingestion.pipeline import CHUNK_BYTES, CHUNK_REJECTS, rejected_rows

if TYPE_CHECKING:
    from ingestion.loader import Loaded, Loader

# Their rejected rows travel together, and their records wait together on one disk.
CHUNKS_A_PART = 4
# Given back as answers, not raised: Spark would try again what will not get better, and hide what went wrong.
_ANSWERS = (DomainError, DatabaseError, StoreError)


_LIBRARIES = ("pyarrow", "polars", "numpy", "phonenumbers", "pycountry", "orjson")
_loaders: "dict[uuid.UUID, Loader]" = {}


@dataclass(frozen=True)
class RangePart:
    """A part of a file that every node sees under the same path, from `start` (None: presumed) to block `until`."""

    path: str
    size: int
    detected: dict[str, Any]
    mapping: dict[str, Any]
    chunk_rows: int
    block_bytes: int
    first: int
    until: int
    start: Place | None


@dataclass(frozen=True)
class BatchesPart:
    """Batches that the driver has read, all of one chunk: each an Arrow stream, in a broadcast of Spark's."""

    mapping: dict[str, Any]
    batches: Any


Part = RangePart | BatchesPart


@dataclass(frozen=True)
class PreparedChunk:
    """A chunk whose `records` clean rows lie in `file`. A part of batches has its rejects without number and raw text:
    `unusable` are (batch, position, column, reason, message).
    """

    file: str
    records: int
    rejects: list[Reject]
    bytes_read: int
    seconds: dict[str, float]
    place: Place | None = None
    unusable: list[tuple[int, int, str, str, str]] = field(default_factory=list)

    @property
    def rows_read(self) -> int:
        return self.records + len(self.rejects)


@dataclass(frozen=True)
class Prepared:
    """A part's chunks, where it began and ended, and what made it end early, if anything did."""

    chunks: tuple[PreparedChunk, ...]
    start: Place | None = None
    end: Place | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Order:
    """What `load` is to do: the chunk at `place` of a part, under its number in the job and its `ingested_at`."""

    job_id: uuid.UUID
    source_file: str
    place: int
    number: int
    at: datetime


def greet(nothing: Iterator[Any]) -> Iterator[tuple[str, ...]]:
    """Imports what the other tasks need, and says which libraries it found."""
    _to_the_end(nothing)
    _set_up()
    yield libraries()


def libraries() -> tuple[str, ...]:
    """The versions that decide what becomes of a row."""
    return platform.python_version(), *(f"{name} {metadata.version(name)}" for name in _LIBRARIES)


def _set_up() -> None:
    if not apps.ready:
        django.setup()


def prepare(part: Part, nothing: Iterator[Any]) -> Iterator[Prepared]:
    """Reads and normalises a part."""
    _to_the_end(nothing)
    try:
        yield _prepared_range(part) if isinstance(part, RangePart) else _prepared_batches(part)
    except _ANSWERS as exc:
        yield Prepared((), error=exc)


def load(order: Order, part: Part, prepared: Iterator[Prepared]) -> "Iterator[Loaded | Exception]":
    """Loads one chunk of a prepared part. As often as it is called for one chunk, every record is there once."""
    chunk = next(prepared).chunks[order.place]
    _to_the_end(prepared)
    if not Path(chunk.file).exists():
        chunk = next(prepare(part, iter(()))).chunks[order.place]
    try:
        yield _loaded(order, Path(chunk.file))
    except _ANSWERS as exc:
        yield exc
    finally:
        connection.close()


def _loaded(order: Order, path: Path) -> "Loaded":
    _set_up()
    from ingestion.outages import trouble_told

    with trouble_told(), pa.memory_map(str(path)) as file:
        records = pa.ipc.open_stream(file).read_all()
        loaded = _loader(order).load(records, chunk=order.number, at=order.at)
        del records
    path.unlink(missing_ok=True)
    return loaded


def _loader(order: Order) -> "Loader":
    """This process's loader of the job: what it knows of the ids in the store is worth keeping from chunk to chunk."""
    from ingestion.loader import Loader

    if order.job_id not in _loaders:
        _loaders.clear()
        _loaders[order.job_id] = Loader(job_id=order.job_id, source_file=order.source_file)
    return _loaders[order.job_id]


def _to_the_end(iterator: Iterator[Any]) -> None:
    """Spark uses a Python process again only when it has read all that it was sent."""
    for _ in iterator:
        pass


def discard(prepared: Iterator[Prepared]) -> Iterator[int]:
    """Forgets a prepared part that will not be loaded."""
    for part in prepared:
        for chunk in part.chunks:
            Path(chunk.file).unlink(missing_ok=True)
        yield len(part.chunks)


def _prepared_range(part: RangePart) -> Prepared:
    path, detected, mapping = Path(part.path), DetectedFormat.from_json(part.detected), Mapping.from_json(part.mapping)
    check_size(path, part.size)
    start = part.start or presumed_place(path, detected, block=part.first, block_bytes=part.block_bytes)
    reader = range_reader(path, detected, place=start, until=part.until, block_bytes=part.block_bytes)
    chunks: list[PreparedChunk] = []
    batches = iter(reader)
    while len(chunks) < CHUNKS_A_PART:
        chunk = _chunk(batches, mapping, part.chunk_rows)
        if chunk is None:
            break
        chunks.append(PreparedChunk(*chunk, place=reader.place))
    return Prepared(tuple(chunks), start, reader.place)


def _chunk(
    batches: Iterator[Batch], mapping: Mapping, chunk_rows: int
) -> tuple[str, int, list[Reject], int, dict[str, float]] | None:
    """The next chunk of a reader, by the rule of `pipeline.chunks`; None at its end."""
    rows, held, bytes_read = 0, 0, 0
    seconds = {"read": 0.0, "normalise": 0.0}
    parts: list[pa.RecordBatch] = []
    rejects: list[Reject] = []
    broken = 0
    while rows < chunk_rows and held < CHUNK_BYTES and broken < CHUNK_REJECTS:
        begun = time.monotonic()
        batch = next(batches, None)
        read = time.monotonic()
        seconds["read"] += read - begun
        if batch is None:
            break
        rows += batch.rows_read
        bytes_read += batch.bytes_read
        held += max(batch.bytes_read, batch.rows.nbytes)
        broken += len(batch.rejects)
        clean, rejected = normalise(batch.rows, mapping)
        parts.append(clean)
        rejects += batch.rejects
        rejects += rejected_rows(batch, rejected)
        seconds["normalise"] += time.monotonic() - read
    if not rows:
        return None
    return _kept(parts), rows - len(rejects), sorted(rejects, key=lambda reject: reject.row), bytes_read, seconds


def _prepared_batches(part: BatchesPart) -> Prepared:
    mapping = Mapping.from_json(part.mapping)
    begun = time.monotonic()
    clean_parts: list[pa.RecordBatch] = []
    unusable: list[tuple[int, int, str, str, str]] = []
    for place, stream in enumerate(part.batches.value):
        (rows,) = pa.ipc.open_stream(stream)
        clean, rejected = normalise(rows, mapping)
        clean_parts.append(clean)
        unusable += [
            (place, row["position"], row["column"], row["reason"], row["message"]) for row in rejected.to_pylist()
        ]
    records = sum(clean.num_rows for clean in clean_parts)
    file = _kept(clean_parts)
    seconds = {"normalise": time.monotonic() - begun}
    return Prepared((PreparedChunk(file, records, [], 0, seconds, unusable=unusable),))


def _kept(parts: list[pa.RecordBatch]) -> str:
    """Writes clean records to a file of this executor's and gives its path."""
    folder = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")[0] or tempfile.gettempdir()
    path = f"{folder}/prepared-{uuid.uuid4().hex}.arrow"
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, CLEAN_SCHEMA) as stream:
        for clean in parts:
            stream.write_batch(clean)
    return path
