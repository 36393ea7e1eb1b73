"""`odinws.access.permissions`: what a claim grants, what it does not, and what is shared."""

from __future__ import annotations

import gc
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.access import permissions
from odinws.access.channels import DEFAULT, Channels, Rule, Subscribe
from odinws.access.errors import AccessError
from odinws.access.permissions import MAX_GRANTS, Permissions
from odinws.access.tokens import Identity

ids = st.text("ab01_-", min_size=1, max_size=2)
channels = st.one_of(st.just("global"), ids.map("token.{}".format), ids.map("user.{}".format))
patterns = channels | st.sampled_from(["token.*", "user.*"])
asked = patterns | st.text(max_size=10)


class Holder:
    """The owner of a token."""

    def __init__(self, subject: str, claim: Any, rules: Channels = DEFAULT) -> None:
        self._identity = Identity(subject, None, rules.permissions_of(subject, claim))
        self._rules = rules

    def may(self, channel: str) -> bool:
        """Whether it may have a channel of the server."""
        return self._rules.valid(channel) and self._rules.allows(self._identity, channel)


def refused(claim: Any, rules: Channels = DEFAULT) -> AccessError:
    """Why a claim is refused."""
    with pytest.raises(AccessError) as caught:
        rules.permissions_of("42", claim)
    return caught.value


def test_without_a_claim() -> None:
    """The public channels and the subject's own."""
    holder = Holder("42", None)
    for channel in ("global", "token.BTC", "token.*", "user.42"):
        assert holder.may(channel)
    for channel in ("user.43", "user.4", "user.420", "user.*", "user.", "user"):
        assert not holder.may(channel)


@pytest.mark.parametrize("subject", ["auth0|42", "a.b", "", "*", ">", "x" * 65, "ü", "{sub}"])
def test_a_subject_that_is_no_id_has_no_channel_of_its_own(subject: str) -> None:
    """It gets the public channels alone."""
    holder = Holder(subject, None)
    assert holder.may("token.*")
    assert not holder.may(f"user.{subject}")
    assert not Holder(subject, ["token.B"]).may("token.A")


def test_a_claim_says_it_all() -> None:
    """What is not listed is not granted, not even the own channel."""
    holder = Holder("42", ["token.BTC", "user.7"])
    assert holder.may("token.BTC")
    assert holder.may("user.7")
    for channel in ("user.42", "token.ETH", "token.*", "global"):
        assert not holder.may(channel)


def test_a_claim_may_grant_every_user() -> None:
    """Explicitly: it is a pattern of its own."""
    holder = Holder("42", ["user.*"])
    for channel in ("user.1", "user.42", "user.*"):
        assert holder.may(channel)
    assert not holder.may("token.BTC")


def test_an_empty_claim_grants_nothing() -> None:
    """It is a claim, not the absence of one."""
    assert not any(Holder("42", []).may(channel) for channel in ("global", "token.*", "user.42"))


@pytest.mark.parametrize("claim", ["token.*", {"token.*": 1}, 1, True, [1], ["global", None], [["global"]]])
def test_a_claim_of_another_type_is_unusable(claim: Any) -> None:
    """401: it is no token of ours."""
    assert refused(claim).status == 401


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        ">",
        "token.>",
        "token",
        "token.",
        "tok*",
        "token.*.*",
        "token.a.b",
        "Global",
        "order.*",
        "user.ü",
    ],
)
def test_what_is_no_grant_is_refused_by_its_place(pattern: str) -> None:
    """403: nothing in it is passed over silently, and nothing of it repeated."""
    error = refused(["global", pattern])
    assert error.status == 403
    assert error.message.startswith("the token's claim channels[1] is neither")


def test_with_a_file_every_pattern_is_a_grant() -> None:
    """A rule that is gone takes its channel, not the whole token; what has not the form is refused still."""
    rules = Channels(rules=[Rule("orders.>"), Rule("*.trade", "public")])
    holder = Holder("42", ["orders.eu.>", "BTC.trade", "gone.*", ">.x"][:3], rules)
    for channel in ("orders.eu.1", "orders.eu.*", "orders.eu.>", "BTC.trade"):
        assert holder.may(channel)
    for channel in ("orders.us.1", "orders.>", "orders.*.1", "ETH.trade", "*.trade", "gone.1"):
        assert not holder.may(channel)
    for pattern in ("", "a..b", ">.x", "a.b>", "ü", "a b", "a.b.c.d.e.f.g.h.i", "x" * 256, "{sub}"):
        assert refused([pattern], rules).status == 403


def test_bounds() -> None:
    """256 grants of at most a channel's length."""
    assert Holder("42", ["global"] * MAX_GRANTS).may("global")
    assert refused(["global"] * (MAX_GRANTS + 1)).status == 403
    longest = "token." + "x" * 64
    assert len(longest) == DEFAULT.max_bytes
    assert Holder("42", [longest]).may(longest)
    assert refused([longest + "x"]).status == 403


@given(st.lists(patterns, max_size=6), ids, asked)
def test_against_the_definition(claim: list[str], subject: str, channel: str) -> None:
    """A channel is allowed if it, or all of its kind, is listed; a pattern if all of it is."""
    kind, _, rest = channel.partition(".")
    expected = DEFAULT.valid(channel) and (channel in claim or (rest != "" and f"{kind}.*" in claim))
    assert Holder(subject, claim).may(channel) is expected


@given(st.lists(patterns, max_size=6), ids)
def test_equal_permissions_are_one(claim: list[str], subject: str) -> None:
    """In whatever order and however often they are listed."""
    one = Permissions.of(claim, subject)
    assert Permissions.of(claim[::-1] * 2, subject) is one


_tokens = st.sampled_from(("a", "b", "42"))
_names = st.lists(_tokens, min_size=1, max_size=4).map(".".join)
_patterns = st.lists(_tokens | st.just("*"), min_size=1, max_size=3).flatmap(
    lambda tokens: st.sampled_from((".".join(tokens), ".".join([*tokens, ">"])))
)


def _has(pattern: str, name: str) -> bool:
    """Whether a pattern has all of a name, by an expression: a star has a star, and a rest has all."""
    form = re.escape(pattern).replace(r"\*", r"(?:[^.>]+)").replace(">", ".+")
    return re.fullmatch(form, name) is not None


@given(
    st.lists(_names | _patterns, max_size=5),
    st.sampled_from(("42", "a", "a.b", "*", "43")),
    _names | _patterns,
    st.sampled_from(("public", "own", "claim")),
)
def test_patterns_of_any_depth_against_the_definition(
    claim: list[str], subject: str, name: str, subscribe: Subscribe
) -> None:
    """With a claim exactly what one grant has; without one, what the rule says."""
    rules = Channels(rules=[Rule("*.>", subscribe), Rule("a"), Rule("b", "public")])
    has_rule = rules.valid(name)
    assert has_rule is ("." in name or name in ("a", "b"))
    granted = has_rule and any(_has(grant, name) for grant in claim)
    assert Holder(subject, claim, rules).may(name) is granted
    first, dot, _ = name.partition(".")
    by_rule = {"public": True, "own": first == subject and first != "*", "claim": False}[subscribe]
    assert Holder(subject, None, rules).may(name) is (has_rule and (by_rule if dot else name == "b"))


def test_identities_share_what_they_have_in_common() -> None:
    """Ten thousand users hold one set of grants, as what names them is written once; unused ones are gone."""
    gc.collect()
    before = len(permissions._known)
    claims = [["global", "token.*", f"user.{user}"] for user in range(100)]
    held = [Permissions.of(claim, str(user)) for user, claim in enumerate(claims)]
    assert len({id(one) for one in held}) == 1
    assert held[7].grants("user.7", "7")
    assert not held[7].grants("user.8", "7")
    others = [Permissions.of([f"user.{user + 1}"], str(user)) for user in range(100)]
    assert len(permissions._known) == before + 101
    del others
    gc.collect()
    assert len(permissions._known) == before + 1
