"""What a target is, and what several of them look for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

MAX_BYTES = 4096  # of an input: what is wrong with longer ones is wrong with short ones, under smaller limits
_WINDOW = 12  # characters in a row that are no coincidence


class Target(NamedTuple):
    """One reader under test.

    Attributes:
        check: takes any bytes, at most `MAX_BYTES`. Returns in a few words what became of them: another
            word is another way through the code. Whatever it raises is a finding.
        read: what a server does with such an input, and nothing else: its cost is bounded, see `costs`; None:
            such inputs come from whoever runs it.
    """

    name: str
    check: Callable[[bytes], str]
    read: Callable[[bytes], int] | None = None


def lines(data: bytes, count: int, encoding: str = "latin-1") -> list[str]:
    """The first lines of an input as text, "" where there are fewer; the last one is all that is left."""
    found = [line.decode(encoding, "replace") for line in data.split(b"\n", count - 1)]
    return found + [""] * (count - len(found))


def assert_one_line(text: str) -> None:
    """What goes to a log or a terminal is one line, and can be written."""
    assert len(text.splitlines()) == 1, f"not one line: {text!r}"
    text.encode()


def assert_brief(text: str, most: int = 100) -> None:
    """What a client is told is one line, short, and not empty."""
    assert_one_line(text)
    assert len(text) <= most, text


def assert_nothing_of(secret: str, text: str, own: str = "") -> None:
    """No part of a secret is repeated, but for words that are our own: an input may be made of these."""
    for at in range(len(text) - _WINDOW + 1):
        part = text[at : at + _WINDOW]
        assert part in own or part not in secret, f"{text!r} has a part of {secret!r}"
