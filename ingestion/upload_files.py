"""Uploaded files on disk: streamed to a name of ours, bounded, removed when nobody needs them any more.

The name that came with a file is text to show. It is never a path.
"""

import itertools
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, StopUpload

from config.errors import DomainError
from ingestion.formats.detect import FORMATS
from ingestion.formats.disk import DiskFull, disk_errors

NAME_MAX = 255
FIELD = "file"
# What a form has beside its file: boundaries, headers, the other fields.
FORM_BYTES_MAX = 64 * 1024
# Left free on the disk, for those who write beside us.
RESERVE_BYTES = 64 * 1024 * 1024
ORPHAN_S = 24 * 3600.0
ORPHANS_MAX = 10_000
_SUFFIXES = frozenset({*FORMATS, "txt", "tab", "ndjson", "gz", "zst", "bz2", "xz", "zip", "db", "sqlite3", "xlsm"})


class UploadTooLarge(DomainError):
    """413: more bytes than INGEST_UPLOAD_BYTES_MAX."""

    status = 413
    code = "UPLOAD_TOO_LARGE"


class UploadBroken(DomainError):
    """400: the file did not arrive whole."""

    status = 400
    code = "UPLOAD_BROKEN"


def folder() -> Path:
    """Where uploads lie, made when it is not there; nobody else of this machine may look into it."""
    place = Path(settings.INGEST_UPLOAD_DIR)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place.resolve()


def shown_name(given: str) -> str:
    """A file's name as it can be shown and kept: no folders, nothing that cannot be seen, NAME_MAX characters at most."""
    last = given.replace("\\", "/").rpartition("/")[2]
    name = " ".join("".join(c if c.isprintable() else " " for c in last).split()) or "file"
    return name if len(name) <= NAME_MAX else f"{name[: NAME_MAX - 41]}…{name[-40:]}"


def stored_name(given: str, key: uuid.UUID) -> str:
    """Our name for the file: its key, and of its own name what says which format and compression it has."""
    suffixes = [suffix[1:].lower() for suffix in PurePosixPath(shown_name(given)).suffixes[-2:]]
    return ".".join([str(key), *(suffix for suffix in suffixes if suffix in _SUFFIXES)])


def insist_on_room(content_length: int) -> None:
    """Before a byte of the request's body is read. Raises `UploadTooLarge`, `DiskFull`."""
    most = settings.INGEST_UPLOAD_BYTES_MAX
    if content_length > most + FORM_BYTES_MAX:
        raise UploadTooLarge(_too_large())
    with disk_errors():
        free = shutil.disk_usage(folder()).free
    if content_length + RESERVE_BYTES > free:
        raise DiskFull(
            f"There is no room for this file: {content_length:,} bytes come, {max(0, free - RESERVE_BYTES):,} are free where"
            " uploads are kept. Ask whoever runs the machine to make room (INGEST_UPLOAD_DIR), or load it from s3://."
        )


def _too_large() -> str:
    return (
        f"The file has more than {settings.INGEST_UPLOAD_BYTES_MAX:,} bytes, the most that may be uploaded"
        " (INGEST_UPLOAD_BYTES_MAX). Compress it, put it where s3:// reaches it, or load it with `manage.py ingest`."
    )


class StoredUpload(UploadedFile):  # type: ignore[type-arg]  # generic for the type checker alone
    """A file that has arrived, below `folder()` under a name that a sweep may remove until `keep`."""

    def __init__(self, given: str, key: uuid.UUID, part: Path, file: IO[bytes], size: int) -> None:
        super().__init__(file, shown_name(given), "application/octet-stream", size)
        self.key, self.given, self._part = key, shown_name(given), part

    def keep(self) -> Path:
        """Gives it its name for good."""
        path = self._part.with_name(stored_name(self.given, self.key))
        self.close()
        self._part.rename(path)
        return path


class ToUploadFolder(FileUploadHandler):
    """Django's way to stream a request's file: to disk as it comes, no further than may be.

    `trouble` says why the file was not taken; the rest of the request is then read and thrown away.
    """

    chunk_size = 1024 * 1024

    def __init__(self) -> None:
        super().__init__()
        self.trouble: DomainError | None = None
        self._stored: StoredUpload | None = None
        self._written = 0
        self._given = ""
        self._out: IO[bytes] | None = None
        self._part = Path()
        self._key = uuid.uuid4()

    def new_file(self, field_name: str, file_name: str, *arguments: Any, **options: Any) -> None:
        super().new_file(field_name, file_name, *arguments, **options)
        if field_name != FIELD or self._out is not None:
            self.trouble = UploadBroken("One file at a time is uploaded here. Choose one.")
            self._stop()
        self._given = file_name
        try:
            with disk_errors():
                self._part = folder() / f"{self._key}.part"
                flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
                self._out = os.fdopen(os.open(self._part, flags, 0o600), "w+b")
        except (DiskFull, OSError) as exc:
            self._trouble_with_disk(exc)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        assert self._out is not None  # noqa: S101 - new_file comes first, or has stopped the upload
        self._written += len(raw_data)
        if self._written > settings.INGEST_UPLOAD_BYTES_MAX:
            self.trouble = UploadTooLarge(_too_large())
            self._stop()
        try:
            with disk_errors():
                self._out.write(raw_data)
        except (DiskFull, OSError) as exc:
            self._trouble_with_disk(exc)

    def file_complete(self, file_size: int) -> StoredUpload | None:
        if self._out is None:
            return None
        try:
            with disk_errors():
                self._out.flush()
        except (DiskFull, OSError) as exc:
            self._trouble_with_disk(exc)
        self._stored = StoredUpload(self._given, self._key, self._part, self._out, file_size)
        return self._stored

    def upload_interrupted(self) -> None:
        self.discard()

    def keep(self) -> Path:
        """Gives the file that has arrived its name for good."""
        assert self._stored is not None  # noqa: S101 - the form has it
        path = self._stored.keep()
        self._out = None
        return path

    def discard(self) -> None:
        """Leaves nothing on the disk of what was not kept."""
        if self._out is not None:
            self._out.close()
            self._part.unlink(missing_ok=True)

    def _trouble_with_disk(self, exc: Exception) -> None:
        if isinstance(exc, DiskFull):
            self.trouble = DiskFull(
                "The disk became full while the file arrived; nothing of it is kept. Ask whoever runs the machine to make room"
                " (INGEST_UPLOAD_DIR), or load it from s3://."
            )
        else:
            reason = exc.strerror if isinstance(exc, OSError) else type(exc).__name__
            self.trouble = UploadBroken(f"The file could not be stored ({reason}). INGEST_UPLOAD_DIR must be writable.")
        self._stop()

    def _stop(self) -> None:
        self.discard()
        raise StopUpload(connection_reset=False)


def is_below(path: Path) -> bool:
    """Whether the file is one of ours to remove."""
    return path.parent.resolve() == folder()


def remove(path: Path) -> bool:
    """Removes an uploaded file; whatever is not below `folder()` stays. Returns whether it is gone."""
    if not is_below(path):
        return False
    path.unlink(missing_ok=True)
    return True


def orphans() -> Iterator[Path]:
    """Files of ours that are older than a day, of ORPHANS_MAX that are looked at; some may still belong to somebody."""
    before = time.time() - ORPHAN_S
    with os.scandir(folder()) as entries:
        for entry in itertools.islice(entries, ORPHANS_MAX):
            is_ours = entry.is_file(follow_symlinks=False) and _is_key(entry.name.partition(".")[0])
            if is_ours and entry.stat(follow_symlinks=False).st_mtime < before:
                yield Path(entry.path)


def _is_key(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
