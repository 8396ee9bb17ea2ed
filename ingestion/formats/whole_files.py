"""Files that are read from their end or in several places: an unpacked copy stands in for a compressed one while it is read."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ingestion.formats.batches import RefusedFile
from ingestion.formats.compression import compression_of, open_binary, open_content
from ingestion.formats.disk import disk_errors
from ingestion.temporary import own_folder


class BrokenFile(RefusedFile):
    """A Parquet file or workbook that cannot be read to its end, or that does not hold what it says it does."""

    code = "BROKEN_FILE"


class TooLarge(RefusedFile):
    """A part of a file that must be in memory as a whole and is larger than its limit."""

    code = "TOO_LARGE"


@contextmanager
def open_whole(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file in a form that can be read anywhere; a copy that had to be made goes when it is closed."""
    if compression_of(path) is None:
        with open_binary(path) as file:
            yield file
        return
    with tempfile.TemporaryFile(prefix="ingest-") as copy:
        _unpack(path, copy)
        copy.seek(0)
        yield copy


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """As `open_whole`, for what opens a file by its name."""
    if compression_of(path) is None:
        open_binary(path).close()
        yield path
        return
    with own_folder("") as folder:
        with (folder / "content").open("xb") as copy:
            _unpack(path, copy)
        yield folder / "content"


def _unpack(path: Path, copy: IO[bytes]) -> None:
    with open_content(path) as content, disk_errors():
        shutil.copyfileobj(content, copy, 1 << 20)
