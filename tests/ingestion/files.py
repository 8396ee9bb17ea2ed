"""Small input files, and readers' output as plain lists."""

from pathlib import Path
from typing import Any

from ingestion.formats.batches import Batch
from ingestion.formats.detect import DetectedFormat, detect
from ingestion.formats.encoding import fingerprint
from ingestion.mapping import KNOWN_HEADER


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def detected(path: Path, *, wanted: str = "auto") -> DetectedFormat:
    return detect(path, wanted=wanted, not_utf8_at=fingerprint(path).not_utf8_at, known_header=KNOWN_HEADER)


def batches(path: Path, *, wanted: str = "auto") -> list[Batch]:
    return list(detected(path, wanted=wanted).reader(path))


def rows(path: Path, *, wanted: str = "auto") -> list[dict[str, Any]]:
    """The rows that were read, empty cells left out."""
    return [
        {name: value for name, value in row.items() if value}
        for batch in batches(path, wanted=wanted)
        for row in batch.rows.to_pylist()
    ]


def rejects(path: Path, *, wanted: str = "auto") -> list[tuple[int, str, str]]:
    """(row number, reason, raw text) of the rows that were not."""
    return [
        (reject.row, reject.reason, reject.raw)
        for batch in batches(path, wanted=wanted)
        for reject in sorted(batch.rejects, key=lambda reject: reject.row)
    ]
