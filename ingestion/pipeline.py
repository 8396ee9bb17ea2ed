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

# In memory at once: the one that is being loaded and the one that is being made meanwhile.
CHUNKS_AT_ONCE = 2
# Where rows are wide or bad, a chunk ends before its rows are full.
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
    handed: queue.SimpleQueue[Chunk | BaseException | None] = queue.SimpleQueue()
    room = threading.Semaphore(CHUNKS_AT_ONCE)
    stop = threading.Event()

    def work() -> None:
        try:
            made = _chunks(reader, mapping, chunk_rows=chunk_rows, skip=skip)
            while _wait(room, stop):
                chunk = next(made, None)
                handed.put(chunk)
                if chunk is None:
                    return
                del chunk  # the consumer alone decides how long it stays in memory
        except BaseException as exc:  # noqa: BLE001 - handed over to the consumer, which raises it
            handed.put(exc)

    thread = threading.Thread(target=work, name="ingest-reader", daemon=True)
    thread.start()
    try:
        while (item := handed.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            del item
            room.release()
    finally:
        stop.set()
        thread.join()


def _wait(room: threading.Semaphore, stop: threading.Event) -> bool:
    """Waits until one more chunk may be made; False when none is wanted any more."""
    while not stop.is_set():
        if room.acquire(timeout=0.2):
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
