"""The check itself, which must not call a loss none."""

from __future__ import annotations

import re

import msgspec
import pytest

from tests.sdks.records import Gap, Heard, Lost, Record, Subscribed, Wrong, decode
from tests.sdks.tracks import Client

SEQS = {"token.A": [1, 3, 5, 7, 9], "token.B": [2, 4, 6, 8, 10]}


def begun(via: str = "token.A", at: int = 0) -> Subscribed:
    """A first subscription."""
    return Subscribed(0, via, "e", at, False, False)


def again(at: int, *, recovered: bool, epoch: str = "e", via: str = "token.A") -> Subscribed:
    """A subscription that has asked for what it missed."""
    return Subscribed(0, via, epoch, at, True, recovered)


def heard(*seqs: int, via: str = "token.A") -> list[Record]:
    """Messages, each of its channel."""
    return [Heard(0, via, "token.A" if seq % 2 else "token.B", seq) for seq in seqs]


def wrong(*records: Record, via: str = "token.A", one_order: bool = False) -> list[str]:
    """What the check finds wrong."""
    client = Client([via], one_order=one_order)
    for record in records:
        client.take(record)
    return list(client.wrong(SEQS))


@pytest.mark.parametrize(
    "records",
    [
        [begun(), *heard(1, 3, 5, 7, 9)],
        [begun(at=4), *heard(5, 7, 9)],
        [begun(at=9)],
        [begun(), *heard(1, 3), Lost(0, 1, "cut"), again(3, recovered=True), *heard(5, 7, 9)],
        [begun(), *heard(1), again(6, recovered=False), *heard(7, 9)],
        [begun(), *heard(1), again(6, recovered=False), *heard(5, 7, 9)],  # the newest follows
        [begun(), *heard(1), again(9, recovered=False)],
        [begun(), *heard(1), Gap(0, "token.A", 2, 6, "slow"), *heard(7, 9)],
        [begun(), *heard(1), again(6, recovered=False, epoch="f"), *heard(7, 9)],
        [begun(), *heard(1), again(1, recovered=True, epoch="none"), *heard(3, 5, 7, 9)],
    ],
)
def test_nothing_is_wrong(records: list[Record]) -> None:
    """All that is due was heard, or the application knows."""
    assert wrong(*records) == []


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([], "never subscribed"),
        ([begun(), *heard(1, 3, 7, 9)], r"neither heard nor told: \[5\] of 1"),
        ([begun(), *heard(1, 3, 5, 7)], r"neither heard nor told: \[9\]"),
        ([begun(), *heard(3, 5, 7, 9)], r"neither heard nor told: \[1\]"),
        ([begun(), *heard(1, 3), again(3, recovered=True), *heard(7, 9)], r"\[5\]"),
        ([begun(), *heard(1, 3), again(4, recovered=False), *heard(7, 9)], r"\[5\]"),
        ([begun(), *heard(1), Gap(0, "token.B", 2, 6, "slow"), *heard(7, 9)], r"\[3, 5\] of 2"),
        ([begun(), *heard(1, 3, 3, 5, 7, 9)], "3 came after 3"),
        ([begun(), *heard(1, 5, 3, 7, 9)], "3 came after 5"),
        ([begun(at=4), *heard(3, 5, 7, 9)], r"not due: \[3\]"),
        ([begun(), *heard(1, 3, 5, 7, 9, 11)], r"not due: \[11\]"),
        ([*heard(1), begun(), *heard(3, 5, 7, 9)], "1 came before the subscription"),
        ([begun(), *heard(1, 3), begun(at=6), *heard(7, 9)], "subscribed anew at 6"),
        ([begun(), *heard(1), again(1, recovered=True, epoch="f"), *heard(3, 5, 7, 9)], "from epoch e in f"),
        ([begun(), *heard(1, 3, 5, 7, 9), Wrong(0, "ended: 3500")], "ended: 3500"),
    ],
)
def test_something_is_wrong(records: list[Record], why: str) -> None:
    """What is missing, twice, out of order or untold is named."""
    assert re.search(why, "\n".join(wrong(*records)))


def test_wildcards() -> None:
    """All channels in the order of the stream; a gap excuses its own channel alone."""
    every = "token.*"
    assert wrong(begun(every), *heard(*range(1, 11), via=every), via=every) == []
    assert wrong(begun(every), *heard(1, 2, 4, 3, *range(5, 11), via=every), via=every) != []
    some = heard(1, 2, 5, 6, 7, 8, 9, 10, via=every)
    assert wrong(begun(every), Gap(0, "token.A", 3, 4, "slow"), *some, via=every) != []
    assert wrong(begun(every), Gap(0, every, 3, 4, "slow"), *some, via=every) == []


def test_one_order() -> None:
    """Of Server-Sent Events, whose one id stands for all channels."""
    records = [Subscribed(0, via, "e", 0, False, False) for via in SEQS]
    messages = [record for seq in (1, 2, 4, 3, *range(5, 11)) for record in heard(seq, via="")]
    for one_order in (False, True):
        client = Client(SEQS, one_order=one_order)
        for record in (*records, *messages):
            client.take(record)
        assert bool(list(client.wrong(SEQS))) is one_order


def test_lines() -> None:
    """Agents write arrays; anything else is refused."""
    assert decode('["message", 3, "token.*", "token.A", 5]') == Heard(3, "token.*", "token.A", 5)
    assert decode('["subscribed", 0, "token.A", "e", 5, true, false]') == again(5, recovered=False)
    with pytest.raises(msgspec.ValidationError):
        decode('["message", 3, "token.A", "token.A", null]')
