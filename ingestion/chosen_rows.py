"""Some rows of a file, by their numbers: what a retry reads. Pure."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingestion.formats.batches import Batch, Reader, Reject


class ChosenRows:
    """A reader that hands on only the rows, and the rejects, whose numbers were chosen. Its batches may be empty."""

    def __init__(self, reader: Reader, numbers: pa.Int64Array) -> None:
        self._reader, self._numbers = reader, numbers

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._reader:
            yield self._chosen(batch)

    def _chosen(self, batch: Batch) -> Batch:
        mask = pc.is_in(batch.numbers, value_set=self._numbers)
        places: list[Any] = pc.indices_nonzero(mask).to_pylist()
        return Batch(
            batch.rows.filter(mask),
            batch.numbers.filter(mask),
            lambda position: batch.raw(places[position]),
            self._chosen_rejects(batch.rejects),
            batch.bytes_read,
        )

    def _chosen_rejects(self, rejects: list[Reject]) -> list[Reject]:
        if not rejects:
            return []
        chosen = pc.is_in(pa.array([reject.row for reject in rejects], pa.int64()), value_set=self._numbers)
        return [reject for reject, wanted in zip(rejects, chosen.to_pylist(), strict=True) if wanted]
