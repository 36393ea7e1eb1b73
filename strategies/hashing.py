"""Hash functions that map keys to shards, with the same result in every process. Pure.

None of them resists an attacker who chooses the keys.
"""

from bisect import bisect_right
from dataclasses import dataclass
from hashlib import md5
from typing import Self


def octets(key: str) -> bytes:
    """UTF-8 of any string, including lone surrogates, so that no channel name makes a lookup raise."""
    return key.encode("utf-8", "surrogatepass")


def fnv1a_64(data: bytes) -> int:
    """FNV-1a, 64 bit (draft-eastlake-fnv): about 90 ns per byte."""
    value = 0xCBF29CE484222325
    for octet in data:
        value = ((value ^ octet) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def ring_position(key: str) -> int:
    """A key's position on the ring, 128 bits. MD5 is fast and uniform; nothing secret depends on it."""
    return int.from_bytes(md5(octets(key), usedforsecurity=False).digest(), "big")


@dataclass(frozen=True, slots=True)
class Ring:
    """A consistent-hash ring: a key belongs to the shard of the next point. Immutable.

    A ring of N+1 shards has all points of the ring of N, so a key either stays or moves to the new shard;
    about 1/(N+1) of the keys move.
    """

    points: tuple[int, ...]
    """Ascending."""
    owners: tuple[int, ...]
    """The shard of each point, and again that of the first, which follows the last point."""

    @classmethod
    def of(cls, shards: int, vnodes: int = 160) -> Self:
        """The ring of shards 0 to `shards` - 1, each with `vnodes` points.

        With 160 points a shard's share of the keys is within about a quarter of the mean (its standard
        deviation is about 1/sqrt(vnodes), 8 %). Building takes about 1 µs per point, a lookup 1 µs.

        Raises:
            ValueError: `shards` or `vnodes` is less than 1.
        """
        if shards < 1 or vnodes < 1:
            raise ValueError(f"shards and vnodes must be at least 1, not {shards} and {vnodes}")
        pairs = sorted(
            (ring_position(f"{shard}-{vnode}"), shard) for shard in range(shards) for vnode in range(vnodes)
        )
        points, owners = zip(*pairs, strict=True)
        return cls(points, (*owners, owners[0]))

    def locate(self, key: str) -> int:
        """The shard of a key."""
        return self.owners[bisect_right(self.points, ring_position(key))]
