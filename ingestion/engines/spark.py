"""The engine on Spark: executors read, normalise and load; this process says what, in which order, and keeps the job.

Parts are prepared on as many executors as there are, a few ahead of what is being loaded. Chunks are loaded one after another
in the order of the file, each announced and checkpointed by the job as for the local engine: so the first of two equal records
is the one that stays, a killed driver leaves at most one chunk open, and a checkpoint needs no list of holes.
"""

import contextlib
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLong
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import pyarrow as pa
from django.conf import settings

from ingestion.engines import EngineFailed, Work, spark_session
from ingestion.engines.local import reader_of
from ingestion.engines.spark_tasks import BatchesPart, Order, Part, Prepared, RangePart, discard, load, prepare
from ingestion.formats import limits
from ingestion.formats.batches import Batch, Reject
from ingestion.formats.ranges import OtherFile, Place, blocks_of, can_be_split
from ingestion.loader import Loaded
from ingestion.pipeline import CHUNK_BYTES, CHUNK_REJECTS

# The loader waits for its lock and for the store, and says so itself; this is for a cluster that says nothing at all.
ANSWER_DEADLINE_S = 1800.0
# Prepared ahead of what is being loaded, beyond one part for each core.
PARTS_AHEAD = 1
RANGE_PARTS_MAX = 64
# These lie in this process's memory, whose reading is what limits them.
BATCHES_PARTS_MAX = 3


@dataclass
class _Ready:
    """A part on its way: what it is, Spark's data set of it, the answer to come; the batches that it is made of, if any."""

    part: Part
    data: Any
    answer: "Future[Any]"
    batches: list[Batch] = field(default_factory=list)
    read_seconds: float = 0.0


@dataclass
class SparkChunk:
    """A chunk that lies prepared on an executor; see `ingestion.engines.LoadableChunk`."""

    number: int
    rows_read: int
    rejects: list[Reject]
    bytes_read: int
    seconds: dict[str, float]
    goes_on_at: dict[str, Any]
    ready: _Ready
    place: int


def beginning() -> dict[str, Any]:
    """What a job on Spark must keep from its first moment on, so that its chunks are always the same."""
    part_bytes = settings.SPARK_PART_BYTES
    return {"part_bytes": part_bytes, "block_bytes": min(limits.BLOCK_BYTES, part_bytes)}


class SparkRun:
    """See `ingestion.engines.Run`."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._context = spark_session.session()
        self._cores = int(self._context.defaultParallelism)
        self._is_out_of_reach = work.is_copy and not str(self._context.master).startswith("local")
        # One core is left to loading, which would else wait for a part to be prepared each time.
        self._preparing = ThreadPoolExecutor(max(1, min(self._cores - 1, RANGE_PARTS_MAX)), "ingest-prepare")
        self._others = ThreadPoolExecutor(2, "ingest-load")

    def chunks(self) -> Generator[SparkChunk]:
        work = self._work
        try:
            if work.only is None and not self._is_out_of_reach and can_be_split(work.detected):
                yield from self._by_ranges()
            else:
                yield from self._by_batches()
        finally:
            self._preparing.shutdown(wait=False, cancel_futures=True)
            self._others.shutdown(wait=False, cancel_futures=True)
            with contextlib.suppress(Exception):  # when Spark is gone there is nothing to cancel
                self._context.cancelJobGroup(str(work.job_id))

    def load(self, chunk: SparkChunk, *, at: datetime) -> Loaded:
        order = Order(self._work.job_id, self._work.source_file, chunk.place, chunk.number, at)
        loading = chunk.ready.data.mapPartitions(partial(load, order, chunk.ready.part))
        answer = self._answer(self._others.submit(self._collect, loading, "load"))
        if isinstance(answer, Exception):
            raise answer
        loaded: Loaded = answer
        return loaded

    def _by_ranges(self) -> Generator[SparkChunk]:
        """The parts of a file, each read by an executor. One that began where the one before did not end is read again."""
        work = self._work
        kept = {**beginning(), **work.goes_on_at}
        block_bytes = kept["block_bytes"]
        blocks = blocks_of(
            work.path, work.detected, part_bytes=kept["part_bytes"], block_bytes=block_bytes, part_rows=work.chunk_rows
        )
        if blocks.size != work.size_bytes:
            raise OtherFile(f"{work.path} has changed since it was looked at. Run the same command again.")
        place = Place(**kept["place"]) if "place" in kept else blocks.first
        stops = deque(stop for stop in blocks.stops if stop > place.block or (stop == place.block and place.more))
        part = RangePart(
            path=str(work.path.resolve()),
            size=blocks.size,
            detected=work.detected.as_json(),
            mapping=work.mapping.as_json(),
            chunk_rows=work.chunk_rows,
            block_bytes=block_bytes,
            first=place.block,
            until=0,
            start=place,
        )
        ahead: deque[_Ready] = deque()
        number, rows, counted = work.chunks_done, work.rows_read, place
        in_file = work.detected.format == "parquet"  # whether rows are numbered in the file or in the part
        while ahead or stops:
            while stops and len(ahead) < min(self._cores + PARTS_AHEAD, RANGE_PARTS_MAX):
                part = replace(part, until=stops.popleft())
                ahead.append(self._ready(part))
                part = replace(part, first=part.until, start=None)
            ready = ahead.popleft()
            prepared = self._prepared(ready)
            asked = ready.part
            assert isinstance(asked, RangePart)  # noqa: S101 - for the type checker
            assert prepared.end is not None  # noqa: S101
            if prepared.start != place:
                self._others.submit(self._collect, ready.data.mapPartitions(discard), "load")
                ahead.appendleft(self._ready(replace(asked, start=place)))
                continue
            before = 0 if in_file else rows
            for at, chunk in enumerate(prepared.chunks):
                rejects = [replace(reject, row=reject.row + before) for reject in chunk.rejects]
                assert chunk.place is not None  # noqa: S101
                bytes_read = chunk.bytes_read or blocks.bytes_before(chunk.place) - blocks.bytes_before(counted)
                goes_on_at = {**kept, "place": chunk.place.as_json()}
                yield SparkChunk(number, chunk.rows_read, rejects, bytes_read, chunk.seconds, goes_on_at, ready, at)
                number, rows, counted = number + 1, rows + chunk.rows_read, chunk.place
            place = prepared.end
            if place.block < asked.until or place.more:
                ahead.appendleft(self._ready(replace(asked, first=place.block, start=place)))
            ready.data.unpersist()

    def _by_batches(self) -> Generator[SparkChunk]:
        """What no two can read at once is read here; executors normalise and load it."""
        work = self._work
        groups = self._groups()
        mapping = work.mapping.as_json()
        number = work.chunks_done
        ahead: deque[_Ready] = deque()
        reading: Future[list[Batch] | None] | None = self._others.submit(next, groups, None)
        while ahead or reading is not None:
            while reading is not None and len(ahead) < BATCHES_PARTS_MAX:
                if ahead and ahead[0].answer.done() and not reading.done():
                    break
                group = reading.result()
                if group is None:
                    reading = None
                    break
                reading = self._others.submit(next, groups, None)
                streams = self._context.broadcast([_stream(batch.rows) for batch in group])
                ahead.append(self._ready(BatchesPart(mapping, streams), group))
            if not ahead:
                return
            ready = ahead.popleft()
            (chunk,) = self._prepared(ready).chunks
            rejects = [reject for batch in ready.batches for reject in batch.rejects]
            for place, position, column, reason, message in chunk.unusable:
                batch = ready.batches[place]
                row = int(batch.numbers[position].as_py())
                rejects.append(Reject(row, column, reason, message, batch.raw(position)))
            rejects.sort(key=lambda reject: reject.row)
            bytes_read = sum(batch.bytes_read for batch in ready.batches)
            rows_read = chunk.records + len(rejects)
            yield SparkChunk(number, rows_read, rejects, bytes_read, chunk.seconds, {}, ready, 0)
            number += 1
            ready.data.unpersist()
            assert isinstance(ready.part, BatchesPart)  # noqa: S101
            ready.part.batches.destroy(blocking=False)

    def _groups(self) -> Iterator[list[Batch]]:
        """The batches of each chunk that is left, by the rule of `pipeline.chunks`."""
        group: list[Batch] = []
        number, rows, held, broken = 0, 0, 0, 0
        for batch in reader_of(self._work):
            if number >= self._work.chunks_done:
                group.append(batch)
            rows += batch.rows_read
            held += max(batch.bytes_read, batch.rows.nbytes)
            broken += len(batch.rejects)
            if rows >= self._work.chunk_rows or held >= CHUNK_BYTES or broken >= CHUNK_REJECTS:
                if number >= self._work.chunks_done:
                    yield group
                group, number, rows, held, broken = [], number + 1, 0, 0, 0
        if rows and number >= self._work.chunks_done:
            yield group

    def _ready(self, part: Part, batches: list[Batch] | None = None) -> _Ready:
        # Kept where it was made, so that Spark loads it there.
        data = self._context.parallelize([0], 1).mapPartitions(partial(prepare, part)).persist()
        return _Ready(part, data, self._preparing.submit(self._collect, data, "prepare"), batches or [])

    def _prepared(self, ready: _Ready) -> Prepared:
        prepared: Prepared = self._answer(ready.answer)
        if prepared.error is not None:
            raise prepared.error
        return prepared

    def _collect(self, data: Any, pool: str) -> Any:
        self._context.setLocalProperty("spark.scheduler.pool", pool)
        self._context.setJobGroup(str(self._work.job_id), f"{self._work.source_file}: {pool}", interruptOnCancel=True)
        (answer,) = data.collect()
        return answer

    def _answer(self, coming: "Future[Any]") -> Any:
        try:
            return coming.result(ANSWER_DEADLINE_S)
        except TooLong as exc:
            raise EngineFailed(f"Spark has not answered for {ANSWER_DEADLINE_S:.0f} s.") from exc
        except spark_session.failures() as exc:
            spark_session.end()
            words = [line for line in str(exc).splitlines() if line.strip()]
            raise EngineFailed(f"Spark has given up: {' '.join(words[:2])[:600]}") from exc


def _stream(rows: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_batch(rows)
    return sink.getvalue().to_pybytes()
