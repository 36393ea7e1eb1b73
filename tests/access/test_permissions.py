"""`odinws.access.permissions`: what a claim grants, what it does not, and what is shared."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.access import permissions
from odinws.access.errors import AccessError
from odinws.access.permissions import EVERYTHING, MAX_GRANTS, PUBLIC, Permissions, of_claim
from odinws.messages.protocol import MAX_CHANNEL_BYTES, can_be_subscribed

ids = st.text("ab01_-", min_size=1, max_size=2)
channels = st.one_of(st.just("global"), ids.map("token.{}".format), ids.map("user.{}".format))
patterns = channels | st.sampled_from(["token.*", "user.*"])
asked = patterns | st.text(max_size=10)


def refused(claim: Any) -> AccessError:
    """Why a claim is refused."""
    with pytest.raises(AccessError) as caught:
        of_claim("42", claim)
    return caught.value


def test_without_a_claim() -> None:
    """The public channels and the subject's own."""
    granted = of_claim("42", None)
    for channel in ("global", "token.BTC", "token.*", "user.42"):
        assert granted.allows(channel)
    for channel in ("user.43", "user.4", "user.420", "user.*", "user.", "user"):
        assert not granted.allows(channel)


@pytest.mark.parametrize("subject", ["auth0|42", "a.b", "", "*", "x" * 65, "ü"])
def test_a_subject_that_is_no_id_has_no_channel_of_its_own(subject: str) -> None:
    """It gets the public channels alone."""
    granted = of_claim(subject, None)
    assert granted == PUBLIC
    assert not granted.allows(f"user.{subject}")


def test_a_claim_says_it_all() -> None:
    """What is not listed is not granted, not even the own channel."""
    granted = of_claim("42", ["token.BTC", "user.7"])
    assert granted.allows("token.BTC")
    assert granted.allows("user.7")
    for channel in ("user.42", "token.ETH", "token.*", "global"):
        assert not granted.allows(channel)


def test_a_claim_may_grant_every_user() -> None:
    """Explicitly: it is a pattern of its own."""
    granted = of_claim("42", ["user.*"])
    for channel in ("user.1", "user.42", "user.*"):
        assert granted.allows(channel)
    assert not granted.allows("token.BTC")


def test_an_empty_claim_grants_nothing() -> None:
    """It is a claim, not the absence of one."""
    assert not any(of_claim("42", []).allows(channel) for channel in ("global", "token.*", "user.42"))


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


def test_bounds() -> None:
    """256 grants of at most a channel's length."""
    assert of_claim("42", ["global"] * MAX_GRANTS).allows("global")
    assert refused(["global"] * (MAX_GRANTS + 1)).status == 403
    longest = "token." + "x" * 64
    assert len(longest) == MAX_CHANNEL_BYTES
    assert of_claim("42", [longest]).allows(longest)
    assert refused([longest + "x"]).status == 403


@given(st.lists(patterns, max_size=6), ids, asked)
def test_against_the_definition(claim: list[str], subject: str, channel: str) -> None:
    """A channel is allowed if it, or all of its kind, is listed; a pattern if all of it is."""
    kind, _, rest = channel.partition(".")
    known = channel in ("token.*", "user.*") or can_be_subscribed(channel)
    expected = known and (channel in claim or (rest != "" and f"{kind}.*" in claim))
    assert of_claim(subject, claim).allows(channel) is expected


@given(st.lists(patterns, max_size=6), ids)
def test_equal_permissions_are_equal(claim: list[str], subject: str) -> None:
    """In whatever order and however often they are listed."""
    one, other = of_claim(subject, claim), of_claim(subject, claim[::-1] * 2)
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == repr(other)


def test_identities_share_what_they_have_in_common() -> None:
    """Ten thousand users hold one set of public channels; what nobody holds is gone."""
    gc.collect()
    before = len(permissions._shared)
    users = [of_claim(str(user), None) for user in range(100)]
    users += [of_claim(str(user), ["global", "token.*", f"user.{user}"]) for user in range(100)]
    assert {id(user._grants) for user in users} == {id(PUBLIC._grants)}
    others = [of_claim(str(user), [f"user.{user + 1}"]) for user in range(100)]
    assert len(permissions._shared) == before + 100
    del others
    gc.collect()
    assert len(permissions._shared) == before


def test_repr_and_comparison() -> None:
    """Readable in a log, and no surprise beside other types."""
    assert repr(of_claim("42", None)) == "Permissions(['global', 'token.*', 'user.42'])"
    assert Permissions(["user.*"], "42") == Permissions(["user.*"])
    assert PUBLIC != "public"
    assert EVERYTHING.allows("user.*")
    assert EVERYTHING.allows("global")
