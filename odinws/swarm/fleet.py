"""The clients of a process: they come, leave, come back, read slowly, and are cut off, each in its time.

Nothing here waits. `serve` runs in gevent's loop when sockets have something, for so many at a time that
Locust stays alive; `tick` is called every few milliseconds.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from odinws.client.backoff import STEADY_SECONDS, Backoff, RefusedError, Wait
from odinws.swarm.engine import Connection, Engine, Phase
from odinws.swarm.flow import START, Flow, Position
from odinws.swarm.formats import (
    FORMATS,
    Answer,
    Close,
    Dropped,
    Failure,
    Format,
    Gap,
    Heard,
    Subscribed,
    Welcome,
)
from odinws.swarm.frames import Answer as HttpAnswer
from odinws.swarm.tally import Tally

_DIALS = 200  # in one tick at most
_SAMPLE = 8  # one read in so many is timed, all its messages
_SLOW_BUFFER_BYTES = 4096
_LOST = (1006, "")  # the close of a connection that ended without a close frame


def channels_of(names: Sequence[str], mode: str, seed: int, number: int) -> tuple[str, ...]:
    """What a client subscribes to: all of the names, a single one, or three of them at random."""
    if mode == "all":
        return tuple(names)
    count = 1 if mode == "single" else min(3, len(names))
    return tuple(random.Random(f"{seed}:{number}").sample(names, count))


@dataclass(slots=True, eq=False, kw_only=True)
class Client(Connection):
    """One client over all its connections: what it wants, and where it stands."""

    channels: tuple[str, ...]
    backoff: Backoff | None = None
    slow: float = 0.0  # it reads only so many bytes a second; 0: at once
    allowed: float = 0.0  # of these, how many it may read now
    is_probe: bool = False  # it leaves as soon as it is subscribed
    position: Position = START
    epoch: str = ""
    asked: float = 0.0  # when it asked for its channels; monotonic
    awaited: int = 0  # answers to that, which have not come
    cut_at: float = 0.0  # when it lost its connection; 0: it has not, or is back
    close: tuple[int, str] = _LOST  # what the server said at the end
    left: bool = False  # it has gone for good
    returns: bool = False  # it comes back at once, when its close frame is answered


class Fleet(Engine[Client]):
    """The clients of a process.

    Args:
        options: Locust's, see `options`.
        backoff: makes what says when a client comes back; None: who is cut off stays away.
        resume: whether who comes back asks for what it missed.

    Attributes:
        churn: clients per second that leave and come back; probes: connections per second that only try.
        closing: nobody connects any more.
    """

    def __init__(
        self, url: str, options: Any, backoff: Callable[[], Backoff] | None, *, resume: bool
    ) -> None:
        super().__init__(url, compression=options.odin_compression, timeout=options.odin_timeout)
        self._options = options
        self._spoken = FORMATS[options.odin_format]
        self._backoff = backoff
        self._resume = resume
        self.tally = Tally()
        self.churn = self.probes = 0.0
        self.closing = False
        self._flow = Flow(self._spoken)
        self._open: dict[Client, None] = {}
        self._slow: dict[Client, None] = {}
        self._to_dial: deque[Client] = deque()
        self._owed_churn = self._owed_probes = 0.0
        self._draw = random.Random(f"{options.odin_seed}:fleet")
        self._last_tick = time.monotonic()
        self._reads = 0

    @property
    def connected(self) -> int:
        return len(self._open)

    def add(self, number: int) -> Client:
        """A new client connects as soon as there is a turn."""
        slow = self._options.odin_slow
        is_slow = int((number + 1) * slow) > int(number * slow)
        backoff = self._backoff() if self._backoff else None
        bytes_per_second = self._options.odin_slow_bytes if is_slow else 0.0
        client = Client(channels=self._channels(number), backoff=backoff, slow=bytes_per_second)
        self._to_dial.append(client)
        return client

    def _channels(self, number: int) -> tuple[str, ...]:
        return channels_of(
            self._options.odin_channels, self._options.odin_mode, self._options.odin_seed, number
        )

    def dismiss(self, client: Client, *, returns: bool = False) -> None:
        """A client leaves by the closing handshake; it is gone for good, or comes back anew."""
        client.returns, client.left = returns, not returns
        self._slow.pop(client, None)
        self._open.pop(client, None)
        self.unpause(client)  # a slow one reads the rest at once
        if client.phase < Phase.GREETING:
            self._drop(client)
        else:
            self.leave(client)

    def storm(self, share: float) -> int:
        """Cut that share of all connections without a word; how many that were."""
        hit = [client for client in self._open if self._draw.random() < share]
        for client in hit:
            self.leave(client, "reset")
        return len(hit)

    def finish(self) -> None:
        """All leave; from now on nobody comes. They are gone when `pending` is 0."""
        self.closing = True
        self._to_dial.clear()
        for client in list(self._by_fd.values()):
            self.dismiss(client)

    def look(self, now: float) -> None:
        """Count what was read since the last look; once a second or so."""
        for step in self._flow.taken():
            if step.times:
                self.tally.take(step, step.times, now)
        self.tally.settle(self._flow.chain, now)

    def tick(self, now: float) -> None:
        self.call_due()
        passed, self._last_tick = now - self._last_tick, now
        if not self.closing:
            self._owed_probes += self.probes * passed
            while self._owed_probes >= 1:
                self._owed_probes -= 1
                channels = self._channels(self._draw.randrange(1 << 30))
                self._to_dial.append(Client(channels=channels, is_probe=True))
            self._owed_churn = min(self._owed_churn + self.churn * passed, len(self._open) + 1.0)
            while self._owed_churn >= 1 and self._open:
                self._owed_churn -= 1
                # The one that is open longest, so that all take their turn.
                self.dismiss(next(iter(self._open)), returns=True)
        for _ in range(min(_DIALS, len(self._to_dial))):
            self._connect(self._to_dial.popleft())
        for client in list(self._slow):
            client.allowed = min(client.allowed + client.slow * passed, client.slow)
            if client.allowed >= 1:
                client.allowed -= self.receive(client, int(client.allowed))

    # -- a connection --------------------------------------------------------------------------------

    def _connect(self, client: Client) -> None:
        if self.closing or client.left or client.phase is not Phase.NONE:
            return
        client.close = _LOST
        self.tally.counts["attempts"] += 1
        self.dial(client, _SLOW_BUFFER_BYTES if client.slow else 0)

    def _format(self, conn: Client) -> Format:
        return self._spoken

    def _request(self, conn: Client) -> bytes:
        since = conn.position.since() if self._resume else {}
        last_id = f"{conn.epoch}:{max(since.values())}" if since else ""
        return self._spoken.request(
            self._host, self._base, conn.channels, last_id, compression=self._compression
        )

    def _opened(self, client: Client) -> None:
        client.position = Position(client.position.marks) if self._resume else START
        self.send(client, self._spoken.hello())

    def _greeted(self, client: Client, epoch: str) -> None:
        if client.phase is not Phase.GREETING:  # the numbers begin anew
            client.position = Position({}, client.position.rest)
            client.epoch = epoch
            return
        client.phase, client.asked = Phase.SUBSCRIBING, time.monotonic()
        client.awaited = len(client.channels) if self._spoken.answers_each else 1
        self.tally.times["connect"].add((client.asked - client.began) * 1000)
        self.send(client, self._spoken.subscribe(client.channels, client.position.since(), client.epoch))
        client.epoch = epoch or client.epoch

    def _dropped(self, client: Client, channel: str) -> None:
        """The server has ended a subscription, and takes it up again where it was."""
        since, number = client.position.since(), client.channels.index(channel)
        self.send(client, self._spoken.subscribe([channel], since, client.epoch, number))

    def _subscribed(self, client: Client, answer: Subscribed) -> None:
        client.epoch = answer.epoch or client.epoch
        if answer.lost_to >= 0:
            self._judged(client, Gap(client.channels[answer.number], answer.lost_to, "expired"))
        if client.phase is not Phase.SUBSCRIBING:
            return
        if answer.rejected:
            self._end(client, f"rejected: {answer.rejected}")
            return
        client.awaited -= 1
        if client.awaited:
            return
        now = time.monotonic()
        self.tally.times["ack"].add((now - client.asked) * 1000)
        client.phase = Phase.OPEN
        if client.is_probe:
            self.dismiss(client)
            return
        self._open[client] = None
        if client.cut_at:
            self.tally.counts["reconnects"] += 1
            self.tally.times["reconnect"].add((now - client.cut_at) * 1000)
            client.cut_at = 0.0
        if client.slow:
            self.pause(client)
            self._slow[client] = None
            client.allowed = 0.0

    def _received(self, client: Client, data: bytes) -> None:
        position, flow = client.position, self._flow
        step = flow.steps.get((position, data)) or flow.step(position, data)
        client.position = step.after
        if step.controls is None:
            step.times += 1
            self._reads += 1
            if not self._reads % _SAMPLE and not client.slow:
                now_ms, add = time.time() * 1000, self.tally.times["delivery"].add
                for at in step.ages_at:
                    add(now_ms - at)
            return
        for heard in step.controls:
            if client.phase is not Phase.NONE:
                self._take(client, heard)

    def _take(self, client: Client, heard: Heard) -> None:
        """One of those that are not all messages."""
        match heard:
            case Answer():
                self.send(client, heard.data)
            case Close():
                client.close = heard
                if client.phase is not Phase.LEAVING:
                    self.send(client, self._spoken.answer_close(heard.code))
            case Welcome():
                self._greeted(client, heard.epoch)
            case Subscribed():
                self._subscribed(client, heard)
            case Dropped():
                self._dropped(client, heard.channel)
            case Failure():
                self.tally.errors[f"error {heard.code}"] += 1
            case _:
                self._judged(client, heard)

    def _judged(self, client: Client, heard: Heard) -> None:
        if step := self._flow.one(client.position, heard):
            client.position = step.after
            self.tally.take(step, 1, time.monotonic())

    # -- its end -------------------------------------------------------------------------------------

    def _refused(self, client: Client, answer: HttpAnswer) -> None:
        self.tally.counts["refused"] += 1
        self._failed(f"refused with {answer.status}{f' ({answer.reason})' if answer.reason else ''}")
        self._return(client, lambda backoff: backoff.refused(answer.status, answer.retry_after, ""))

    def _ended(self, client: Client, phase: Phase, why: str) -> None:
        self._open.pop(client, None)
        self._slow.pop(client, None)
        steady = time.monotonic() - client.asked >= STEADY_SECONDS  # who is not open is none below
        code, text = client.close
        if why or phase < Phase.OPEN:
            self._failed(why or f"ended while {phase.name.lower()}")
            code, steady = _LOST[0], False
        elif phase is Phase.LEAVING:
            if client.returns and not self.closing:
                client.returns = False
                client.position, client.epoch = START, ""
                self._to_dial.append(client)
            return
        else:
            self.tally.counts["cut"] += 1
            client.cut_at = client.cut_at or time.monotonic()
            if code != _LOST[0]:
                self.tally.errors[f"closed with {code}"] += 1
        lost = code == _LOST[0]
        self._return(client, lambda by: by.lost(steady) if lost else by.closed(code, text, steady))

    def _failed(self, why: str) -> None:
        """A connection did not get as far as its subscription, or broke the rules."""
        self.tally.counts["failed"] += 1
        self.tally.errors[why] += 1

    def _return(self, client: Client, wait: Callable[[Backoff], Wait]) -> None:
        """A client comes back when its backoff says."""
        if client.backoff is None or client.left or self.closing:
            return
        try:
            self.later(wait(client.backoff).seconds, self._to_dial.append, client)
        except RefusedError:
            self.tally.errors["stays away"] += 1
