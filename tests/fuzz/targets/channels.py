"""Rules of channels. An input is a name, a newline, and the text of a file.

The file is refused with a line for each mistake; or any channel has one subject, which is its own, and a
wildcard is allowed only where its channels are.
"""

from __future__ import annotations

from odinws.access.channels import DEFAULT, Channels
from odinws.access.channels_file import read as read_file
from odinws.access.patterns import MAX_BYTES, MAX_TOKENS, is_wildcard
from odinws.access.tokens import ANONYMOUS, Identity
from tests.fuzz.targets.base import assert_one_line

_OWNER = Identity("42", None, None)


def check(data: bytes) -> str:
    """Read the file, and ask for the name, and for what the patterns make likely."""
    name, _, text = data.decode("utf-8", "replace").partition("\n")
    _check_name(DEFAULT, name)
    file = read_file(text)
    for line in (*file.mistakes, *file.notes):
        assert_one_line(line)
    if file.mistakes:
        return " ".join(file.mistakes[0].split()[-4:])
    channels = Channels("p.", "", file.rules, file.characters)
    names = {name, *(rule.pattern for rule in file.rules)}
    names |= {n.replace("*", "42").replace(">", "x.y") for n in names}
    names |= {n.replace("*", "trade", 1) for n in names}
    for one in names:
        _check_name(channels, one)
    kinds = {(rule.subscribe, rule.keep, bool(rule.subject)) for rule in file.rules}
    return f"{len(file.rules)} {len(kinds)} {bool(file.notes)} {channels.valid(name)}"


def read(data: bytes) -> int:
    """What a client may send as a name."""
    name = data[:4096].decode("latin-1")
    for identity in (ANONYMOUS, _OWNER):
        DEFAULT.refusal(identity, name)
        _wide.refusal(identity, name)
    return 0


_wide = Channels(
    rules=read_file(
        "".join(f'[[channels]]\npattern = "*.k{n}.>"\nsubscribe = "own"\n' for n in range(100))
    ).rules
)


def _check_name(channels: Channels, name: str) -> None:
    refusals = [channels.refusal(identity, name) for identity in (ANONYMOUS, _OWNER)]
    for refusal in refusals:
        if refusal is not None:
            assert_one_line(refusal.message)
            assert len(refusal.message) <= 300
    if not channels.valid(name):
        assert all(refusal is not None and refusal.code == "INVALID_CHANNEL" for refusal in refusals)
        return
    assert len(name.encode()) <= MAX_BYTES
    assert len(name.split(".")) <= MAX_TOKENS
    assert name.isascii()
    assert name.isprintable()
    subjects = channels.subjects_of(name)
    assert subjects
    if is_wildcard(name):
        if refusals[0] is None:
            some = name.replace("*", "42").replace(">", "x")
            assert not channels.valid(some) or channels.refusal(ANONYMOUS, some) is None
        return
    assert refusals[0] is not None or refusals[1] is None, "who has a token may less than who has none"
    assert len(subjects) == 1
    assert channels.channel_of(subjects[0]) == name
