"""Does everybody get what is due to them? Spot checks of real connections, for what nothing else would see.

Every other count is of what the server did. A message that the hub never offers to a subscriber, by a defect
of the registry or of the hub, is in none of them, and no `gap` tells of it. So every 30 s some connections,
drawn at random, are watched for up to five seconds: what is handed to them is held against what the ring has
of their channels. All others pay nothing for it.

What the kernel or the network does with a message is not looked at; nor is what an outbox gives up, which it
counts and tells.
"""

from __future__ import annotations

import random
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import gevent
import structlog

from odinws.access.patterns import is_wildcard
from odinws.connections.clients import Clients
from odinws.connections.connection import Connection, State
from odinws.fanout.hub import Hub
from odinws.fanout.wildcards import has
from odinws.messages.wire_format import Bundle, Entry
from odinws.shared.worker_stats import WorkerStats

_CONNECTIONS = 32
_WATCH_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_ENOUGH_MESSAGES = 1000  # of the stream: far less than the ring has

log = structlog.get_logger("odinws.monitoring.audit")


class _Subject(NamedTuple):
    """A connection at the beginning of its watch."""

    conn: Connection
    channels: frozenset[str]
    allowance: float  # changes with each command
    notes: list[Entry]  # what was handed to it


class Audit:
    """Watches some connections of one worker.

    Args:
        clients: who there is.
        hub: what was due.
        stats: where it counts.
    """

    def __init__(self, clients: Clients, hub: Hub, stats: WorkerStats) -> None:
        self._clients = clients
        self._hub = hub
        self._stats = stats

    def run(self) -> int:
        """Watch once; returns how many messages were due, not given and not told. Takes some seconds."""
        subjects, start = self._hub.run_between_passes(self._begin)
        until = time.monotonic() + _WATCH_SECONDS
        while time.monotonic() < until and self._hub.ring.last - start < _ENOUGH_MESSAGES and subjects:
            gevent.sleep(_LOOK_SECONDS)
        return self._hub.run_between_passes(lambda: self._end(subjects, start))

    def _begin(self) -> tuple[list[_Subject], int]:
        """Who is watched, and behind which sequence."""
        candidates = [
            conn
            for conn in self._clients.members()
            if conn.state is State.OPEN and conn.channels and not conn.commands
        ]
        chosen = random.sample(candidates, min(_CONNECTIONS, len(candidates)))
        return [self._watch(conn) for conn in chosen], self._hub.ring.last

    @staticmethod
    def _watch(conn: Connection) -> _Subject:
        subject = _Subject(conn, frozenset(conn.channels), conn.allowance, [])

        def note(bundles: Sequence[Bundle]) -> None:
            subject.notes.extend(entry for bundle in bundles for entry in bundle.entries)

        conn.observe(note)
        return subject

    def _end(self, subjects: list[_Subject], start: int) -> int:
        """Compare. Who is leaving, or has said anything meanwhile, may have had other channels."""
        ring = self._hub.ring
        messages = ring.all_after(start)
        due = [(message.channel, message.seq) for message in messages or ()]
        checked = missing = 0
        for conn, channels, allowance, notes in subjects:
            conn.observe(None)
            if conn.state is not State.OPEN or conn.allowance != allowance or conn.commands:
                continue
            expected = _expected(channels, due, once=conn.wire_format.delivers_once)
            absent = _absent(expected, notes, gaps_end=conn.wire_format.gaps_end)
            checked += len(expected)
            missing += len(absent)
            if absent:
                log.error("messages were not delivered", client=conn.id, count=len(absent), first=absent[0])
        self._stats.totals.audited += checked
        self._stats.totals.audit_missing += missing
        return missing


def _expected(
    channels: Collection[str], due: Iterable[tuple[str, int]], *, once: bool
) -> list[tuple[str, int]]:
    """What of (channel, seq) some subscriptions have: once, or by each of them, with its name."""
    wildcards = [name for name in channels if is_wildcard(name)]
    if once:
        return [
            found
            for found in due
            if found[0] in channels or any(has(wildcard, found[0]) for wildcard in wildcards)
        ]
    return [
        (name, seq)
        for channel, seq in due
        for name in (*([channel] if channel in channels else ()), *(w for w in wildcards if has(w, channel)))
    ]


def _absent(
    expected: Iterable[tuple[str, int]], notes: Iterable[Entry], *, gaps_end: bool = False
) -> list[tuple[str, int]]:
    """What of (channel, seq) is in no message and in no gap.

    Args:
        gaps_end: nothing is due after a gap.
    """
    told: dict[str, set[int]] = defaultdict(set)
    gaps: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for entry in notes:
        if entry.channel is not None and entry.messages:
            told[entry.channel].add(entry.first)
        elif entry.channel is not None:
            gaps[entry.channel].append((entry.first, sys.maxsize if gaps_end else entry.last))
    return [
        (channel, seq)
        for channel, seq in expected
        if seq not in told[channel] and not any(first <= seq <= last for first, last in gaps[channel])
    ]
