"""`odinws.messages.protocol`, and the rejections of invalid names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.messages import protocol
from odinws.messages.protocol import Rejected

ids = st.text("ABCXYZabcxyz0189_-", min_size=1, max_size=64)
good_ones = st.one_of(st.just("global"), ids.map("token.{}".format), ids.map("user.{}".format))


@given(channel=good_ones)
def test_good_channels(channel: str) -> None:
    """token.{id}, user.{id} and global can be subscribed, and no longer ones than the limit says."""
    assert protocol.check_channel(channel) is None
    assert len(channel.encode()) <= protocol.MAX_CHANNEL_BYTES


@pytest.mark.parametrize(
    "channel",
    [
        "",
        ".",
        "token",
        "token.",
        "token.a.b",
        "token..a",
        ".token.a",
        "Token.a",
        "TOKEN.A",
        "token.a ",
        " token.a",
        "token.a\n",
        "global\n",
        "global.",
        "global.a",
        "GLOBAL",
        "other.a",
        "odin.token.a",
        "token.ä",
        "token.\u0661",
        "token.a\x00",
        "token.>",
        "token.*a",
        "token.*.a",
        "user." + "x" * 65,
        'token."',
        "x" * 100_000,
    ],
    ids=lambda channel: repr(channel[:20]),
)
def test_bad_channels(channel: str) -> None:
    """Anything else is rejected, with the grammar in the message and no more than its head repeated."""
    rejected = protocol.check_channel(channel)
    assert rejected is not None
    assert rejected.code == "INVALID_CHANNEL"
    assert "token.{id}, user.{id}, global" in rejected.message
    assert channel.startswith(rejected.channel.removesuffix("…"))
    assert len(rejected.channel) <= 81


@pytest.mark.parametrize("channel", ["token.*", "user.*"])
def test_wildcards(channel: str) -> None:
    """All channels of a kind."""
    assert protocol.check_channel(channel) is None
    assert protocol.wildcard(channel.replace("*", "X")) == channel


@pytest.mark.parametrize("channel", ["*", "global.*", "a.b.*", "token.X*", "token.**", "*.X"])
def test_other_patterns_are_none(channel: str) -> None:
    """A star stands for a whole id."""
    rejected = protocol.check_channel(channel)
    assert rejected is not None
    assert rejected.code == "INVALID_CHANNEL"


def test_global_has_no_wildcard() -> None:
    """It is alone of its kind."""
    assert protocol.wildcard("global") == ""


@given(channel=st.text())
def test_channel_grammar(channel: str) -> None:
    """The grammar of the interface, by another expression."""
    good = channel == "global" or bool(re.match(r"\A(token|user)\.([A-Za-z0-9_\-]{1,64}|\*)\Z", channel))
    assert (protocol.check_channel(channel) is None) is good


def test_too_many() -> None:
    """The rejection beyond the limit says the limit, and of a long channel only the head."""
    assert protocol.too_many("x" * 80, 3).channel == "x" * 80
    rejected = protocol.too_many("x" * 100, 3)
    assert rejected == Rejected(
        "x" * 80 + "…", "TOO_MANY_SUBSCRIPTIONS", "a connection may hold 3 subscriptions"
    )
