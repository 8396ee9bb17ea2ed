"""Bytes to UTF-8: finding out how a file is encoded, and reading it as UTF-8 whatever it is."""

import codecs
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from charset_normalizer import from_bytes

from ingestion.formats.batches import EmptyFile, UnreadableFile

SAMPLE_BYTES = 256 * 1024
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Fingerprint:
    """What a file is known by, and the place of its first byte that is not UTF-8 (None: all of it is)."""

    size_bytes: int
    sha256: str
    not_utf8_at: int | None


def fingerprint(path: Path) -> Fingerprint:
    """Reads the whole file once. Raises `UnreadableFile` (no such path, no permission, a folder), `EmptyFile`."""
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = 0
    not_utf8_at: int | None = None
    with open_binary(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
            if not_utf8_at is None:
                try:
                    decoder.decode(block)
                except UnicodeDecodeError as exc:
                    not_utf8_at = max(0, size + exc.start - 4)
            size += len(block)
    if size == 0:
        raise EmptyFile(f"{path} is empty: there is nothing to load.")
    return Fingerprint(size, digest.hexdigest(), not_utf8_at)


def open_binary(path: Path) -> BinaryIO:
    """Opens a file for reading. Raises `UnreadableFile` with what to do about it."""
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


def detect_encoding(path: Path, not_utf8_at: int | None) -> str:
    """The codec of a file: its BOM, else UTF-8 if every byte agrees, else the best guess around the first that does not."""
    with open_binary(path) as file:
        head = file.read(SAMPLE_BYTES)
        for bom, name in _BOMS:
            if head.startswith(bom):
                return name
        guess = _utf16_without_bom(head)
        if guess is not None:
            return guess
        if not_utf8_at is None:
            return "utf-8"
        file.seek(max(0, not_utf8_at - SAMPLE_BYTES // 2))
        sample = file.read(SAMPLE_BYTES)
    return _guess(sample)


# Close enough to cp1252 that only long texts can tell them apart; it is by far the most common of them.
_LIKE_CP1252 = frozenset(
    {"cp1250", "cp1252", "cp1254", "cp1257", "cp1258", "latin_1", "iso8859_15", "iso8859_2", "iso8859_9"}
)
_TELLING_BYTES = 200


def _guess(sample: bytes) -> str:
    """The encoding of text that is not all UTF-8. Mostly good UTF-8 stays UTF-8: its bad rows are told one by one."""
    high = sum(byte >= 0x80 for byte in sample)
    lost = sample.decode("utf-8", "replace").count("\N{REPLACEMENT CHARACTER}")
    if lost * 10 < high:
        return "utf-8"
    best = from_bytes(sample).best()
    name = best.encoding if best is not None else "cp1252"
    if name in _LIKE_CP1252 and (high < _TELLING_BYTES or name in ("latin_1", "cp1258")):
        return "cp1252"
    return name


def _utf16_without_bom(head: bytes) -> str | None:
    pairs = len(head) // 2
    if pairs < 2:
        return None
    for name, nul_first in (("utf-16-le", 1), ("utf-16-be", 0)):
        if head[nul_first::2].count(0) > 0.8 * pairs and head[1 - nul_first :: 2].count(0) < 0.1 * pairs:
            return name
    return None


class Utf8Source:
    """A file read as UTF-8 bytes without a BOM, whatever its encoding. `read` never returns more than about `size` bytes."""

    def __init__(self, path: Path, encoding: str) -> None:
        self._file = open_binary(path)
        self._decoder: codecs.IncrementalDecoder | None = None
        if encoding == "utf-8":
            if self._file.read(3) != codecs.BOM_UTF8:
                self._file.seek(0)
        else:
            # A byte that the codec does not know becomes U+FFFD: visible in the data, and no reason to lose the row.
            self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self.bytes_read = self._file.tell()

    def read(self, size: int) -> bytes:
        """The next bytes; b"" at the end of the file."""
        while True:
            data = self._file.read(size)
            self.bytes_read += len(data)
            if self._decoder is None:
                return data
            text = self._decoder.decode(data, final=not data)
            if text or not data:
                return text.encode()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Utf8Source":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
