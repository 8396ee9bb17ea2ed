"""Generated files packed while they are written, byte for byte the same for the same content. Pure."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

COMPRESSIONS = ("gz", "zst", "bz2", "xz", "zip")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
# Test data is written once and read once: a fast level is the better bargain.
_GZIP_LEVEL, _XZ_PRESET, _ZIP_LEVEL = 3, 1, 3


def compression_by_name(path: Path) -> str:
    """The compression that a file's suffix asks for, "" for none."""
    suffix = path.suffix.lower().lstrip(".")
    return suffix if suffix in COMPRESSIONS else ""


@contextmanager
def packed(path: Path, compression: str) -> Iterator[IO[bytes]]:
    """Opens `path` for writing; what is written is packed on its way. `compression`: one of COMPRESSIONS or ""."""
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(path.open("wb"))
        if not compression:
            yield file
            return
        inner: Any
        if compression == "gz":
            inner = gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=_GZIP_LEVEL, mtime=0)
        elif compression == "zst":
            inner = pa.CompressedOutputStream(pa.PythonFile(cast(Any, file), mode="w"), "zstd")
        elif compression == "bz2":
            inner = bz2.BZ2File(file, "wb", compresslevel=1)
        elif compression == "xz":
            inner = lzma.LZMAFile(file, "wb", preset=_XZ_PRESET)  # noqa: SIM115 - closed by the stack
        else:
            archive = stack.enter_context(zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_ZIP_LEVEL))
            member = zipfile.ZipInfo(path.stem or "records", date_time=_LONG_AGO)
            member.compress_type, member.create_system = zipfile.ZIP_DEFLATED, 3
            inner = archive.open(member, "w", force_zip64=True)
        yield cast(IO[bytes], stack.enter_context(io.BufferedWriter(_OneWay(stack.enter_context(inner)), 1 << 20)))


class _OneWay(io.RawIOBase):
    """A stream that cannot go back, and says so: what writes a workbook asks before it relies on it."""

    def __init__(self, target: Any) -> None:
        self._target, self._at = target, 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._target.write(bytes(data))
        self._at += size
        return size

    def tell(self) -> int:
        return self._at
