"""The only writer of `records`.

A record's id is the MD5 of the record itself, so "already there" is a question about ids. `load` asks it and inserts what is
new while it holds one lock for the whole installation: no other job can insert in between, and no query ever sees a
duplicate. Whatever is interrupted may be asked again.
"""

import hashlib
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute

from config.clickhouse import client as clients
from config.clickhouse import data_version
from config.clickhouse.client import StoreUnavailable, store_errors
from config.clickhouse.locks import advisory_lock, holds

LOCK = "records-writer"
LOCK_WAIT_S = 900.0
# Tables that hold the ids of one question, each with a name of its own: nobody else can empty it.
IDS_PREFIX = "ingest_ids_"
IDS_TABLES_LIMIT = 100
IN_FLIGHT_WAIT_S = 120.0


@dataclass(frozen=True)
class Loaded:
    """What became of a chunk's records: loaded + duplicate = the records given."""

    loaded: int
    duplicate: int


class Loader:
    """Loads the chunks of one job. Raises `StoreUnavailable`."""

    def __init__(self, *, job_id: uuid.UUID, source_file: str) -> None:
        self._job_id, self._source_file = job_id, source_file
        with store_errors():
            _drop_forgotten_tables()

    def load(self, records: pa.Table, *, chunk: int, at: datetime) -> Loaded:
        """Inserts the records (CLEAN_SCHEMA) that are not there yet, all with `ingested_at` = `at`.

        Give the same `chunk` and `at` when the chunk is tried again: rows that the interrupted attempt had inserted count as
        loaded, not as duplicates. Raises `StoreUnavailable`, `LockBusy`.
        """
        if records.num_rows == 0:
            return Loaded(0, 0)
        ids = records.column("id")
        new = pl.Series(pl.from_arrow(ids.cast(pa.binary()))).is_first_distinct()
        with advisory_lock(LOCK, wait_s=LOCK_WAIT_S), store_errors():
            self._wait_for_inserts_in_flight()
            known, own = self._known(ids, at)
            if len(known):
                new = new & ~pl.Series(pl.from_arrow(pa.compute.is_in(ids, value_set=known)))
            fresh = records if new.all() else records.filter(new.to_arrow())
            if fresh.num_rows and not holds(LOCK):
                raise StoreUnavailable(
                    "The connection that held the writer's lock was lost. Run the same command again."
                )
            if fresh.num_rows:
                self._insert(fresh, chunk=chunk, at=at)
        if fresh.num_rows:
            data_version.raise_version()
        loaded = fresh.num_rows + own
        return Loaded(loaded, records.num_rows - loaded)

    def _known(self, ids: Any, at: datetime) -> tuple[Any, int]:
        """Those of `ids` that are in `records`, and how many of them this very chunk inserted before."""
        client = clients.writer()
        table = f"{IDS_PREFIX}{uuid.uuid4().hex}"
        client.command(f"CREATE TABLE {table} (id UUID) ENGINE = Memory")
        client.insert_arrow(table, pa.table({"id": ids}))
        answer = client.query_arrow(
            "SELECT id, job_id = {job:UUID} AND toUnixTimestamp64Milli(ingested_at) = {at_ms:Int64} AS own"
            f" FROM records WHERE id IN {table}",
            parameters={"job": str(self._job_id), "at_ms": round(at.timestamp() * 1000)},
            # The set is large and its ids are everywhere: one pass over the column is the cheapest way.
            settings={"optimize_use_projections": 0, "use_index_for_in_with_subqueries": 0},
        )
        client.command(f"DROP TABLE {table}")
        known: list[Any] = [getattr(chunk, "storage", chunk) for chunk in answer.column("id").chunks]
        ids_known: Any = pa.chunked_array(known, pa.binary(16))  # type: ignore[call-overload]
        return ids_known, pa.compute.sum(answer.column("own").cast(pa.int64())).as_py() or 0

    def _insert(self, records: pa.Table, *, chunk: int, at: datetime) -> None:
        rows = records.num_rows
        table = records.drop_columns(["position"])
        constants: dict[str, Any] = {
            "job_id": _repeated(self._job_id.bytes, pa.binary(16), rows),
            "source_file": _repeated(self._source_file, pa.string(), rows),
            "ingested_at": _repeated(at, pa.timestamp("ms", "UTC"), rows),
        }
        for name, column in constants.items():
            table = table.append_column(name, column)
        clients.writer().insert_arrow(
            "records",
            table,
            settings={
                "query_id": f"ingest-{self._job_id.hex}-{chunk}-{uuid.uuid4().hex[:8]}",
                # If this very insert arrives twice, the second does nothing. Another set of rows has another token.
                "insert_deduplication_token": f"{self._job_id.hex}-{chunk}-{_fingerprint(records.column('id'))}",
                # One block, so that a chunk is there as a whole or not at all.
                "max_insert_block_size": rows + 1,
                "min_insert_block_size_rows": rows + 1,
                "min_insert_block_size_bytes": 0,
            },
        )

    def _wait_for_inserts_in_flight(self) -> None:
        """An insert whose sender died may still be at work: only when it has ended is "already there" a fact."""
        deadline = time.monotonic() + IN_FLIGHT_WAIT_S
        while True:
            running = clients.writer().query(
                "SELECT count() FROM system.processes WHERE query_kind = 'Insert' AND current_database = currentDatabase()"
                " AND match(query, '^INSERT INTO `?records`? ')"
            )
            if running.result_rows[0][0] == 0:
                return
            if time.monotonic() > deadline:
                raise StoreUnavailable("An earlier insert has been running for too long. Try again when it is done.")
            time.sleep(0.1)


def _drop_forgotten_tables() -> None:
    """Tables of ids that a process left behind when it was killed an hour ago or earlier."""
    old = clients.writer().query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(name, {prefix:String})"
        " AND metadata_modification_time < now() - INTERVAL 1 HOUR LIMIT {limit:UInt32}",
        parameters={"prefix": IDS_PREFIX, "limit": IDS_TABLES_LIMIT},
    )
    for (name,) in old.result_rows:
        clients.writer().command(f"DROP TABLE IF EXISTS {name}")


def _repeated(value: Any, kind: Any, rows: int) -> Any:
    return pa.repeat(pa.scalar(value, kind), rows)


def _fingerprint(ids: Any) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for part in ids.chunks:
        digest.update(b"".join(part.to_pylist()))
    return digest.hexdigest()
