"""Finds whole rows in a stream of CSV bytes, at the speed of the bytes' own methods. Pure."""

from collections.abc import Iterable, Iterator

# Everything but quotes and line ends: what remains decides where rows end.
_NOISE = bytes(set(range(256)) - set(b'"\n'))


def count_rows(text: bytes) -> int:
    """How many rows end in `text`, which must start at a row's start: line ends outside of quotes."""
    # A pair of quotes side by side opens and closes nothing, so it can go; mostly nothing but line ends remains.
    skeleton = text.translate(None, _NOISE).replace(b'""', b"")
    if b'"' not in skeleton:
        return len(skeleton)
    return sum(part.count(b"\n") for part in skeleton.split(b'"')[::2])


def end_of_last_row(text: bytes) -> int:
    """Where the last whole row of `text` ends; 0 when no row is whole. `text` must start at a row's start."""
    quotes_before = text.count(b'"')
    end = len(text)
    while (line_end := text.rfind(b"\n", 0, end)) >= 0:
        quotes_before -= text.count(b'"', line_end, end)
        # With an even number of quotes before it, this line end closes a row; else it stands inside a cell.
        if quotes_before % 2 == 0:
            return line_end + 1
        end = line_end
    return 0


def whole_rows(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """The same bytes cut at row ends, each with its number of rows; an unfinished row at the very end is not passed on."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        end = end_of_last_row(rest)
        if end:
            yield rest[:end], count_rows(rest[:end])
            rest = rest[end:]
