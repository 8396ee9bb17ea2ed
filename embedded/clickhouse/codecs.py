"""Content encodings of request bodies and answers: gzip, deflate, lz4 frames and zstd."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import lz4.frame

from embedded.clickhouse.http import BytesLike

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Fastest first: answers go over loopback, so the cost is the CPU's, not the wire's.
ANSWER_ENCODINGS = ("lz4", "zstd", "gzip", "deflate")


class UnknownEncodingError(Exception):
    """A Content-Encoding that is not spoken here."""


class CorruptBodyError(Exception):
    """A compressed body that does not decompress."""


class Compressor(Protocol):
    """Feeds bytes through a content encoding."""

    def feed(self, data: BytesLike) -> bytes:
        """Compressed bytes that are ready after `data`."""

    def finish(self) -> bytes:
        """The rest, with the encoding's end mark."""


class _Lz4Compressor:
    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def feed(self, data: BytesLike) -> bytes:
        head = b"" if self._begun else self._frame.begin()
        self._begun = True
        compressed: bytes = self._frame.compress(data)
        return head + compressed

    def finish(self) -> bytes:
        head = b"" if self._begun else self._frame.begin()
        tail: bytes = self._frame.flush()
        return head + tail


class _ZlibCompressor:
    def __init__(self, window_bits: int) -> None:
        self._stream = zlib.compressobj(level=1, wbits=window_bits)

    def feed(self, data: BytesLike) -> bytes:
        return self._stream.compress(data)

    def finish(self) -> bytes:
        return self._stream.flush()


class _ZstdCompressor:
    def __init__(self) -> None:
        self._stream = zstd.ZstdCompressor(level=1)

    def feed(self, data: BytesLike) -> bytes:
        return bytes(self._stream.compress(data))

    def finish(self) -> bytes:
        return bytes(self._stream.flush())


def compressor(encoding: str) -> Compressor:
    """A fresh compressor for one of ANSWER_ENCODINGS."""
    makers: dict[str, Callable[[], Compressor]] = {
        "lz4": _Lz4Compressor,
        "zstd": _ZstdCompressor,
        "gzip": lambda: _ZlibCompressor(31),
        "deflate": lambda: _ZlibCompressor(15),
    }
    return makers[encoding]()


def choose(accepted: str) -> str | None:
    """The encoding for an answer, from the client's Accept-Encoding; None when it wants none that we have."""
    names = {name.partition(";")[0].strip().lower() for name in accepted.split(",")}
    return next((encoding for encoding in ANSWER_ENCODINGS if encoding in names), None)


def decoded(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The body behind a Content-Encoding, in pieces. Several frames one after the other are one body."""
    if encoding in {"", "identity"}:
        yield from pieces
        return
    makers: dict[str, Callable[[], lz4.frame.LZ4FrameDecompressor | zstd.ZstdDecompressor | zlib._Decompress]] = {
        "lz4": lz4.frame.LZ4FrameDecompressor,
        "zstd": zstd.ZstdDecompressor,
        "gzip": lambda: zlib.decompressobj(wbits=31),
        "deflate": lambda: zlib.decompressobj(wbits=15),
    }
    if encoding not in makers:
        raise UnknownEncodingError(encoding)
    stream = makers[encoding]()
    try:
        for piece in pieces:
            data = piece
            while data:
                if stream.eof:
                    stream = makers[encoding]()
                yield bytes(stream.decompress(data))
                data = bytes(stream.unused_data or b"") if stream.eof else b""
    except (zlib.error, zstd.ZstdError, RuntimeError, EOFError) as error:
        raise CorruptBodyError(f"the body is not {encoding}: {error}") from error
    if not stream.eof:
        raise CorruptBodyError(f"the {encoding} body ends too early")
