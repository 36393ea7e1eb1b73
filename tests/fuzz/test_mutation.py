"""Mutations: what they change, and that a seed says which."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.mutation import CHANGES, MIXES, NUMBERS, Change, Mix, digits, flip, mutate, number
from tests.fuzz.targets.base import MAX_BYTES

SEEDS = range(200)
DATA = b'{"type":"x","since":12}'


def test_a_seed_says_what_comes() -> None:
    """The same dice give the same inputs, others give others."""
    once, again, other = (
        [mutate(DATA, [b"other"], Random(s)) for s in seeds] for seeds in (SEEDS, SEEDS, range(200, 400))
    )
    assert once == again
    assert once != other
    assert len(set(once)) > len(SEEDS) * 0.9


@pytest.mark.parametrize("data", [b"", b"\0", DATA, b"x" * MAX_BYTES])
def test_what_comes_is_bounded(data: bytes) -> None:
    """However small or large what it starts from."""
    for seed in SEEDS:
        assert len(mutate(data, [data, b""], Random(seed))) <= MAX_BYTES


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_changes(change: Change) -> None:
    """Most of the time; nothing is an input like any other."""
    assert sum(change(DATA, Random(seed)) != DATA for seed in SEEDS) > len(SEEDS) / 2
    assert all(isinstance(change(b"", Random(seed)), bytes) for seed in SEEDS)


@pytest.mark.parametrize("mix", MIXES)
def test_each_mix_takes_from_the_other(mix: Mix) -> None:
    """Pieces of both are in what comes."""
    mixed = [mix(b"aaaa", b"bbbb", Random(seed)) for seed in SEEDS]
    assert any(b"a" in data and b"b" in data for data in mixed)
    assert all(set(data) <= set(b"ab") for data in mixed)


def test_one_bit() -> None:
    """Exactly one is turned over."""
    for seed in SEEDS:
        changed = int.from_bytes(flip(DATA, Random(seed)), "big") ^ int.from_bytes(DATA, "big")
        assert changed.bit_count() == 1


def test_numbers() -> None:
    """Bounds come as bytes of every width, and in digits where digits were."""
    written = {digits(b"[12]", Random(seed)) for seed in range(1000)}
    assert written == {b"[%d]" % value for value in NUMBERS}
    binary = {number(b"\x11" * 16, Random(seed)) for seed in range(3000)}
    for bound in (b"\x7e", b"\xff\xff", b"\x80\x00\x00\x00", b"\xff" * 8):
        assert any(bound in data for data in binary)
    assert {len(data) for data in binary} == set(range(16, 25))
