"""One client connection that checks exactly what it reads. Bytes in, bytes and findings out; no sockets."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

from odinws.swarm import frames
from odinws.swarm.engine import Connection
from odinws.swarm.frames import Answer
from tests import wire


class State(Enum):
    """Where a connection is in its life."""

    CONNECTING = "connecting"
    OPEN = "open"
    LEAVING = "leaving"  # one side has said goodbye
    ENDED = "ended"


class Stretch:
    """One channel of one connection, from its subscription to its end, within one epoch.

    Times are seconds since 1970, the clock of a message's `ts`; 0: not yet.

    Attributes:
        acked_at: when the acknowledgement was read: what NATS takes after that must come.
        asked_out_at: when its end was asked for: unsubscribe, disconnect, or the server's close frame.
        first: `seq` of the first message; 0: none came.
        last: `seq` of the last one.
        count: how many came.
        gaps: what the server said it did not deliver, from and to.
    """

    __slots__ = ("acked_at", "asked_out_at", "channel", "count", "epoch", "first", "gaps", "last")

    def __init__(self, channel: str, epoch: str) -> None:
        self.channel = channel
        self.epoch = epoch
        self.acked_at = self.asked_out_at = 0.0
        self.first = self.last = self.count = 0
        self.gaps: list[tuple[int, int]] = []

    def __repr__(self) -> str:
        seen = {name: getattr(self, name) for name in self.__slots__}
        return f"Stretch({seen})"


class Pending(NamedTuple):
    """A command that is not acknowledged yet."""

    kind: str
    channels: Sequence[str]
    sent_at: float


class Life(Connection):
    """One connection, from connecting to its end.

    Checked for every channel: `prev` is the `seq` before, nothing comes twice or out of order, and
    nothing comes without a subscription, not even one message behind the acknowledgement of its end.

    Attributes:
        index: the test's number for it.
        refused: the HTTP status, if it was not 101; `http` is what came with it.
        close_code: of the server's close frame; 0: none came, 1005: it had none.
        replies: all messages that are neither data nor an acknowledgement without rejections.
        problems: what was wrong.
        payloads: whole data messages, if they are kept.
        paid: how many commands were answered since the owner last set it to 0.
    """

    def __init__(self, index: int, *, keep: bool = False) -> None:
        super().__init__()
        self.index = index
        self.state = State.CONNECTING
        self.epoch = self.client_id = ""
        self.refused = self.close_code = 0
        self.http = b""
        self.stretches: list[Stretch] = []
        self.replies: list[Any] = []
        self.problems: list[str] = []
        self.payloads: list[bytes] | None = [] if keep else None
        self.messages = 0
        self.owed = 1  # the welcome
        self.paid = 0
        self._rest = b""
        self._current: dict[bytes, Stretch] = {}
        self._pending: deque[Pending] = deque()

    def say(self, kind: str, channels: Sequence[str], now: float) -> None:
        """Put a `subscribe` or `unsubscribe` into `out`."""
        self.owed += 1
        self._pending.append(Pending(kind, channels, now))
        self.out += wire.command(kind, channels=list(channels))

    def repeat(self) -> None:
        """Put what is not answered yet into `out` once more, behind the request of another attempt."""
        for kind, channels, _ in self._pending:
            self.out += wire.command(kind, channels=list(channels))

    def leave(self, now: float) -> None:
        """From now on what comes may stop anywhere."""
        for stretch in self._current.values():
            stretch.asked_out_at = stretch.asked_out_at or now

    def end(self, now: float) -> None:
        """The socket is gone."""
        self.leave(now)
        self.state = State.ENDED
        self.paid += self.owed
        self.owed = 0
        self._current.clear()

    def read(self, data: bytes, now: float) -> float:
        """Take bytes of the server.

        Returns:
            How old the first data message among them is, in seconds since NATS took it, to 1 ms; -1: none.
        """
        found, self._rest = frames.split(self._rest + data if self._rest else data)
        oldest_ms = 0
        for first, payload in found:
            message = frames.data_of(payload) if first == frames.TEXT else None
            if message is None:
                self._other(first, payload, now)
                continue
            seq, prev = int(message[2]), int(message[3])
            stretch = self._current.get(message[1]) or self._early(message[1], seq)
            if stretch.count == 0:
                stretch.first = seq
                if prev >= seq:
                    self._broken(stretch, seq, prev)
            elif prev != stretch.last:
                self._broken(stretch, seq, prev)
            stretch.last = seq
            stretch.count += 1
            self.messages += 1
            oldest_ms = oldest_ms or int(message[4])
            if self.payloads is not None:
                self.payloads.append(payload)
        return now - oldest_ms / 1000 if oldest_ms else -1.0

    def opened(self, now: float) -> None:
        """The server has accepted the upgrade."""
        self.state = State.OPEN

    def refuse(self, answer: Answer, now: float) -> None:
        """The server has refused the upgrade."""
        self.refused, self.http = answer.status, answer.head + answer.behind

    def _early(self, name: bytes, seq: int) -> Stretch:
        """A message before its acknowledgement, which may be, or without a subscription, which may not."""
        channel = name.decode()
        if not any(kind == "subscribe" and channel in channels for kind, channels, _ in self._pending):
            self.problems.append(f"{channel} {seq} came without a subscription")
        return self._begin(channel)

    def _begin(self, channel: str) -> Stretch:
        stretch = Stretch(channel, self.epoch)
        self._current[channel.encode()] = stretch
        self.stretches.append(stretch)
        return stretch

    def _broken(self, stretch: Stretch, seq: int, prev: int) -> None:
        if stretch.gaps and stretch.last < stretch.gaps[-1][1] < seq:
            return  # the server said so
        what = "comes twice or late" if seq <= stretch.last else "follows a hole"
        self.problems.append(f"{stretch.channel} {seq} (prev {prev}) {what} behind {stretch.last}")

    def _other(self, head: int, payload: bytes, now: float) -> None:
        if head == 0x80 | wire.PING:
            self.out += wire.frame(wire.PONG, payload)
        elif head == 0x80 | wire.CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") or 1005
            self.leave(now)
            if self.state is State.OPEN:
                self.state = State.LEAVING
                self.out += wire.frame(wire.CLOSE, payload[:2])
        elif head == 0x81:
            self._message(json.loads(payload), now)
        else:
            self.problems.append(f"unexpected frame {head:#x} {payload[:60]!r}")

    def _message(self, message: Any, now: float) -> None:
        kind = message["type"]
        expected = self._pending[0].kind if self._pending else None
        if kind == "welcome":
            self._welcomed(message, now)
        elif kind == "subscription_ack" and expected == "subscribe":
            self._pending.popleft()
            self._pay()
            for channel in message["subscribed"]:
                stretch = self._current.get(channel.encode()) or self._begin(channel)
                stretch.acked_at = stretch.acked_at or now
            if message["rejected"]:
                self.replies.append(message)
        elif kind == "unsubscription_ack" and expected == "unsubscribe":
            asked = self._pending.popleft()
            self._pay()
            for channel in asked.channels:
                if gone := self._current.pop(channel.encode(), None):
                    gone.asked_out_at = asked.sent_at
        else:
            self.replies.append(message)
            if kind == "error" and self._pending:  # answers come in the order of commands
                self._pending.popleft()
                self._pay()
            elif kind == "gap" and (told := self._current.get(message["channel"].encode())) is not None:
                told.gaps.append((message["from"], message["to"]))

    def _welcomed(self, message: Any, now: float) -> None:
        first = not self.epoch
        self.epoch = message["epoch"]
        if first:
            self.client_id = message["client_id"]
            self._pay()
            return
        self.replies.append(message)
        for stretch in list(self._current.values()):  # seq starts anew
            stretch.asked_out_at = now
            self._begin(stretch.channel).acked_at = now

    def _pay(self) -> None:
        self.owed -= 1
        self.paid += 1
