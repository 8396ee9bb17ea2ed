"""From a file to deterministic chunks of clean records: read and normalised in a thread of its own. Pure of stores."""

import queue
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ingestion.cleansing import CLEAN_SCHEMA, normalise
from ingestion.formats.batches import Batch, Reader, Reject
from ingestion.mapping import Mapping

QUEUE_CHUNKS = 1
# Where rows are wide or bad, a chunk ends before its rows are full: three of them are in memory at once.
CHUNK_REJECTS = 50_000
# Counted as text: a row group says in a few bytes what fills the memory.
CHUNK_BYTES = 48 * 1024 * 1024


@dataclass
class Chunk:
    """Some rows of a file, ready to load: `rows_read` = records.num_rows + len(rejects). `seconds` by stage."""

    number: int
    records: pa.Table
    rejects: list[Reject]
    bytes_read: int
    seconds: dict[str, float] = field(default_factory=dict)
    goes_on_at: dict[str, Any] = field(default_factory=dict)  # its number says it all

    @property
    def rows_read(self) -> int:
        return int(self.records.num_rows) + len(self.rejects)


def chunks(reader: Reader, mapping: Mapping, *, chunk_rows: int, skip: int) -> Generator[Chunk]:
    """The chunks of a file after the first `skip`, in order: each the batches that reach `chunk_rows` rows or CHUNK_BYTES.

    The same file, mapping and `chunk_rows` always give the same chunks. Reading runs one chunk ahead of the consumer.
    """
    handed: queue.Queue[Chunk | BaseException | None] = queue.Queue(QUEUE_CHUNKS)
    stop = threading.Event()

    def work() -> None:
        try:
            for chunk in _chunks(reader, mapping, chunk_rows=chunk_rows, skip=skip):
                if not _put(handed, chunk, stop):
                    return
            _put(handed, None, stop)
        except BaseException as exc:  # noqa: BLE001 - handed over to the consumer, which raises it
            _put(handed, exc, stop)

    thread = threading.Thread(target=work, name="ingest-reader", daemon=True)
    thread.start()
    try:
        while (item := handed.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _put(
    handed: "queue.Queue[Chunk | BaseException | None]", item: Chunk | BaseException | None, stop: threading.Event
) -> bool:
    while not stop.is_set():
        try:
            handed.put(item, timeout=0.2)
        except queue.Full:
            continue
        return True
    return False


def _chunks(reader: Reader, mapping: Mapping, *, chunk_rows: int, skip: int) -> Iterator[Chunk]:
    number, rows = 0, 0
    parts: list[pa.RecordBatch] = []
    rejects: list[Reject] = []
    bytes_read, held, broken = 0, 0, 0
    seconds = {"read": 0.0, "normalise": 0.0}
    begun = time.monotonic()

    def chunk() -> Chunk:
        table = pa.Table.from_batches(parts, schema=CLEAN_SCHEMA)
        return Chunk(number, table, sorted(rejects, key=lambda reject: reject.row), bytes_read, seconds)

    for batch in reader:
        seconds["read"] += time.monotonic() - begun
        rows += batch.rows_read
        bytes_read += batch.bytes_read
        held += max(batch.bytes_read, batch.rows.nbytes)
        broken += len(batch.rejects)
        if number >= skip:
            begun = time.monotonic()
            clean, rejected = normalise(batch.rows, mapping)
            parts.append(clean)
            rejects += batch.rejects
            rejects += rejected_rows(batch, rejected)
            seconds["normalise"] += time.monotonic() - begun
        if rows >= chunk_rows or held >= CHUNK_BYTES or broken >= CHUNK_REJECTS:
            if number >= skip:
                yield chunk()
            number, rows, bytes_read, held, broken = number + 1, 0, 0, 0, 0
            parts, rejects, seconds = [], [], {"read": 0.0, "normalise": 0.0}
        begun = time.monotonic()
    if rows and number >= skip:
        yield chunk()


def rejected_rows(batch: Batch, rejected: pa.RecordBatch) -> list[Reject]:
    """The rows that `normalise` rejected, with their number in the file and their raw text."""
    return [
        Reject(
            batch.numbers[row["position"]].as_py(),
            row["column"],
            row["reason"],
            row["message"],
            batch.raw(row["position"]),
        )
        for row in rejected.to_pylist()
    ]
