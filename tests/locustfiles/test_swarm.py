"""How connections are dealt out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from odinws.swarm.fleet import channels_of
from odinws.swarm.options import CHANNELS
from odinws.swarm.run import Deal


@given(st.integers(1, 20_000), st.integers(1, 300))
def test_shares(connections: int, users: int) -> None:
    """All connections are dealt, each once, in shares that differ by one at most; then none is left."""
    deal = Deal()
    shares = [deal.share(connections, users) for _ in range(users)]
    numbers = [range(share["first"], share["first"] + share["count"]) for share in shares]
    assert [number for some in numbers for number in some] == list(range(connections))
    counts = [share["count"] for share in shares]
    assert max(counts) - min(counts) <= 1
    assert deal.share(connections, users)["count"] == 0


def test_what_comes_back_is_dealt_again() -> None:
    """Who takes the place of a user has its share."""
    deal = Deal()
    first = deal.share(100, 2)
    deal.share(100, 2)
    deal.back(first["index"])
    assert deal.share(100, 2) == first


def test_channels() -> None:
    """Five, one or three of the test's tokens, the same for the same seed and number."""
    assert channels_of(CHANNELS, "all", 1, 7) == CHANNELS
    for mode, count in (("single", 1), ("random", 3)):
        found = [channels_of(CHANNELS, mode, 1, number) for number in range(100)]
        assert found == [channels_of(CHANNELS, mode, 1, number) for number in range(100)]
        assert {len(set(channels)) for channels in found} == {count}
        assert {channel for channels in found for channel in channels} == set(CHANNELS)
