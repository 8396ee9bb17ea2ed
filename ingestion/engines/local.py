"""The engine in this process: reads and normalises one chunk ahead of the one that is being loaded."""

from collections.abc import Generator
from datetime import datetime

from ingestion.chosen_rows import ChosenRows
from ingestion.engines import Work
from ingestion.formats.batches import Reader
from ingestion.loader import Loaded, Loader
from ingestion.pipeline import Chunk, chunks


def reader_of(work: Work) -> Reader:
    """Reads a job's file from its beginning, of a retry the chosen rows."""
    reader = work.detected.reader(work.path)
    return reader if work.only is None else ChosenRows(reader, work.only)


class LocalRun:
    """See `ingestion.engines.Run`."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._loader = Loader(job_id=work.job_id, source_file=work.source_file)

    def chunks(self) -> Generator[Chunk]:
        work = self._work
        return chunks(reader_of(work), work.mapping, chunk_rows=work.chunk_rows, skip=work.chunks_done)

    def load(self, chunk: Chunk, *, at: datetime) -> Loaded:
        return self._loader.load(chunk.records, chunk=chunk.number, at=at)
