"""The filter over ids: never forgets one, seldom suspects another, stays within its memory."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingestion import known_ids
from ingestion.known_ids import KnownIds, first_of_each


def ids(seed: int, count: int) -> Any:
    data = np.random.default_rng(seed).bytes(16 * count)
    return pa.chunked_array([pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), count, [None, pa.py_buffer(data)])])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> KnownIds:
    """Begins with room for 1,000 ids."""
    monkeypatch.setattr(known_ids, "CAPACITY_MIN", 1_000)
    return KnownIds(capacity=1_000, bytes_max=1_000_000)


def test_may_hold_every_id_that_was_added(small: KnownIds) -> None:
    small.add(ids(1, 1_000))
    assert small.may_hold(ids(1, 1_000)).all()


def test_may_hold_hardly_any_other(small: KnownIds) -> None:
    small.add(ids(1, 1_000))
    assert small.may_hold(ids(2, 100_000)).mean() < 0.001


def test_may_hold_nothing_at_first(small: KnownIds) -> None:
    assert not small.may_hold(ids(1, 1_000)).any()


def test_may_hold_answers_in_the_order_of_the_ids(small: KnownIds) -> None:
    small.add(ids(1, 3))
    mixed = pa.chunked_array([*ids(2, 2).chunks, *ids(1, 3).chunks, *ids(3, 1).chunks])
    assert small.may_hold(mixed).tolist() == [False, False, True, True, True, False]


def test_a_slice_is_looked_up_as_itself(small: KnownIds) -> None:
    small.add(ids(1, 10).slice(4, 3))
    assert small.may_hold(ids(1, 10)).tolist() == [False] * 4 + [True] * 3 + [False] * 3


def test_add_past_the_capacity_grows(small: KnownIds) -> None:
    before = small.nbytes
    for seed in range(20):
        small.add(ids(seed, 1_000))
    assert all(small.may_hold(ids(seed, 1_000)).all() for seed in range(20))
    assert small.may_hold(ids(99, 100_000)).mean() < 0.003
    assert small.nbytes > 4 * before


def test_add_stays_within_the_memory_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_ids, "CAPACITY_MIN", 1_000)
    bounded = KnownIds(capacity=1_000, bytes_max=10_000)
    for seed in range(20):
        bounded.add(ids(seed, 1_000))
    assert bounded.nbytes <= 10_000
    assert all(bounded.may_hold(ids(seed, 1_000)).all() for seed in range(20))


def test_first_of_each_marks_every_repetition() -> None:
    a, b = ids(1, 3).chunks[0], ids(2, 2).chunks[0]
    assert first_of_each(pa.chunked_array([a, b, a, b])).tolist() == [True] * 5 + [False] * 5


def test_first_of_each_tells_ids_apart_that_share_their_first_half() -> None:
    halves = [b"a" * 8 + b"b" * 8, b"a" * 8 + b"c" * 8, b"a" * 8 + b"b" * 8]
    assert first_of_each(pa.chunked_array([pa.array(halves, pa.binary(16))])).tolist() == [True, True, False]


def test_first_of_each_of_none() -> None:
    assert first_of_each(ids(1, 0)).tolist() == []
