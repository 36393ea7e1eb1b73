"""FNV-1a against its authors' vectors, the ring against another implementation and against arithmetic."""

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uhashring import HashRing

from strategies.hashing import Ring, fnv1a_64, octets

# From the authors' test program (test_fnv.c, in the public domain), also in draft-eastlake-fnv.
FNV1A_VECTORS = [
    (b"", 0xCBF29CE484222325),
    (b"a", 0xAF63DC4C8601EC8C),
    (b"b", 0xAF63DF4C8601F1A5),
    (b"c", 0xAF63DE4C8601EFF2),
    (b"d", 0xAF63D94C8601E773),
    (b"e", 0xAF63D84C8601E5C0),
    (b"f", 0xAF63DB4C8601EAD9),
    (b"fo", 0x08985907B541D342),
    (b"foo", 0xDCB27518FED9D577),
    (b"foob", 0xDD120E790C2512AF),
    (b"fooba", 0xCAC165AFA2FEF40A),
    (b"foobar", 0x85944171F73967E8),
    (b"\0", 0xAF63BD4C8601B7DF),
    (b"chongo was here!\n", 0x46810940EFF5F915),
]

# Ring size: all points there are.
CIRCLE = 2**128


def node_names(shards: int) -> list[str]:
    return [str(shard) for shard in range(shards)]


def shares(ring: Ring, shards: int) -> list[float]:
    """The part of the circle that each shard owns, from the lengths of its arcs."""
    owned = [0] * shards
    previous = ring.points[-1] - CIRCLE
    for point, owner in zip(ring.points, ring.owners, strict=False):
        owned[owner] += point - previous
        previous = point
    assert sum(owned) == CIRCLE
    return [arc / CIRCLE for arc in owned]


@pytest.mark.parametrize(("data", "expected"), FNV1A_VECTORS)
def test_fnv1a_agrees_with_the_published_vectors(data: bytes, expected: int) -> None:
    """It gives what the authors publish."""
    assert fnv1a_64(data) == expected


def test_fnv1a_of_the_published_zero_hash() -> None:
    """The shortest input whose hash is zero."""
    assert fnv1a_64(bytes.fromhex("d56bb95342870836")) == 0


@given(st.binary(), st.binary())
def test_fnv1a_stays_in_its_width(head: bytes, tail: bytes) -> None:
    """Whatever the input, the value fits."""
    assert 0 <= fnv1a_64(head + tail) < 2**64


@pytest.mark.parametrize(
    ("key", "expected"),
    [("token.BTC", b"token.BTC"), ("é", b"\xc3\xa9"), ("\ud800", b"\xed\xa0\x80")],
)
def test_octets_takes_any_string(key: str, expected: bytes) -> None:
    """Lone surrogates, which JSON can carry, have octets too."""
    assert octets(key) == expected


@pytest.mark.parametrize("shards", [1, 2, 7, 16])
@pytest.mark.parametrize("vnodes", [1, 40, 160])
def test_ring_agrees_with_uhashring(shards: int, vnodes: int) -> None:
    """uhashring's default ring has the same points, so each key must have the same place."""
    ring, oracle = Ring.of(shards, vnodes), HashRing(node_names(shards), vnodes=vnodes)
    assert list(ring.points) == [point for point, _ in oracle.get_points()]
    keys = [f"token.{number}" for number in range(2000)]
    # These are the names of points, so they stand exactly on one.
    keys += [f"{shard}-{vnode}" for shard in range(shards) for vnode in range(vnodes)]
    for key in keys:
        assert ring.locate(key) == int(oracle.get_node(key))


@given(st.text())
def test_ring_agrees_with_uhashring_for_any_key(key: str) -> None:
    """Any text at all."""
    assert RING.locate(key) == int(ORACLE.get_node(key))


RING, ORACLE = Ring.of(5), HashRing(node_names(5), vnodes=160)


def test_ring_begins_again_behind_its_last_point() -> None:
    """A key after the last point belongs to the shard of the first."""
    ring = Ring.of(16, 1)
    wrapped = [key for key in map(str, range(1000)) if ORACLE.hashi(key) >= ring.points[-1]]
    assert wrapped
    assert {ring.locate(key) for key in wrapped} == {ring.owners[0]}


@pytest.mark.parametrize("shards", [2, 4, 8, 16, 32])
def test_ring_shares_are_balanced(shards: int) -> None:
    """With 160 virtual nodes no shard owns more than a quarter above or below the mean."""
    for share in shares(Ring.of(shards), shards):
        assert 0.75 < share * shards < 1.25


@pytest.mark.parametrize("shards", [1, 2, 4, 8, 16])
def test_one_shard_more_moves_only_its_own_share(shards: int) -> None:
    """Keys move to the new shard only, about 1/(N+1) of them, and the same ones as in uhashring."""
    old, new = Ring.of(shards), Ring.of(shards + 1)
    oracle = HashRing(node_names(shards + 1), vnodes=160)
    keys = [f"conn-{number}" for number in range(5000)]
    moved = [key for key in keys if old.locate(key) != new.locate(key)]
    assert {new.locate(key) for key in moved} == {shards}
    assert moved == [key for key in keys if oracle.get_node(key) == str(shards)]
    assert 0.75 < len(moved) / len(keys) * (shards + 1) < 1.25


def test_ring_is_an_immutable_value() -> None:
    """Equal arguments give equal rings, and nothing of one can be set."""
    ring = Ring.of(3)
    assert ring == Ring.of(3) != Ring.of(4)
    with pytest.raises(FrozenInstanceError):
        ring.points = ()  # type: ignore[misc]


@pytest.mark.parametrize(("shards", "vnodes"), [(0, 1), (1, 0), (-1, 160)])
def test_ring_needs_a_shard_and_a_point(shards: int, vnodes: int) -> None:
    """An empty ring has no place for any key."""
    with pytest.raises(ValueError, match=f"at least 1, not {shards} and {vnodes}"):
        Ring.of(shards, vnodes)
