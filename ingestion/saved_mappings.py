"""Mappings that operators keep by name, and those that the files of a source are read with."""

import json
from datetime import datetime
from pathlib import Path

from django.db import transaction

from ingestion.mapping import Mapping
from ingestion.mapping_documents import InvalidMapping, MappingDocument
from ingestion.models import SavedMapping

NAME_MAX = 100
FILE_BYTES_MAX = 1024 * 1024
NAMES_SHOWN = 20


class UnknownMapping(InvalidMapping):
    """422: no mapping of this name is saved, and no file has it either."""

    code = "UNKNOWN_MAPPING"


def save_mapping(mapping: Mapping, *, name: str, source: str, now: datetime) -> tuple[SavedMapping, bool]:
    """Keeps a mapping by its name, for all later files of `source` unless that is "". Returns it and whether it is new.

    One of the same name is replaced; so is, for its source alone, the one that the source had. Raises `InvalidMapping`.
    """
    return save_document(MappingDocument.of(mapping), name=name, source=source, now=now)


def save_document(document: MappingDocument, *, name: str, source: str, now: datetime) -> tuple[SavedMapping, bool]:
    """As `save_mapping`, for a mapping that was typed."""
    if not name.strip() or len(name) > NAME_MAX or not name.isprintable() or "/" in name or name.endswith(".json"):
        raise InvalidMapping(f"A mapping's name has 1 to {NAME_MAX} characters, no '/' and no '.json' at its end.")
    kept = document.as_json()
    with transaction.atomic():
        if source:
            SavedMapping.objects.filter(source=source).exclude(name=name).update(source="", updated_at=now)
        return SavedMapping.objects.update_or_create(
            name=name,
            defaults={"source": source, "document": kept, "updated_at": now},
            create_defaults={"source": source, "document": kept, "created_at": now, "updated_at": now},
        )


def find_mapping(wanted: str, *, source: str) -> tuple[str, MappingDocument] | None:
    """The mapping of a name or in a JSON file; without either the one of the source, None when it has none.

    Raises `UnknownMapping`, `InvalidMapping`.
    """
    if not wanted:
        kept = SavedMapping.objects.filter(source=source).first() if source else None
        return (kept.name, MappingDocument.from_json(kept.document)) if kept is not None else None
    path = Path(wanted)
    if "/" in wanted or wanted.endswith(".json") or path.is_file():
        return wanted, _from_file(path)
    return wanted, MappingDocument.from_json(saved_mapping(wanted).document)


def saved_mapping(name: str) -> SavedMapping:
    """The mapping of this name. Raises `UnknownMapping` with the names that there are."""
    kept = SavedMapping.objects.filter(name=name).first()
    if kept is None:
        names = ", ".join(SavedMapping.objects.values_list("name", flat=True)[:NAMES_SHOWN]) or "none"
        raise UnknownMapping(
            f"There is no mapping '{name}'. Saved are: {names}. A dry run with --save-mapping saves one."
        )
    return kept


def _from_file(path: Path) -> MappingDocument:
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as exc:
        raise UnknownMapping(f"The mapping {path} cannot be read: {exc.strerror or exc}.") from exc
    if len(text) > FILE_BYTES_MAX:
        raise InvalidMapping(f"The mapping {path} is larger than {FILE_BYTES_MAX} bytes.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidMapping(f"The mapping {path} is not JSON: {str(exc)[:200]}.") from exc
    return MappingDocument.from_json(value)
