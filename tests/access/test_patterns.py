"""`odinws.access.patterns` against regular expressions, and against all channels of a small world."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.access.patterns import PatternSet, covers, disjoint, intersection, is_wildcard

TOKENS = ("a", "b", "c")
# Every channel of up to four tokens. Patterns have up to three, so whatever two of them have in common shows.
WORLD = [".".join(t) for depth in range(1, 5) for t in itertools.product(TOKENS, repeat=depth)]

heads = st.lists(st.sampled_from(("a", "b", "*")), min_size=1, max_size=3)
patterns = st.one_of(
    heads.map(".".join),
    heads.map(lambda tokens: ".".join([*tokens[:2], ">"])),
    st.just(">"),
)


def has(pattern: str, channel: str) -> bool:
    """Whether a pattern has a channel, by another way than the code under test."""
    expression = re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+")
    return re.fullmatch(expression, channel) is not None


def of_world(pattern: str) -> set[str]:
    """The channels of a pattern."""
    return {channel for channel in WORLD if has(pattern, channel)}


@given(patterns, st.sampled_from(WORLD))
def test_a_channel(pattern: str, channel: str) -> None:
    """A pattern covers a channel if the expression matches."""
    assert covers(pattern.split("."), channel.split(".")) is has(pattern, channel)


@given(patterns, patterns)
def test_a_pattern(one: str, other: str) -> None:
    """A pattern covers another if it has all of its channels."""
    assert covers(one.split("."), other.split(".")) is (of_world(one) >= of_world(other))


@given(patterns, patterns)
def test_what_two_have_in_common(one: str, other: str) -> None:
    """It is one pattern, the same from both sides."""
    common = intersection(one.split("."), other.split("."))
    assert intersection(other.split("."), one.split(".")) == common
    assert of_world(".".join(common) if common else "-") == of_world(one) & of_world(other)
    assert disjoint([one, other]) is (common is None)


@given(st.lists(patterns, max_size=12), st.lists(patterns, max_size=6), patterns | st.sampled_from(WORLD))
def test_a_set(added: list[str], removed: list[str], name: str) -> None:
    """It finds exactly those that cover a name, and a pattern that was removed leaves nothing behind."""
    known = PatternSet()
    held: set[str] = set()
    for pattern in added:
        assert known.add(pattern) is (pattern not in held)
        held.add(pattern)
    for pattern in removed:
        assert known.discard(pattern) is (pattern in held)
        held.discard(pattern)
    assert len(known) == len(held)
    found = known.covering(name)
    assert len(found) == len(set(found))
    assert set(found) == {pattern for pattern in held if of_world(pattern) >= of_world(name)}
    for pattern in held:
        known.discard(pattern)
    assert known._root == {}


@pytest.mark.parametrize(("name", "expected"), [("a.b", False), ("a.*", True), (">", True), ("a", False)])
def test_wildcards(name: str, expected: bool) -> None:
    """A star or an angle makes one."""
    assert is_wildcard(name) is expected


def test_most_that_cover_a_channel() -> None:
    """The bound that the docstring names is reached and no more."""
    known = PatternSet()
    channel = "a.b.c.d.e.f.g.h"
    tokens = channel.split(".")
    for choice in itertools.product((True, False), repeat=8):
        chosen = [token if literal else "*" for token, literal in zip(tokens, choice, strict=True)]
        known.add(".".join(chosen))
        for depth in range(8):
            known.add(".".join([*chosen[:depth], ">"]))
    assert len(known.covering(channel)) == 2**8 + 2**8 - 1
