"""`odinws.admission.heap`: when memory is given back, and that it is."""

from __future__ import annotations

import psutil
import pytest

from odinws.admission.heap import TRIM_SECONDS, Heap, find_trim


class Trims:
    """A `malloc_trim` that notes when it is called."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, keep: int) -> int:
        assert keep == 0
        self.count += 1
        return 1


def test_memory_that_is_short_is_given_back_now_and_then() -> None:
    """At once, then each four seconds, as long as it is short."""
    trims = Trims()
    heap = Heap(trims)
    counts = []
    for second in range(25):
        heap.look(0, 0, 3 <= second < 20, 100.0 + second)
        counts.append(trims.count)
    assert counts == [0] * 3 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 6
    assert TRIM_SECONDS == 4.0


def test_memory_is_given_back_when_half_of_the_clients_have_left() -> None:
    """Whether it is short or not; and not for a few."""
    trims = Trims()
    heap = Heap(trims)
    seen = []
    for second, connections in enumerate([0, 100, 0, 1000, 501, 500, 499, 300, 0, 0, 0]):
        heap.look(connections, 0, False, 20.0 * second)
        seen.append(trims.count)
    assert seen == [0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2]


def test_memory_is_given_back_when_half_of_what_was_held_is_free() -> None:
    """Few clients may have held much."""
    trims = Trims()
    heap = Heap(trims)
    seen = []
    for second, megabytes in enumerate([0, 1, 0, 100, 51, 50, 49, 30, 0, 0]):
        heap.look(3, megabytes << 20, False, 20.0 * second)
        seen.append(trims.count)
    assert seen == [0, 0, 0, 0, 0, 0, 1, 1, 2, 2]


def test_another_c_library_has_no_such_call() -> None:
    """Nothing happens then."""
    Heap(None).look(0, 0, True, 1.0)


def test_a_hole_is_given_back() -> None:
    """What glibc keeps below a block that is in use; the process shrinks by most of it."""
    trim = find_trim()
    if trim is None:
        pytest.skip("the C library has no malloc_trim")
    process = psutil.Process()
    blocks = [bytes([number % 256]) * 50_000 for number in range(2000)]
    last = bytes(50_000)
    full = process.memory_info().rss
    del blocks
    Heap(trim).look(0, 0, True, 1.0)
    assert full - process.memory_info().rss > 80_000_000
    assert len(last) == 50_000
