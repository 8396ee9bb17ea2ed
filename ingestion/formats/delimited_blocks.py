"""Where the records of a block of CSV begin and end, and the patient parser for blocks that break the rules.

`scan` proves in a few vector operations that a block is well-formed (every quote opens a field or closes one), so that the
fast parser may take it whole. Any other block goes through `parse_record`, record by record: what is broken costs its own
line and nothing after it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingestion.formats import limits

_LF, _CR = 10, 13


class BrokenRecord(Exception):
    """A record whose quoting cannot be understood: `reason` is UNCLOSED_QUOTE, BAD_QUOTE or ROW_TOO_LONG."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Scan:
    """`end`: bytes up to the end of the last whole record; `clean`: the block up to there may go to the fast parser.

    `quoted_breaks`: a field may hold a line break.
    """

    end: int
    clean: bool
    quoted_breaks: bool = False


def scan(block: bytes, *, delimiter: bytes, quote: bytes, final: bool) -> Scan:
    """Looks at a block that begins at a record's start; `final` when the file ends with it.

    `end` is 0 when the block holds no whole record.
    """
    if quote not in block:
        end = len(block) if final else last_line_end(block)
        return Scan(end, clean=True)
    data = np.frombuffer(block, dtype=np.uint8)
    quotes = np.flatnonzero(data == quote[0])
    if not _quotes_are_regular(data, quotes, delimiter[0], final=final):
        return Scan(0, clean=False)
    if final:
        return Scan(len(block), clean=len(quotes) % 2 == 0, quoted_breaks=True)
    breaks = _line_breaks(data)
    # A break is inside of quotes when an odd number of them came before.
    before = np.searchsorted(breaks, quotes)
    inside = np.cumsum(np.bincount(before, minlength=len(breaks) + 1))[: len(breaks)] % 2 == 1
    if not inside.any():
        return Scan(int(breaks[-1]) + 1 if len(breaks) else 0, clean=True)
    outside = breaks[~inside]
    return Scan(int(outside[-1]) + 1 if len(outside) else 0, clean=True, quoted_breaks=True)


def record_spans(block: bytes, *, quote: bytes) -> npt.NDArray[np.int64]:
    """Start and end of each record that is not a blank line, shape (records, 2), for a clean block of whole records."""
    data = np.frombuffer(block, dtype=np.uint8)
    quotes = np.flatnonzero(data == quote[0])
    breaks = _line_breaks(data)
    breaks = breaks[np.searchsorted(quotes, breaks) % 2 == 0]
    ends = breaks if len(breaks) and breaks[-1] == len(data) - 1 else np.append(breaks, len(data))
    starts = np.concatenate(([0], ends[:-1] + 1))
    trimmed = np.where((ends > starts) & (data[np.maximum(ends - 1, 0)] == _CR) & (ends - 1 >= starts), ends - 1, ends)
    spans = np.stack([starts, trimmed], axis=1)
    return spans[spans[:, 1] > spans[:, 0]]


def last_line_end(block: bytes) -> int:
    """Bytes up to and with the last line break, 0 without one. A CR at the very end may be half of a CRLF: left for later."""
    end = block.rfind(b"\n") + 1
    lone = block.rfind(b"\r", end, len(block) - 1)
    return lone + 1 if lone >= 0 else end


def _line_breaks(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Positions of LF, and of each CR that no LF follows (nor the end of the block, where an LF may yet come)."""
    breaks = data == _LF
    is_return = data == _CR
    if is_return.any():
        returns = np.flatnonzero(is_return)
        returns = returns[returns < len(data) - 1]
        lone = returns[data[returns + 1] != _LF]
        breaks[lone] = True
    return np.flatnonzero(breaks)


def _quotes_are_regular(
    data: npt.NDArray[np.uint8], quotes: npt.NDArray[np.int64], delimiter: int, *, final: bool
) -> bool:
    """Whether every first, third, … quote opens a field and every second, fourth, … closes one, or they are an escaped pair."""
    opening, closing = quotes[0::2], quotes[1::2]
    adjacent = np.zeros(len(quotes) + 1, dtype=bool)  # adjacent[i]: quote i touches quote i - 1
    adjacent[1:-1] = np.diff(quotes) == 1
    before = data[np.maximum(opening - 1, 0)]
    opens = (opening == 0) | (before == delimiter) | (before == _LF) | (before == _CR) | adjacent[0:-1:2]
    if not opens.all():
        return False
    last = len(data) - 1
    after = data[np.minimum(closing + 1, last)]
    closes = (closing == last) | (after == delimiter) | (after == _LF) | (after == _CR) | adjacent[2::2][: len(closing)]
    if not closes.all():
        return False
    # A quote left open over this much text is a mistake, not a long field: the patient parser must find where.
    is_open = len(quotes) % 2 == 1
    return not (is_open and (final or len(data) - int(opening[-1]) > limits.ROW_BYTES_MAX))


def parse_record(block: bytes, start: int, *, delimiter: bytes, quote: bytes) -> tuple[list[bytes], int]:
    """The fields of the record at `start` and where the next one begins. Raises `BrokenRecord`.

    A quote inside a field that does not begin with one is text. A record that reaches limits.ROW_BYTES_MAX is broken.
    """
    fields: list[bytes] = []
    position, size = start, len(block)
    limit = min(size, start + limits.ROW_BYTES_MAX)
    while True:
        if block[position : position + 1] == quote:
            value, position = _quoted(block, position, limit, quote)
            if position < size and block[position] not in (delimiter[0], _LF, _CR):
                raise BrokenRecord("BAD_QUOTE")
        else:
            end = _field_end(block, position, limit, delimiter)
            value, position = block[position:end], end
        fields.append(value)
        if position >= size:
            return fields, size
        if position >= limit:
            raise BrokenRecord("ROW_TOO_LONG")
        if block[position] == delimiter[0]:
            position += 1
            continue
        return fields, position + (2 if block[position : position + 2] == b"\r\n" else 1)


def _quoted(block: bytes, start: int, limit: int, quote: bytes) -> tuple[bytes, int]:
    position = start + 1
    while True:
        close = block.find(quote, position, limit)
        if close < 0:
            raise BrokenRecord("UNCLOSED_QUOTE")
        if block[close + 1 : close + 2] != quote:
            return block[start + 1 : close].replace(quote * 2, quote), close + 1
        position = close + 2


def _field_end(block: bytes, start: int, limit: int, delimiter: bytes) -> int:
    ends = [block.find(mark, start, limit) for mark in (delimiter, b"\n", b"\r")]
    return min((end for end in ends if end >= 0), default=limit)


def line_after(block: bytes, start: int) -> int:
    """Where the physical line after the one at `start` begins; the block's size when there is none."""
    ends = [end for end in (block.find(b"\n", start), block.find(b"\r", start)) if end >= 0]
    if not ends:
        return len(block)
    end = min(ends)
    return end + (2 if block[end : end + 2] == b"\r\n" else 1)
