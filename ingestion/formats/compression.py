"""Compressed files read as what is in them: gzip, zstd, bzip2, xz and zip, known by their first bytes, never by their name.

Everything streams, nothing is unpacked onto the disk, and a name inside an archive never becomes a path.
"""

import bz2
import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa

from ingestion.formats import limits
from ingestion.formats.batches import RefusedFile, UnreadableFile

SUFFIXES = {"gzip": ".gz", "zstd": ".zst", "bzip2": ".bz2", "xz": ".xz", "zip": ".zip"}
HEAD_BYTES = 512
_STEP = 64 * 1024
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What the packers of two systems add of their own.
_ZIP_LITTER = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")
_DOCUMENT_NAMES = (b"[Content_Types].xml", b"META-INF/manifest.xml")
_BROKEN = (
    EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, struct.error, ValueError, NotImplementedError,
)  # fmt: skip


class BrokenArchive(RefusedFile):
    code = "BROKEN_ARCHIVE"


class RefusedArchive(RefusedFile):
    """An archive that is whole and is not read: several files in it, encrypted, nested, a name that leads elsewhere."""

    code = "REFUSED_ARCHIVE"


class ArchiveTooLarge(RefusedFile):
    code = "ARCHIVE_TOO_LARGE"


def open_binary(path: Path) -> BinaryIO:
    """Opens a file for reading, as it lies there. Raises `UnreadableFile` with what to do about it."""
    try:
        if path.is_dir():
            raise UnreadableFile(
                f"{path} is a folder. Name a file, or the files in it with a pattern like '{path}/*.csv'."
            )
        if path.exists() and not path.is_file():
            raise UnreadableFile(f"{path} is a device or a pipe, not a file. Write its content to a file first.")
        return path.open("rb")
    except FileNotFoundError as exc:
        raise UnreadableFile(f"There is no file {path}. Check the path.") from exc
    except PermissionError as exc:
        raise UnreadableFile(f"{path} may not be read by this user. Change its permissions or the user.") from exc
    except OSError as exc:
        raise UnreadableFile(f"{path} cannot be read: {exc.strerror or exc}.") from exc


def open_content(path: Path) -> BinaryIO:
    """Opens what a file holds: unpacked when it is compressed, else as it lies there. Seeking back unpacks again.

    Reading raises `BrokenArchive` where the archive ends early or does not match its checksum. Raises as `open_binary` and
    `compression_of` do.
    """
    compression = compression_of(path)
    if compression is None:
        return open_binary(path)
    return io.BufferedReader(_Content(path, compression), _STEP)


def compression_of(path: Path) -> str | None:
    """How a file is compressed, one of SUFFIXES, or None. An Office document is a zip and yet no archive: None.

    Raises `BrokenArchive` and `RefusedArchive` for a zip whose directory cannot be read or holds what is not read.
    """
    with open_binary(path) as file:
        compression = by_magic(file.read(HEAD_BYTES))
        if compression == "zip":
            try:
                with zipfile.ZipFile(_Guarded(file, path)) as archive:
                    if _is_document(archive):
                        return None
                    _member(archive, path)
            except _BROKEN as exc:
                raise _broken(path, "zip", exc) from exc
    return compression


def by_magic(head: bytes) -> str | None:
    """The compression that a file's first bytes tell, None when they tell none."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return "zstd"
    if head.startswith(b"BZh") and head[3:4].isdigit() and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return "bzip2"
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    if head.startswith(_ZIP_MAGIC):
        return "zip"
    return None


def content_name(path: Path) -> str:
    """The name of what a file holds: a zip member's own, else the file's without the suffix of its compression."""
    compression = compression_of(path)
    if compression == "zip":
        with open_binary(path) as file, zipfile.ZipFile(_Guarded(file, path)) as archive:
            return PurePosixPath(_member(archive, path).filename).name
    if compression is not None and path.suffix.lower() == SUFFIXES[compression]:
        return path.stem
    return path.name


def refuse_nested(path: Path, head: bytes) -> None:
    """Raises `RefusedArchive` when the content of an archive begins like another archive."""
    inner = by_magic(head)
    if inner == "zip" and any(name in head for name in _DOCUMENT_NAMES):
        return
    if head[257:262] == b"ustar":
        inner = "tar"
    if inner is not None:
        raise RefusedArchive(
            f"{path} holds a {inner} archive inside the compressed file. Unpack it and name the file in it."
        )


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class _Content(io.RawIOBase):
    """The content of an archive as a raw stream."""

    def __init__(self, path: Path, compression: str) -> None:
        self._path, self._compression = path, compression
        self._at = 0
        self._source = self._open()

    def _open(self) -> _Source:
        file = open_binary(self._path)
        try:
            if self._compression == "zip":
                return _ZipMember(file, self._path)
            if self._compression == "zstd":
                return cast(_Source, pa.CompressedInputStream(pa.PythonFile(cast(Any, file), mode="r"), "zstd"))
            return _Members(file, _DECOMPRESSORS[self._compression])
        except _BROKEN as exc:
            file.close()
            raise _broken(self._path, self._compression, exc) from exc

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence != io.SEEK_SET:
            raise io.UnsupportedOperation("the end of compressed content is not known before it is read")
        if offset < self._at:
            self._source.close()
            self._source, self._at = self._open(), 0
        while self._at < offset and self._read(min(_STEP, offset - self._at)):
            pass
        return self._at

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer)
        data = self._read(min(_STEP, len(target)))
        target[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        try:
            data = self._source.read(size)
        except _BROKEN as exc:
            raise _broken(self._path, self._compression, exc) from exc
        self._at += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


class _Decompressor(Protocol):
    """What bz2 and lzma have; `decompress` gives at most `max_length` bytes, the rest with the next call."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's object in the form of the other two; it checks length and checksum."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.UNPACKING_MEMORY_BYTES)


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {"gzip": _Gzip, "bzip2": bz2.BZ2Decompressor, "xz": _xz}


class _Members:
    """One compressed stream after another, as `cat a.gz b.gz` makes them; zero bytes after the last are padding."""

    def __init__(self, file: BinaryIO, begin: Callable[[], _Decompressor]) -> None:
        self._file, self._begin = file, begin
        self._current: _Decompressor | None = begin()
        self._pending = b""

    def read(self, size: int, /) -> bytes:
        while self._current is not None:
            if self._current.eof:
                self._next(self._current.unused_data)
                continue
            wanting = self._current.needs_input
            packed = (self._pending or self._file.read(_STEP)) if wanting else b""
            self._pending = b"" if wanting else self._pending
            data = self._current.decompress(packed, max_length=size)
            if data:
                return data
            if wanting and not packed and not self._current.eof:
                raise EOFError("it ends in the middle")
        return b""

    def _next(self, rest: bytes) -> None:
        rest = rest.lstrip(b"\0")
        while not rest:
            packed = self._file.read(_STEP)
            if not packed:
                self._current = None
                return
            rest = packed.lstrip(b"\0")
        self._current, self._pending = self._begin(), rest

    def close(self) -> None:
        self._file.close()


class _Guarded:
    """A file that gives no more at once than a zip directory may have: a forged size cannot fill the memory."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1, /) -> bytes:
        most = limits.ZIP_DIRECTORY_BYTES_MAX
        data = self._file.read(min(size, most + 1) if size >= 0 else most + 1)
        if len(data) > most:
            raise RefusedArchive(
                f"The directory of {self._path} is larger than {most} bytes: it holds"
                " thousands of files. Unpack it and name the files."
            )
        return data


class _ZipMember:
    """The one file of a zip archive. Its length and checksum are checked at its end."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        archive = zipfile.ZipFile(cast(Any, _Guarded(file, path)))
        self._member = archive.open(_member(archive, path))

    def read(self, size: int, /) -> bytes:
        return self._member.read(size)

    def close(self) -> None:
        self._member.close()
        self._file.close()


def _is_document(archive: zipfile.ZipFile) -> bool:
    names = archive.NameToInfo
    return any(name.decode() in names for name in _DOCUMENT_NAMES)


def _member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """The one file in a zip. Raises `RefusedArchive` when there is none, are several, or it is not to be read."""
    files = [
        info
        for info in archive.infolist()
        if not info.is_dir()
        and not info.filename.startswith(_ZIP_LITTER)
        and info.filename.split("/")[-1] not in _ZIP_LITTER
    ]
    for info in files:
        parts = info.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise RefusedArchive(f"{path} holds a name that leads out of the archive: {_shown(info)}. It is not read.")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise RefusedArchive(f"{path} holds a symbolic link: {_shown(info)}. It is not read.")
    if len(files) != 1:
        names = ", ".join(_shown(info) for info in files[:5]) + (", …" if len(files) > 5 else "")
        held = f"{len(files)} files ({names})" if files else "no file"
        raise RefusedArchive(f"{path} holds {held}; an archive of one file is read. Unpack it and name the files.")
    info = files[0]
    if info.flag_bits & 0x41:
        raise RefusedArchive(f"{path} is encrypted. Unpack it with its password and name the file in it.")
    if info.compress_type not in _ZIP_METHODS:
        raise RefusedArchive(
            f"{_shown(info)} in {path} is packed by method {info.compress_type}; stored and deflated files are"
            " read. Unpack it first."
        )
    return info


def _shown(info: zipfile.ZipInfo) -> str:
    return repr(info.filename[:100])


def _broken(path: Path, compression: str, error: Exception) -> BrokenArchive:
    if (isinstance(error, lzma.LZMAError) and "emory" in str(error)) or "too much memory" in str(error):
        most = limits.UNPACKING_MEMORY_BYTES // 2**20
        return BrokenArchive(
            f"{path} needs more than {most} MiB to unpack. Pack it with a smaller dictionary or window."
        )
    return BrokenArchive(
        f"{path} is a {compression} archive that is cut off or damaged ({str(error)[:200] or type(error).__name__})."
        " Nothing of it was loaded. Fetch or pack it again."
    )
