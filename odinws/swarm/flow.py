"""Where a client stands in the flow, and what a piece of it means there. No input or output.

Exact: every message is judged by its `seq` and `prev` against what the same client had before, per channel.
Cheap: a position is a value. Clients that had the same share one, and thousands that then read the same bytes
share one judgement of them. So a read costs a lookup; only the first to read something parses it.

- lost: `prev` is not what came before, and no `gap` named it. How many lie in the hole is known from those
  who got them (`Chain`); what nobody in this process got counts as one. In a format without `prev` it is the
  newest that anybody got, so what nobody got is not missed.
- disordered: a message that belongs into a hole and comes late (it is not lost then), or one that says
  another `prev` than what came before without anything missing.
- duplicated: a message that was there already.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from odinws.swarm.formats import FORMATS, Format, Gap, Heard, Message
from odinws.swarm.frames import WireError

_MAX_HOLES = 64
_CHAIN_MESSAGES = 20_000


class Hole(NamedTuple):
    """Messages of a channel that did not come: those behind `after`, up to `last`, which is one."""

    channel: str
    after: int
    last: int


class Mark(NamedTuple):
    seq: int  # all up to here was seen, named in a gap, or is in `holes`
    told: bool = False  # whether a gap said so last; then `prev` of the next may lie below
    holes: tuple[Hole, ...] = ()  # the latest


@dataclass(slots=True, eq=False)
class Position:
    """What a client had so far, and the bytes of a frame that has not come whole. Equal ones are shared."""

    marks: dict[str, Mark]
    rest: bytes = b""

    def since(self) -> dict[str, int]:
        return {channel: mark.seq for channel, mark in self.marks.items()}


START = Position({})


@dataclass(slots=True, eq=False)
class Step:
    """What some bytes mean at a position."""

    after: Position = START  # behind them
    # If there is anything but messages and gaps in them, all that is heard: then nothing is judged, and the
    # client takes it one by one.
    controls: list[Heard] | None = None
    messages: int = 0
    ages_at: list[int] = field(default_factory=list)  # when NATS took them, ms since 1970, so far as is said
    duplicated: int = 0
    disordered: int = 0
    late: int = 0
    gaps: int = 0
    holes: list[Hole] = field(default_factory=list)
    times: int = 0  # how many clients took this step since the last look


class Chain:
    """Which message came before which, from all that anybody in this process got."""

    def __init__(self) -> None:
        self._prev: dict[str, dict[int, int]] = {}

    def note(self, channel: str, seq: int, prev: int) -> None:
        self._prev.setdefault(channel, {})[seq] = prev

    def before(self, channel: str, seq: int) -> int:
        """The newest message before another, of those that anybody got; 0: none."""
        known = self._prev.get(channel, {})
        newest = next(reversed(known), 0)
        return newest if newest < seq else max((other for other in known if other < seq), default=0)

    def size(self, hole: Hole) -> int:
        """How many messages lie in a hole, at least."""
        before, at, count = self._prev.get(hole.channel, {}), hole.last, 0
        while at > hole.after:
            count += 1
            at = before.get(at, -1)
        return count

    def forget(self) -> None:
        """Drop what is so old that no new hole can reach it."""
        for before in self._prev.values():
            if len(before) > _CHAIN_MESSAGES:
                for seq in list(before)[: _CHAIN_MESSAGES // 2]:
                    del before[seq]


class Flow:
    """The positions of all clients of a process, and the steps between them since the last look.

    Args:
        spoken: the format of all of them.
    """

    def __init__(self, spoken: Format = FORMATS["native"]) -> None:
        self.chain = Chain()
        self._format = spoken
        self.steps: dict[tuple[Position, bytes], Step] = {}
        self._positions: dict[tuple[frozenset[tuple[str, Mark]], bytes], Position] = {}

    def step(self, position: Position, data: bytes) -> Step:
        """Make the step that is not among `steps` yet. Raises WireError: the server broke the rules."""
        try:
            heard, rest = self._format.read(position.rest + data if position.rest else data)
        except (LookupError, TypeError, ValueError) as error:
            raise WireError(str(error)) from error
        step = Step()
        marks = dict(position.marks)
        for each in heard:
            if not self._judge(each, marks, step):
                return Step(self._position(position.marks, rest), heard)
        step.after = self._position(marks, rest)
        self.steps[position, data] = step
        return step

    def one(self, position: Position, heard: Heard) -> Step | None:
        """The same for one of those that stood together; None: it is neither a message nor a gap."""
        step, marks = Step(), dict(position.marks)
        if not self._judge(heard, marks, step):
            return None
        step.after = self._position(marks, position.rest)
        return step

    def taken(self) -> list[Step]:
        """The steps since the last look; none is kept."""
        steps = list(self.steps.values())
        self.steps.clear()
        self._positions.clear()
        self.chain.forget()
        return steps

    def _position(self, marks: dict[str, Mark], rest: bytes) -> Position:
        key = (frozenset(marks.items()), rest)
        return self._positions.setdefault(key, Position(marks, rest))

    def _judge(self, heard: Heard, marks: dict[str, Mark], step: Step) -> bool:
        """Whether it was a message or a gap; if so, the marks and the step are as behind it."""
        if isinstance(heard, Message):
            channel, seq, prev, at_ms = heard
            step.messages += 1
            if at_ms >= 0:
                step.ages_at.append(at_ms)
            if prev < 0:
                prev = self.chain.before(channel, seq)
            self.chain.note(channel, seq, prev)
            marks[channel] = _arrived(marks.get(channel), Hole(channel, prev, seq), step)
            return True
        if isinstance(heard, Gap):
            step.gaps += 1
            _told(marks, heard.channel, heard.last, heard.reason)
            return True
        return False


def _arrived(mark: Mark | None, message: Hole, step: Step) -> Mark:
    """The mark behind a message, which covers its channel from its `prev` to its `seq`."""
    channel, prev, seq = message
    if mark is None:
        return Mark(seq)
    if seq > mark.seq:
        holes = mark.holes
        if prev > mark.seq:
            hole = Hole(channel, mark.seq, prev)
            step.holes.append(hole)
            holes = (*holes, hole)[-_MAX_HOLES:]
        elif prev < mark.seq and not mark.told:
            step.disordered += 1
        return Mark(seq, False, holes)
    for hole in mark.holes:
        if hole.after < seq <= hole.last:
            step.disordered += 1
            step.late += 1
            pieces = (Hole(channel, hole.after, prev), Hole(channel, seq, hole.last))
            others = [h for h in mark.holes if h is not hole]
            return mark._replace(holes=(*others, *(p for p in pieces if p.last > p.after)))
    step.duplicated += 1
    return mark


def _told(marks: dict[str, Mark], channel: str, last: int, reason: str) -> None:
    """A gap: what it names, up to `last`, will not come, and is not lost silently.

    Where it begins is not compared: between what came and a `from` lie numbers of other channels.
    """
    if reason == "epoch":  # the numbers begin anew
        for name in _named(marks, channel):
            del marks[name]
        return
    for name in _named(marks, channel) or ([] if _is_wildcard(channel) else [channel]):
        mark = marks.get(name)
        if mark is None or last > mark.seq:
            marks[name] = Mark(last, True, mark.holes if mark else ())


def _is_wildcard(name: str) -> bool:
    return "*" in name or ">" in name


def _named(marks: dict[str, Mark], channel: str) -> list[str]:
    """The channels that a name or a wildcard means, of those that were heard."""
    if _is_wildcard(channel):
        form = re.compile(re.escape(channel).replace(r"\*", r"[^.]+").replace(">", ".+"))
        return [name for name in marks if form.fullmatch(name)]
    return [channel] if channel in marks else []
