"""Changes an input at random. Pure: the dice are an argument, and the same dice give the same input."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from random import Random

from tests.fuzz.targets.base import MAX_BYTES

# Where lengths, ports, times and counters change their form or their meaning.
NUMBERS = (
    *(0, 1, 4, 125, 126, 127, 128, 255, 256, 1000, 1005, 4999, 32767, 32768, 65535, 65536),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30),
)
_LAYOUTS = ("!B", "!H", "!I", "!Q", "<I")
_DIGITS = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")
_LITERALS = (b"-1", b"1e400", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"\\ud800", b"\xff", b"\xc3\xa9")
_MAX_STEPS = 6
_MAX_TIMES = 64
_MIXED = 0.25  # of the steps take from another input

Change = Callable[[bytes, Random], bytes]
Mix = Callable[[bytes, bytes, Random], bytes]


def mutate(data: bytes, others: Sequence[bytes], dice: Random) -> bytes:
    """Change an input a few times.

    Args:
        others: inputs to take pieces from; at least one.

    Returns:
        At most `MAX_BYTES`; now and then what it was.
    """
    for _ in range(dice.randint(1, _MAX_STEPS)):
        if dice.random() < _MIXED:
            data = dice.choice(MIXES)(data, dice.choice(others), dice)
        else:
            data = dice.choice(CHANGES)(data, dice)
        data = data[:MAX_BYTES]
    return data


def _span(data: bytes, dice: Random) -> tuple[int, int]:
    """A piece of an input, more often a short one."""
    start = dice.randint(0, len(data))
    most = len(data) - start
    return start, start + dice.randint(0, dice.choice((min(most, 4), min(most, 32), most)))


def flip(data: bytes, dice: Random) -> bytes:
    """Turn one bit over."""
    if not data:
        return data
    at = dice.randrange(len(data))
    return data[:at] + bytes((data[at] ^ (1 << dice.randrange(8)),)) + data[at + 1 :]


def insert(data: bytes, dice: Random) -> bytes:
    """Put a few bytes, or something that means something to many, anywhere."""
    at = dice.randint(0, len(data))
    new = dice.choice(_LITERALS) if dice.random() < 0.5 else dice.randbytes(dice.randint(1, 4))
    return data[:at] + new + data[at:]


def delete(data: bytes, dice: Random) -> bytes:
    """Take a piece out."""
    start, end = _span(data, dice)
    return data[:start] + data[end:]


def repeat(data: bytes, dice: Random) -> bytes:
    """Have a piece several times."""
    start, end = _span(data, dice)
    return data[:end] + data[start:end] * dice.randint(1, _MAX_TIMES) + data[end:]


def splice(data: bytes, other: bytes, dice: Random) -> bytes:
    """Put a piece of another input in the place of one of ours."""
    start, end = _span(data, dice)
    first, last = _span(other, dice)
    return data[:start] + other[first:last] + data[end:]


def cross(data: bytes, other: bytes, dice: Random) -> bytes:
    """Go on as another input does."""
    return data[: dice.randint(0, len(data))] + other[dice.randint(0, len(other)) :]


def number(data: bytes, dice: Random) -> bytes:
    """Write a number that may be a bound over what is there, as bytes."""
    layout = dice.choice(_LAYOUTS)
    size = struct.calcsize(layout)
    at = dice.randint(0, len(data))
    value = dice.choice(NUMBERS) % (1 << 8 * size)
    return data[:at] + struct.pack(layout, value) + data[at + size :]


def digits(data: bytes, dice: Random) -> bytes:
    """Write such a number in the place of one that is written in digits."""
    found = list(_DIGITS.finditer(data))
    if not found:
        return data
    match = dice.choice(found)
    return data[: match.start()] + str(dice.choice(NUMBERS)).encode() + data[match.end() :]


CHANGES: tuple[Change, ...] = (flip, insert, delete, repeat, number, digits)
MIXES: tuple[Mix, ...] = (splice, cross)
