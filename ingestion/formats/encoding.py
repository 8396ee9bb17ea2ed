"""Bytes to UTF-8: finding out how a file is encoded, and reading it as UTF-8 whatever it is."""

import codecs
import hashlib
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from charset_normalizer import from_bytes

from ingestion.formats import limits
from ingestion.formats.batches import EmptyFile, FileChanged
from ingestion.formats.compression import ArchiveTooLarge, compression_of, open_binary, open_content

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
    """What a file is known by: its size and SHA-256 as it lies there.

    Of its content, unpacked when it is compressed: the length, and the place of its first byte that is not UTF-8 (None: all
    of it is).
    """

    size_bytes: int
    sha256: str
    not_utf8_at: int | None
    content_bytes: int
    stamp: "Stamp | None" = field(default=None, compare=False)


@dataclass(frozen=True)
class Stamp:
    """By what it shows that a file was replaced or written to: device, place on it, size, time of change."""

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        found = path.stat()
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def check(self, path: Path) -> None:
        """Raises `FileChanged` when the file is not the one any more that had this stamp."""
        try:
            now = Stamp.of(path)
        except OSError:
            now = None
        if now != self:
            raise FileChanged(
                f"{path} was replaced or written to while it was read. What was loaded of it stays; load it again when it is"
                " whole: the rows that are there already are duplicates then."
            )


def fingerprint(
    path: Path, *, unpacked_max: int = limits.UNPACKED_BYTES_MAX, ratio_max: int = limits.UNPACKED_RATIO_MAX
) -> Fingerprint:
    """Reads the whole file once, a compressed one to its end as well: that it is whole is known before a row is loaded.

    Raises `UnreadableFile` (no such path, no permission, a folder), `EmptyFile`, `BrokenArchive`, `RefusedArchive`, and
    `ArchiveTooLarge` when the content passes `unpacked_max` bytes or `ratio_max` times the size of the file.
    """
    digest = hashlib.sha256()
    text = _Utf8Check()
    compression = compression_of(path)
    stamp = Stamp.of(path)
    size = 0
    with open_binary(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
            if compression is None:
                text.feed(block)
    if compression is not None:
        most = min(unpacked_max, max(limits.RATIO_FREE_BYTES, ratio_max * size))
        with open_content(path) as content:
            while block := content.read(1 << 20):
                text.feed(block)
                if text.size > most:
                    raise _too_large(path, unpacked_max if most == unpacked_max else 0, ratio_max)
    if text.size == 0:
        raise EmptyFile(f"{path} is empty: there is nothing to load.")
    return Fingerprint(size, digest.hexdigest(), text.not_utf8_at, text.size, stamp)


def _too_large(path: Path, unpacked_max: int, ratio_max: int) -> ArchiveTooLarge:
    if unpacked_max:
        why, setting = f"more than {unpacked_max} bytes", "INGEST_UNPACKED_BYTES_MAX"
    else:
        why, setting = f"more than {ratio_max} times its own size", "INGEST_UNPACKED_RATIO_MAX"
    return ArchiveTooLarge(
        f"{path} unpacks to {why}, as a decompression bomb does. If it is meant to, raise {setting}."
    )


def is_utf8(block: bytes) -> bool:
    """Whether the bytes are UTF-8 text."""
    if block.isascii():
        return True
    whole: Any = pa.BinaryArray
    array = whole.from_buffers(
        pa.binary(), 1, [None, pa.py_buffer(np.array([0, len(block)], np.int32).tobytes()), pa.py_buffer(block)]
    )
    try:
        array.cast(pa.string())  # looks at every byte, several times faster than decoding
    except pa.ArrowInvalid:
        return False
    return True


_TAIL_BYTES = 8


class _Utf8Check:
    """Counts the bytes of a content and finds about where the first is that is not UTF-8."""

    def __init__(self) -> None:
        self.size = 0
        self.not_utf8_at: int | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def feed(self, block: bytes) -> None:
        if self.not_utf8_at is None:
            begun, _ = self._decoder.getstate()
            # A character may go on in the next block: the last bytes are left to the decoder, which remembers its beginning.
            whole = len(block) - _TAIL_BYTES
            if not begun and whole > 0 and is_utf8(block[: (whole := _boundary(block, whole))]):
                self._decode(block[whole:], whole)
            else:
                self._decode(block, 0)
        self.size += len(block)

    def _decode(self, part: bytes, at: int) -> None:
        try:
            self._decoder.decode(part)
        except UnicodeDecodeError as exc:
            self.not_utf8_at = max(0, self.size + at + exc.start - 4)


def _boundary(block: bytes, near: int) -> int:
    """A place shortly before `near` that is not inside of a character of UTF-8, if the bytes there are UTF-8 at all."""
    while near > 0 and block[near] & 0xC0 == 0x80 and near > len(block) - 2 * _TAIL_BYTES:
        near -= 1
    return near


def detect_encoding(path: Path, not_utf8_at: int | None) -> str:
    """The codec of a file: its BOM, else UTF-8 if every byte agrees, else the best guess around the first that does not."""
    with open_content(path) as file:
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
_WESTERN_SIGNS = "€£§©®°´«»–—‘’‚“”„…\xa0"


def _guess(sample: bytes) -> str:
    """The encoding of text that is not all UTF-8. Mostly good UTF-8 stays UTF-8: its bad rows are told one by one."""
    high = sum(byte >= 0x80 for byte in sample)
    lost = sample.decode("utf-8", "replace").count("\N{REPLACEMENT CHARACTER}")
    if lost * 10 < high:
        return "utf-8"
    if high < _TELLING_BYTES and _western(sample):
        return "cp1252"
    best = from_bytes(sample).best()
    name = best.encoding if best is not None else "cp1252"
    if name in _LIKE_CP1252 and (high < _TELLING_BYTES or name in ("latin_1", "cp1258")):
        return "cp1252"
    return name


def _western(sample: bytes) -> bool:
    """Whether the few bytes beyond ASCII make sense as cp1252: letters that mostly stand alone, signs of its keyboards.

    So few say too little for a guess by frequency, which takes two accented letters for Baltic ones as well.
    """
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    places = [place for place, character in enumerate(text) if character >= "\x80"]
    odd = sum(not ("À" <= text[place] <= "ÿ" or text[place] in _WESTERN_SIGNS) for place in places)
    runs = sum(second == first + 1 and text[first : second + 1].isalpha() for first, second in pairwise(places))
    return odd * 10 <= len(places) and runs * 4 <= len(places)


def _utf16_without_bom(head: bytes) -> str | None:
    pairs = len(head) // 2
    if pairs < 2:
        return None
    for name, nul_first in (("utf-16-le", 1), ("utf-16-be", 0)):
        if head[nul_first::2].count(0) > 0.8 * pairs and head[1 - nul_first :: 2].count(0) < 0.1 * pairs:
            return name
    return None


class Utf8Source:
    """A file's content read as UTF-8 bytes without a BOM, whatever its encoding and compression.

    `read` never returns more than about `size` bytes.
    """

    def __init__(self, path: Path, encoding: str) -> None:
        self._file = open_content(path)
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
