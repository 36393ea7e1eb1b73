"""`odinws.access.channels`: which names are channels, who may have them, and which subjects they are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.access.channels import DEFAULT, Channels, Rule
from odinws.access.tokens import ANONYMOUS, Identity
from odinws.messages.protocol import Rejected

ids = st.text("ABCXYZabcxyz0189_-", min_size=1, max_size=64)
good_ones = st.one_of(st.just("global"), ids.map("token.{}".format), ids.map("user.{}".format))
CHANNELS = ("global", "token.BTC", "token.ETH", "user.1", "user.2")
EVERYTHING = Identity("42", None, DEFAULT.permissions_of("42", ["global", "token.*", "user.*"]))


def refusal(channel: str) -> Rejected | None:
    """Why somebody who may have everything may not have this."""
    return DEFAULT.refusal(EVERYTHING, channel)


# -- without a file --------------------------------------------------------------------------------


@given(channel=good_ones)
def test_good_channels(channel: str) -> None:
    """token.{id}, user.{id} and global can be subscribed, and no longer ones than the limit says."""
    assert refusal(channel) is None
    assert len(channel.encode()) <= DEFAULT.max_bytes
    assert DEFAULT.subjects_of(channel) == ("odin." + channel,)
    assert DEFAULT.channel_of("odin." + channel) == channel


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
        "*",
        ">",
        "global.*",
        "*.X",
        "user." + "x" * 65,
        'token."',
        "server.stats",
        "x" * 100_000,
    ],
    ids=lambda channel: repr(channel[:20]),
)
def test_bad_channels(channel: str) -> None:
    """Anything else is rejected, with the grammar in the message and no more than its head repeated."""
    rejected = refusal(channel)
    assert rejected is not None
    assert rejected.code == "INVALID_CHANNEL"
    assert "token.{id}, user.{id}, global" in rejected.message
    assert channel.startswith(rejected.channel.removesuffix("…"))
    assert len(rejected.channel) <= 81
    assert DEFAULT.channel_of("odin." + channel) is None


@given(channel=st.text())
def test_channel_grammar(channel: str) -> None:
    """The grammar of the interface, by another expression."""
    good = channel == "global" or bool(re.match(r"\A(token|user)\.([A-Za-z0-9_\-]{1,64}|\*)\Z", channel))
    assert (refusal(channel) is None) is good


def test_nobody_in_particular() -> None:
    """Who brings no token has the public channels."""
    for channel in ("global", "token.A", "token.*"):
        assert DEFAULT.refusal(ANONYMOUS, channel) is None
    for channel in ("user.1", "user.*"):
        rejected = DEFAULT.refusal(ANONYMOUS, channel)
        assert rejected is not None
        assert rejected.code == "FORBIDDEN"


# -- what is carried -------------------------------------------------------------------------------


def test_all() -> None:
    """Nothing listed: everything, by one subject."""
    carried = Channels("odin.", " ")
    assert carried.subjects == ("odin.>",)
    assert all(carried.carries(channel) for channel in (*CHANNELS, "token.*", "user.*"))


def test_some() -> None:
    """With or without the prefix; a channel whose kind is listed is no subject of its own."""
    carried = Channels("odin.", "global, odin.token.BTC ,token.*,user.1,global")
    assert carried.subjects == ("odin.global", "odin.token.*", "odin.user.1")
    assert [channel for channel in (*CHANNELS, "token.*", "user.*") if carried.carries(channel)] == [
        "global",
        "token.BTC",
        "token.ETH",
        "user.1",
        "token.*",
    ]
    assert carried.channel_of("odin.user.2") is None
    rejected = carried.refusal(EVERYTHING, "user.2")
    assert rejected is not None
    assert rejected.code == "NOT_CARRIED"


@given(st.lists(st.sampled_from((*CHANNELS, "token.*", "user.*")), min_size=1))
def test_subjects_are_what_is_carried(listed: list[str]) -> None:
    """A channel is carried exactly if one subject, and only one, has it."""
    carried = Channels("a.b.", ",".join(listed))
    for channel in CHANNELS:
        kind = channel.partition(".")[0] + ".*"
        has = sum(s in ("a.b." + channel, "a.b." + kind) for s in carried.subjects)
        assert has == carried.carries(channel)


@pytest.mark.parametrize(
    "entry", ["*", ">", "token", "token.>", "token.A.B", "odin.odin.global", "token.a b"]
)
def test_what_is_none(entry: str) -> None:
    """Anything else is named."""
    with pytest.raises(ValueError, match="is neither a channel nor"):
        Channels("odin.", f"global,{entry}")


def test_subjects_that_overlap_are_one() -> None:
    """NATS takes no consumer whose filters overlap, and would send a message twice to two subscriptions."""
    rules = (Rule("a.*", "public"), Rule("*.b", "public"))
    assert Channels("odin.", "a.*,*.b", rules).subjects == ("odin.>",)
    assert Channels("odin.", "a.*,c.b", rules).subjects == ("odin.a.*", "odin.c.b")


# -- with rules ------------------------------------------------------------------------------------


def test_subjects_of_a_rule() -> None:
    """`$1` is what the first star stands for, and `>` the rest; without a subject it is the channel."""
    rules = Channels(
        rules=[Rule("m.*.*.trade", "public", "token.$2.t.$1"), Rule("orders.>", "public", "shop.>")]
    )
    assert rules.subjects_of("m.BTC.eu.trade") == ("odin.token.eu.t.BTC",)
    assert rules.subjects_of("m.BTC.*.trade") == ("odin.token.*.t.BTC",)
    assert rules.channel_of("odin.token.eu.t.BTC") == "m.BTC.eu.trade"
    assert rules.subjects_of("orders.a.b") == ("odin.shop.a.b",)
    assert rules.subjects_of("orders.>") == ("odin.shop.>",)
    assert rules.channel_of("odin.shop.a.b") == "orders.a.b"
    for subject in ("odin.shop", "odin.orders.a", "other.shop.a", "odin.token.a.t", "odin.shop.*", "odin."):
        assert rules.channel_of(subject) is None


def test_the_first_rule_decides() -> None:
    """Also for a wildcard: it is allowed if all that it has is."""
    rules = Channels(rules=[Rule("a.secret", "claim"), Rule("a.*", "public"), Rule("b.*.>", "own")])
    assert rules.refusal(ANONYMOUS, "a.open") is None
    for channel in ("a.secret", "a.*", "b.42.x"):
        rejected = rules.refusal(ANONYMOUS, channel)
        assert rejected is not None
        assert rejected.code == "FORBIDDEN"
    owner = Identity("42", None, None)
    for channel in ("b.42.x", "b.42.>", "b.42.*.y"):
        assert rules.refusal(owner, channel) is None
    for channel in ("b.43.x", "b.*.x", "b.*.>"):
        assert rules.refusal(owner, channel) is not None


def test_a_wildcard_that_two_rules_share_has_the_subjects_of_both() -> None:
    """What the first rule takes from the second is elsewhere in NATS."""
    rules = Channels(rules=[Rule("a.trade", "public", "elsewhere"), Rule("a.*", "public")])
    assert rules.subjects_of("a.*") == ("odin.elsewhere", "odin.a.*")
    assert rules.channel_of("odin.elsewhere") == "a.trade"
    assert rules.channel_of("odin.a.trade") is None


def test_bounds() -> None:
    """Eight tokens, 255 bytes, and the characters that the file adds."""
    rules = Channels(rules=[Rule(">", "public")], characters=":@")
    for channel in ("a.b.c.d.e.f.g.h", "x" * 255, "user:42@eu", "a.>"):
        assert rules.refusal(ANONYMOUS, channel) is None
    for channel in ("a.b.c.d.e.f.g.h.i", "x" * 256, "user#42", "a.b.c.d.e.f.g.h.>", ">.a", "a.>.b"):
        rejected = rules.refusal(ANONYMOUS, channel)
        assert rejected is not None
        assert rejected.message.endswith("A-Z a-z 0-9 _ -:@")
