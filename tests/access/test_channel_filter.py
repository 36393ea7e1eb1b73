"""`odinws.access.permissions`: what a list of channels means, to clients and to NATS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.access.permissions import ChannelFilter

CHANNELS = ("global", "token.BTC", "token.ETH", "user.1", "user.2")


def test_all() -> None:
    """Nothing listed: everything, by one subject."""
    carried = ChannelFilter(" ", "odin.")
    assert carried.subjects == ("odin.>",)
    assert all(carried.has(channel) for channel in (*CHANNELS, "token.*", "user.*"))


def test_some() -> None:
    """With or without the prefix; a channel whose kind is listed is no subject of its own."""
    carried = ChannelFilter("global, odin.token.BTC ,token.*,user.1,global", "odin.")
    assert carried.subjects == ("odin.global", "odin.token.*", "odin.user.1")
    assert [channel for channel in (*CHANNELS, "token.*", "user.*") if carried.has(channel)] == [
        "global",
        "token.BTC",
        "token.ETH",
        "user.1",
        "token.*",
    ]


@given(st.lists(st.sampled_from((*CHANNELS, "token.*", "user.*")), min_size=1))
def test_subjects_are_what_is_carried(listed: list[str]) -> None:
    """A channel is carried exactly if one subject, and only one, has it."""
    carried = ChannelFilter(",".join(listed), "a.b.")
    for channel in CHANNELS:
        kind = channel.partition(".")[0] + ".*"
        assert sum(s in ("a.b." + channel, "a.b." + kind) for s in carried.subjects) == carried.has(channel)


@pytest.mark.parametrize(
    "entry", ["*", ">", "token", "token.>", "token.A.B", "odin.odin.global", "token.a b"]
)
def test_what_is_none(entry: str) -> None:
    """Anything else is named."""
    with pytest.raises(ValueError, match="is neither a channel nor"):
        ChannelFilter(f"global,{entry}", "odin.")
