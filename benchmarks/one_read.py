"""`python -m benchmarks.one_read PATH reader|bare`: reads a file to its end and prints its rows and the seconds.

reader: the product's own for the format, its batches dropped as they come. bare: the library for the format, nothing around it.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from xml.parsers import expat


def main(arguments: list[str]) -> int:
    """Finding out what the file is comes before the clock starts."""
    path, how = Path(arguments[0]), arguments[1]
    work = _reader(path) if how == "reader" else BARE[path.suffix.removeprefix(".")][1](path)
    begun = time.perf_counter()
    rows = work()
    print(json.dumps({"rows": rows, "seconds": time.perf_counter() - begun}))
    return 0


def _reader(path: Path) -> Callable[[], int]:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from ingestion import jobs

    reader = jobs.inspect(path).detected.reader(path)
    return lambda: sum(batch.rows_read for batch in reader)


def _jsonl(path: Path) -> Callable[[], int]:
    def work() -> int:
        rows = 0
        with path.open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError):  # the generator's broken rows
                    json.loads(line)
                rows += 1
        return rows

    return work


def _parquet(path: Path) -> Callable[[], int]:
    import pyarrow.parquet

    return lambda: sum(batch.num_rows for batch in pyarrow.parquet.ParquetFile(path).iter_batches(50_000))


def _xml(path: Path) -> Callable[[], int]:
    """Reads the largest well-formed share: expat ends at the first broken record, of which the generator writes some."""

    def work() -> int:
        rows = depth = 0
        texts: list[str] = []

        def start(_name: str, _attributes: dict[str, str]) -> None:
            nonlocal depth
            depth += 1

        def end(_name: str) -> None:
            nonlocal rows, depth
            depth -= 1
            if depth == 1:
                rows += 1
                texts.clear()

        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = start, end
        parser.CharacterDataHandler = texts.append
        with path.open("rb") as file:
            try:
                parser.ParseFile(file)
            except expat.ExpatError:
                return rows
        return rows

    return work


# File suffix → what it is called in the results, and how it is read.
BARE: dict[str, tuple[str, Callable[[Path], Callable[[], int]]]] = {
    "jsonl": ("json.loads, line by line", _jsonl),
    "parquet": ("pyarrow, batches of 50,000", _parquet),
    "xml": ("expat with handlers", _xml),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
