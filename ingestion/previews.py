"""What a file would give if it were loaded: format, mapping and its first rows as they would be stored. Loads nothing.

The answer is JSON of bounded size, for a page: samples, cells and lists are cut here.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingestion import jobs
from ingestion.chosen_rows import ChosenRows
from ingestion.cleansing import normalise
from ingestion.formats.batches import Batch, Reader, Reject, clip
from ingestion.formats.detect import DetectedFormat
from ingestion.formats.excel_rows import sheet_names
from ingestion.jobs import Inspection
from ingestion.mapping import ColumnMapping, Mapping, NothingMappable, Samples, in_list, infer, shown
from ingestion.mapping_documents import MappingDocument, MappingDoesNotFit
from ingestion.models import DeadLetter, IngestionJob
from ingestion.pipeline import rejected_rows

ROWS_SHOWN = 20
ROWS_JUDGED = 2_000
READ_S = 60.0
CELL_MAX = 200
COLUMNS_SHOWN = 1_000
TABLES_SHOWN = 200
REASONS_SHOWN = 20
RETRIED_MAX = 100_000


@dataclass(frozen=True)
class Question:
    """What is to be looked at: format, table and sheet as asked for ("auto", "": find out), the mapping or None."""

    wanted: str = "auto"
    table: str = ""
    sheet: str = ""
    mapping: MappingDocument | None = None
    mapping_name: str = ""
    is_typed: bool = False  # the mapping is this operator's, not one kept for the source: it must fit
    retry_of: IngestionJob | None = None


def look(path: Path, question: Question, *, on_stage: Callable[[str], None] = lambda stage: None) -> dict[str, Any]:
    """Everything the page of a file shows. Raises `RefusedFile` subclasses, `MappingDoesNotFit`, `FileChanged`."""
    on_stage("Reading the whole file once")
    if question.retry_of is not None:
        known, detected = jobs.unchanged(question.retry_of, path), DetectedFormat.from_json(question.retry_of.detected)
        tables: tuple[Any, ...] = ()
    else:
        known, detected, tables = jobs.identify(
            path, wanted=question.wanted, table=question.table, sheet=question.sheet
        )
    on_stage("Looking at its columns")
    samples, lists = jobs.samples_of(path, detected)
    mapping, name, note = _mapping(question, samples, lists)
    on_stage("Cleaning its first rows")
    reader: Reader = detected.reader(path)
    if question.retry_of is not None:
        reader = ChosenRows(reader, _rejected_numbers(question.retry_of))
    before = None
    if question.retry_of is None:
        before = jobs.known(Inspection(path, known, detected, mapping))
    return {
        "sha256": known.sha256,
        "size_bytes": known.size_bytes,
        "content_bytes": known.content_bytes,
        "detected": detected.as_json(),
        "table": detected.table,
        "tables": [asdict(table) for table in tables[:TABLES_SHOWN]],
        "sheets": sheet_names(path) if detected.format in ("xlsx", "xls") else [],
        "mapping": _shortened(mapping),
        "columns": len(mapping.columns),
        "mapping_name": name,
        "note": note,
        "document": document_of(mapping).as_json(),
        "preview": first_rows(reader, mapping),
        "known": None if before is None else {"job": str(before.pk), "name": before.source_file},
    }


def document_of(mapping: Mapping) -> MappingDocument:
    """The mapping to keep. Columns that no field takes are left out of a wide one: they go to the metadata anyway."""
    whole = MappingDocument.of(mapping)
    if len(whole.targets) <= COLUMNS_SHOWN:
        return whole
    targets: dict[str, str | None] = {name: target for name, target in whole.targets.items() if target is not None}
    return MappingDocument(targets, whole.last_first, whole.day_first, whole.region_column, whole.name_parts)


def first_rows(reader: Reader, mapping: Mapping) -> dict[str, Any]:
    """The first ROWS_SHOWN rows as they would be stored or rejected, and how the first ROWS_JUDGED would fare.

    Reads no longer than about READ_S seconds.
    """
    rows: list[dict[str, Any]] = []
    judged = rejected = with_errors = 0
    reasons: Counter[str] = Counter()
    ends_at = time.monotonic() + READ_S
    for batch in reader:
        head = _head(batch, ROWS_JUDGED - judged)
        clean, refused = normalise(head.rows, mapping)
        rejects = sorted([*head.rejects, *rejected_rows(head, refused)], key=lambda reject: reject.row)
        judged += head.rows_read
        rejected += len(rejects)
        reasons.update(reject.reason for reject in rejects)
        errors: list[list[str]] = [several or [] for several in clean.column("validation_errors").to_pylist()]
        with_errors += sum(map(bool, errors))
        reasons.update(error for several in errors for error in several)
        wanted = ROWS_SHOWN - len(rows)
        if wanted > 0:
            here = [*_stored(head, clean.slice(0, wanted)), *map(_refused, rejects[:wanted])]
            rows += sorted(here, key=lambda row: int(row["row"]))[:wanted]
        if judged >= ROWS_JUDGED or time.monotonic() > ends_at:
            break
    return {
        "rows": rows,
        "judged": judged,
        "rejected": rejected,
        "with_errors": with_errors,
        "reasons": reasons.most_common(REASONS_SHOWN),
    }


def _mapping(question: Question, samples: Samples, lists: Samples) -> tuple[Mapping, str, str]:
    """The mapping, its name, and what the operator must know about it."""
    if question.mapping is not None:
        try:
            return question.mapping.applied(samples, lists=lists), question.mapping_name, ""
        except MappingDoesNotFit as exc:
            if question.is_typed:
                raise
            note = f"The mapping '{question.mapping_name}' of this source does not fit. {exc.message}"
    else:
        note = ""
    try:
        return infer(samples, lists=lists), "", note
    except NothingMappable as exc:
        columns = [
            ColumnMapping(name, None, 1.0, "in a list" if in_list(name) else "metadata", shown(values))
            for name, values in samples.items()
        ]
        columns += [ColumnMapping(name, None, 1.0, "list", shown(values)) for name, values in lists.items()]
        return Mapping(tuple(columns)), "", exc.message.partition(" Rename a column")[0]


def _rejected_numbers(job: IngestionJob) -> pa.Int64Array:
    rows = DeadLetter.objects.filter(job=job).order_by("row").values_list("row", flat=True)[:RETRIED_MAX]
    return pa.array(list(rows), pa.int64())


def _head(batch: Batch, rows: int) -> Batch:
    """The first of a batch's rows and rejects, in the order of the file."""
    taken = batch.rows.slice(0, rows)
    if taken.num_rows == batch.rows.num_rows:
        return batch
    last = batch.numbers[taken.num_rows - 1].as_py() if taken.num_rows else 0
    rejects = [reject for reject in batch.rejects if reject.row <= last]
    return Batch(taken, batch.numbers.slice(0, rows), batch.raw, rejects, batch.bytes_read)


def _stored(batch: Batch, clean: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    for row in clean.drop_columns(["id"]).to_pylist():
        yield {
            "row": batch.numbers[row.pop("position")].as_py(),
            "errors": row.pop("validation_errors"),
            "score": round(row.pop("data_quality_score"), 2),
            "values": {name: cell(value) for name, value in row.items() if value not in (None, "", "{}")},
        }


def _refused(reject: Reject) -> dict[str, Any]:
    return {
        "row": reject.row,
        "reason": reject.reason,
        "column": cell(reject.column),
        "message": cell(reject.message),
        "raw": cell(reject.raw),
    }


def cell(value: Any) -> str:
    """A value as the page shows it: NUL and other control characters told, CELL_MAX characters at most."""
    text = clip(str(value)[: CELL_MAX + 1])
    return text if len(text) <= CELL_MAX else f"{text[:CELL_MAX]}…"


def _shortened(mapping: Mapping) -> dict[str, Any]:
    """The columns that a field takes first, COLUMNS_SHOWN at most."""
    columns = sorted(mapping.columns, key=lambda column: column.target is None)[:COLUMNS_SHOWN]
    kept = mapping.as_json()
    kept["columns"] = [asdict(column) for column in columns]
    return kept
