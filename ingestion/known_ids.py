"""A filter over the ids that are in the store: "certainly not there" without asking, "perhaps there" worth a question. Pure.

A Bloom filter of blocks (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007): an id sets six bits
of one block of 128, so that a lookup touches one line of memory. An id is an MD5, so its own bits are the hash. It grows by
further filters, each twice as large as the one before (Almeida et al.: Scalable Bloom Filters, 2007).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

BITS_PER_ID = 24  # about one in three thousand ids that are not there looks as if it were
CAPACITY_MIN = 4_000_000
_WORDS = 2
_BLOCK_BITS = 64 * _WORDS
_BLOCKS_MAX = 2**32 - 1
_ROWS_AT_ONCE = 250_000

Words = npt.NDArray[np.uint64]


class KnownIds:
    """Begins with room for `capacity` ids and grows, in all up to `bytes_max`; past that "perhaps" becomes more frequent."""

    def __init__(self, *, capacity: int, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._filters = [_Filter(max(capacity, CAPACITY_MIN), bytes_max)]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self._filters)

    def add(self, ids: Any) -> None:
        """Remembers the ids: a chunked array of 16 bytes each."""
        for halves in _halves(ids):
            last = self._filters[-1]
            left = self._bytes_max - self.nbytes
            if last.count + len(halves) > last.capacity and left >= last.nbytes // 4:
                last = _Filter(2 * last.capacity, left)
                self._filters.append(last)
            last.add(halves)

    def may_hold(self, ids: Any) -> npt.NDArray[np.bool_]:
        """False where an id was certainly never added, True where it probably was; in the order of the ids."""
        answers = [np.zeros(0, dtype=np.bool_)]
        for halves in _halves(ids):
            found = np.zeros(len(halves), dtype=np.bool_)
            for part in self._filters:
                found |= part.may_hold(halves)
            answers.append(found)
        return np.concatenate(answers)


def first_of_each(ids: Any) -> npt.NDArray[np.bool_]:
    """Whether no id before it is the same, for each of a chunked array of 16 bytes each."""
    pairs = np.concatenate([np.zeros((0, 2), dtype=np.uint64), *_halves(ids)])
    order = np.argsort(pairs[:, 0])
    alike = np.diff(pairs[order, 0]) == 0
    first = np.ones(len(pairs), dtype=np.bool_)
    seen: set[bytes] = set()
    # Few have the same first half; which of these come first is seen one by one.
    for place in np.union1d(order[1:][alike], order[:-1][alike]).tolist():
        key = pairs[place].tobytes()
        first[place] = key not in seen
        seen.add(key)
    return first


class _Filter:
    """One filter of a fixed size, for ids as pairs of 64-bit numbers."""

    def __init__(self, capacity: int, bytes_max: int) -> None:
        wanted = capacity * BITS_PER_ID // _BLOCK_BITS + 1
        self._blocks = max(1, min(wanted, bytes_max * 8 // _BLOCK_BITS, _BLOCKS_MAX))
        self._words = np.zeros((self._blocks, _WORDS), dtype=np.uint64)
        self.capacity = self._blocks * _BLOCK_BITS // BITS_PER_ID
        self.count = 0

    @property
    def nbytes(self) -> int:
        return int(self._words.nbytes)

    def add(self, halves: Words) -> None:
        block, masks = self._places(halves)
        for word, mask in enumerate(masks):
            np.bitwise_or.at(self._words[:, word], block, mask)
        self.count += len(halves)

    def may_hold(self, halves: Words) -> npt.NDArray[np.bool_]:
        block, masks = self._places(halves)
        found = np.ones(len(halves), dtype=np.bool_)
        for word, mask in enumerate(masks):
            found &= (self._words[block, word] & mask) == mask
        return found

    def _places(self, halves: Words) -> tuple[npt.NDArray[np.int64], list[Words]]:
        """For each id its block, and for each word of the block the three bits that it sets there."""
        block = ((halves[:, 0] >> np.uint64(32)) * np.uint64(self._blocks)) >> np.uint64(32)
        bits, one, six = halves[:, 1], np.uint64(1), np.uint64(63)
        masks = []
        for word in range(_WORDS):
            first, second, third = ((bits >> np.uint64(18 * word + 6 * bit)) & six for bit in range(3))
            masks.append((one << first) | (one << second) | (one << third))
        return block.astype(np.int64), masks


def _halves(ids: Any) -> Iterator[Words]:
    """The ids as pairs of 64-bit numbers, shape (n, 2), in pieces of bounded size."""
    for chunk in ids.chunks:
        chunk = getattr(chunk, "storage", chunk)
        if len(chunk):
            data = np.frombuffer(chunk.buffers()[1], dtype=np.uint64)
            pairs = data[2 * chunk.offset : 2 * (chunk.offset + len(chunk))].reshape(-1, 2)
            for start in range(0, len(pairs), _ROWS_AT_ONCE):
                yield pairs[start : start + _ROWS_AT_ONCE]
