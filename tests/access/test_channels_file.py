"""`odinws.access.channels_file`: what a file says, every mistake in it, and that what it accepts is sound."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.access.channels import DEFAULT, DEFAULT_RULES, Channels, Rule
from odinws.access.channels_file import MAX_FILE_BYTES, MAX_RULES, read
from odinws.access.tokens import ANONYMOUS, Identity

CONF = Path(__file__).parents[2] / "conf"


def entry(**keys: Any) -> str:
    """A rule as TOML."""
    lines = [
        f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
        for key, value in keys.items()
    ]
    return "\n".join(["[[channels]]", *lines, ""])


def mistakes(text: str) -> list[str]:
    """What is wrong with a file."""
    return read(text).mistakes


def test_all_keys() -> None:
    """Each has its default."""
    file = read(
        'characters = ":"\n'
        + entry(pattern="a.*")
        + entry(
            pattern="b.*.>",
            subscribe="own",
            subject="c.$1.>",
            keep="newest",
            slow_policy="conflate",
            compression=False,
        )
    )
    assert file.mistakes == file.notes == []
    assert file.characters == ":"
    assert file.rules == [
        Rule("a.*"),
        Rule("b.*.>", "own", "c.$1.>", "newest", "conflate", compression=False),
    ]
    assert file.rules[0] == Rule("a.*", "claim", "", "all", None, compression=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected 1 to 128 [[channels]], not 0"),
        ("channels = 1", "channels is not a list of [[channels]]"),
        ("channels = [1]", "channels is not a list of [[channels]]"),
        ("x", "it is not TOML"),
        ("colour = 1\n" + entry(pattern="a"), "unknown key 'colour'"),
        ("characters = 1\n" + entry(pattern="a"), "characters is not a text"),
        ('characters = "ä"\n' + entry(pattern="a"), "characters has 'ä': expected printable ASCII"),
        ('characters = ". "\n' + entry(pattern="a"), "expected printable ASCII but for . * >"),
        (entry(), "number 1: pattern is 'None': expected at most 8 tokens of A-Z a-z 0-9 _ -"),
        (entry(pattern="a..b"), "'a..b' (number 1): pattern is 'a..b'"),
        (entry(pattern="a.>.b"), "or * and > as in NATS"),
        (entry(pattern="a*"), "pattern is 'a*'"),
        (entry(pattern="a.b.c.d.e.f.g.h.i"), "at most 8 tokens"),
        (entry(pattern="x" * 256), "pattern is"),
        (entry(pattern="a:b"), "pattern is 'a:b'"),
        (entry(pattern="a", colour=1), "unknown key 'colour'; known are compression, keep, pattern"),
        (entry(pattern="a", subscribe="all"), "subscribe is 'all': expected one of public, own, claim"),
        (entry(pattern="a", keep="some"), "keep is 'some': expected one of all, newest, none"),
        (entry(pattern="a", slow_policy="drop"), "expected one of disconnect, conflate, drop-oldest"),
        (entry(pattern="a", compression=1), "compression is '1': expected one of true, false"),
        (entry(pattern="a.b", subscribe="own"), "subscribe is own, but the pattern has no *"),
        (entry(pattern="a.*", subject=""), "subject is '': expected tokens, and $1"),
        (entry(pattern="a.*", subject="b.*"), "subject is 'b.*'"),
        (entry(pattern="a.*", subject="b.$x.$1"), "subject is 'b.$x.$1'"),
        (entry(pattern="a.*", subject="b"), "subject has no reference: expected each of $1 once"),
        (entry(pattern="a.*", subject="b.$1.$1"), "subject has $1, $1: expected each of $1 once"),
        (entry(pattern="a.*.*", subject="b.$1"), "subject has $1: expected each of $1, $2 once"),
        (entry(pattern="a", subject="b.$1"), "subject has $1: expected none, as there is no *"),
        (entry(pattern="a.>", subject="b"), "subject ends with > if, and only if, the pattern does"),
        (entry(pattern="a", subject="b.>"), "subject ends with > if, and only if, the pattern does"),
        (
            entry(pattern="a.>") + entry(pattern="a.*.b"),
            "a.*.b is never reached: a.> before it has all of it",
        ),
        (entry(pattern="a") + entry(pattern="a"), "a is never reached: a before it has all of it"),
        (
            entry(pattern="a.*") + entry(pattern="b.*", subject="a.$1"),
            "a.* and b.* both have the subject a.*: a message would be of two channels",
        ),
        (
            entry(pattern="a.*.*", subject="x.$2.$1") + entry(pattern="b.>", subject="x.>"),
            "a.*.* and b.> both have the subject x.*.*",
        ),
        ("#" * MAX_FILE_BYTES + "#", "it is longer than 256 KiB"),
        (
            "".join(entry(pattern=f"a{n}") for n in range(MAX_RULES + 1)),
            "expected 1 to 128 [[channels]], not 129",
        ),
    ],
)
def test_a_mistake(text: str, words: str) -> None:
    """It says where, what is there, and what is expected, in one line."""
    found = mistakes(text)
    assert len(found) == 1, found
    assert words in found[0]
    assert len(found[0].splitlines()) == 1


def test_every_mistake_is_told() -> None:
    """Of all rules, those without a mistake of their own included."""
    text = "x = 1\n" + entry(pattern="a", keep="x", slow_policy="y") + entry() + entry(pattern="b..c")
    assert len(mistakes(text)) == 5


def test_overlaps_are_named() -> None:
    """They are no mistake: the first pattern decides."""
    file = read(entry(pattern="a.secret") + entry(pattern="a.*", subscribe="public") + entry(pattern="b"))
    assert file.mistakes == []
    assert file.notes == ["of a.* some channels are decided on before it: by a.secret"]


def test_the_example_is_what_there_is_without_a_file() -> None:
    """The same rules; only names may be longer."""
    file = read((CONF / "channels.toml").read_text())
    assert file.mistakes == file.notes == []
    assert tuple(file.rules) == DEFAULT_RULES
    whole = (CONF / "channels.toml").read_text().replace("# [[", "[[").replace("# characters", "characters")
    keys = ("pattern", "subscribe", "subject", "keep", "slow_policy", "compression")
    for key in keys:
        whole = whole.replace(f"# {key} = ", f"{key} = ")
    commented = read(whole)
    assert commented.mistakes == []
    assert len(commented.rules) == 4


def test_the_platform_s() -> None:
    """Its kinds of events by token, and the older channels."""
    file = read((CONF / "channels-odin.toml").read_text())
    assert file.mistakes == []
    channels = Channels("odin.", "", file.rules, file.characters)
    for kind in (
        "trade",
        "liquidity",
        "metadata",
        "social",
        "favorites",
        "creation",
        "analytics",
        "balances",
    ):
        for name in (f"BTC.{kind}", f"*.{kind}"):
            assert channels.refusal(ANONYMOUS, name) is None
        assert channels.subjects_of(f"BTC.{kind}") == (f"odin.token.BTC.{kind}",)
        assert channels.channel_of(f"odin.token.BTC.{kind}") == f"BTC.{kind}"
    for name in ("token.BTC", "global", "user.42", "token.*"):
        assert channels.refusal(Identity("42", None, None), name) is None
        assert channels.subjects_of(name)[-1] == "odin." + name
    assert channels.refusal(ANONYMOUS, "user.42") is not None
    assert channels.refusal(ANONYMOUS, "BTC.other") is not None


# -- what a file accepts is sound ------------------------------------------------------------------

TOKENS = ("a", "b", "trade")
NAMES = [".".join(t) for depth in (1, 2, 3) for t in itertools.product(TOKENS, repeat=depth)]
heads = st.lists(st.sampled_from(("a", "b", "trade", "*")), min_size=1, max_size=3)
patterns = heads.map(".".join) | heads.map(lambda tokens: ".".join([*tokens[:2], ">"]))


@st.composite
def rules(draw: st.DrawFn) -> str:
    """A rule with its own subject, or without."""
    pattern = draw(patterns)
    keys: dict[str, Any] = {"pattern": pattern, "subscribe": draw(st.sampled_from(["public", "claim"]))}
    if draw(st.booleans()):
        ones = [f"${number}" for number in range(1, pattern.split(".").count("*") + 1)]
        tokens = draw(st.permutations([*ones, *draw(st.lists(st.sampled_from(TOKENS), max_size=2))]))
        rest = [">"] if pattern.endswith(">") else []
        keys["subject"] = ".".join([*tokens, *rest]) or "a"
    return entry(**keys)


@given(st.lists(rules(), min_size=1, max_size=4))
def test_a_subject_is_of_one_channel_and_a_channel_of_one_subject(entries: list[str]) -> None:
    """Where nothing was found to be wrong, by trying all names of a small world."""
    file = read("".join(entries))
    if file.mistakes:
        return
    channels = Channels("p.", "", file.rules, file.characters)
    by_subject: dict[str, str] = {}
    for name in NAMES:
        if not channels.valid(name):
            continue
        (subject,) = channels.subjects_of(name)
        assert by_subject.setdefault(subject, name) == name, (
            f"{subject} is of {by_subject[subject]} and {name}"
        )
        assert channels.channel_of(subject) == name
    for name in NAMES:
        channel = channels.channel_of("p." + name)
        assert channel is None or channels.subjects_of(channel) == ("p." + name,)
    # A client's wildcard gets from the stream what it gets live, and may be had if all of that may be.
    for wildcard in ("a.*", "*.trade", ">", "a.>", "*.*", "b.*.>"):
        if not channels.valid(wildcard):
            continue
        theirs = [name for name in NAMES if channels.valid(name) and _has(wildcard, name)]
        subjects = channels.subjects_of(wildcard)
        for name in theirs:
            assert any(_has(subject, channels.subjects_of(name)[0]) for subject in subjects)
        if channels.allows(ANONYMOUS, wildcard):
            assert all(channels.allows(ANONYMOUS, name) for name in theirs)


def _has(pattern: str, name: str) -> bool:
    """NATS' meaning, token by token."""
    for wanted, token in itertools.zip_longest(pattern.split("."), name.split(".")):
        if wanted == ">":
            return token is not None
        if token is None or wanted not in ("*", token):
            return False
    return True


@given(st.lists(st.sampled_from(("token.A", "user.42", "user.*", "global", "token.*")), max_size=4))
def test_claims_are_as_without_a_file(claim: list[str]) -> None:
    """The example file grants the same to each."""
    file = read((CONF / "channels.toml").read_text())
    channels = Channels("odin.", "", file.rules, file.characters)
    for subject in ("42", "43"):
        one = Identity(subject, None, DEFAULT.permissions_of(subject, claim))
        other = Identity(subject, None, channels.permissions_of(subject, claim))
        for name in ("token.A", "token.B", "user.42", "user.43", "user.*", "global", "token.*"):
            assert (DEFAULT.refusal(one, name) is None) is (channels.refusal(other, name) is None)
