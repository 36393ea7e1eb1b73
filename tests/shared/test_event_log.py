"""`odinws.shared.recent`: the latest events of the whole server, also of processes that were killed."""

from __future__ import annotations

import os

import pytest

from odinws.shared.recent import EVENTS, KINDS, EventLog
from tests.fakes import forked, join


def test_the_newest_comes_first() -> None:
    """With when, who, what and words."""
    event_log = EventLog()
    assert event_log.latest() == []
    event_log.add("feed_up", "the feed is up")
    event_log.add("feed_lost", "the feed is down")
    latest = event_log.latest()
    assert [(event["worker"], event["kind"], event["text"]) for event in latest] == [
        (0, "feed_lost", "the feed is down"),
        (0, "feed_up", "the feed is up"),
    ]
    assert set(latest[0]) == {"at", "worker", "kind", "text"}
    assert latest[0]["at"] >= latest[1]["at"]
    assert event_log.latest(1) == latest[:1]


def test_it_is_bounded() -> None:
    """It keeps the latest, and cuts words that are too long, whatever their letters."""
    event_log = EventLog()
    for number in range(EVENTS + 10):
        event_log.add("slow_closed", f'{number:03} "\\\x00\U0001f600' + "\U0001f600\x01" * 300)
    latest = event_log.latest()
    assert len(latest) == EVENTS
    assert [event["text"][:3] for event in latest[:2]] == [f"{EVENTS + 9}", f"{EVENTS + 8}"]
    assert {len(event["text"]) for event in latest} == {96}


def test_unknown_kinds_are_refused() -> None:
    """A dashboard knows them all."""
    with pytest.raises(ValueError, match="meteor"):
        EventLog().add("meteor", "")
    assert len(set(KINDS)) == len(KINDS)


def test_processes_write_one_journal() -> None:
    """Each event of each process is there, whole, under its process id."""
    event_log = EventLog()

    def write() -> None:
        for _ in range(20):
            event_log.add("feed_up", "up")

    children = [forked(write) for _ in range(3)]
    join(*children)
    events = event_log.latest()
    assert sorted(event["worker"] for event in events) == sorted(children * 20)
    assert os.getpid() not in children


def test_half_an_event_is_passed_over() -> None:
    """A writer that was killed in the middle costs its own event, no other."""
    event_log = EventLog()
    event_log.add("feed_up", "one")
    event_log.add("feed_up", "two")
    at = event_log._ring._place(0)
    event_log._ring._map[at + 10 : at + 12] = b"\xff\xff"
    assert [event["text"] for event in event_log.latest()] == ["two"]
