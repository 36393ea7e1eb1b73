"""The bridge from NATS to the hub: one per worker, nats-py's event loop inside a greenlet.

A session is: connect, look at the stream, consume from where the last session ended, until anything
goes wrong. Then wait (exponential, with full jitter, for ever) and start the next one. There is one way
to come up, so a lost connection, a lost consumer, a leader change and a replaced stream are all the
same to it.

With JetStream the consumer is ordered and without acknowledgements: push, ack none, memory, flow
control and idle heartbeats (NATS ADR-17). The server cannot redeliver what nobody acknowledges, so no
NAK or AckWait amplifies. A hole in the consumer's own sequence ends the session; the next one starts
behind the last message that was taken. Without JetStream the feed takes plain subjects and counts for
itself; `epoch` says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import nats
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from tenacity import AsyncRetrying, wait_random_exponential

from odinws.board.row import Row
from odinws.errors import FeedError
from odinws.feed.asking import ask
from odinws.feed.carried import Carried
from odinws.feed.events import FeedEvent, Message, NewEpoch
from odinws.feed.selector import greenlet_event_loop
from odinws.feed.session import Session
from odinws.feed.status import FeedStatus
from odinws.messages.channels import CHANNEL
from odinws.settings import Settings

_RETRY_SECONDS = 0.1
_RETRY_CAP_SECONDS = 2.0
_STEADY_SECONDS = 5.0  # a session that lived this long starts the waits anew

T = TypeVar("T")

log = structlog.get_logger("odinws.feed")


class NatsFeed:
    """Feeds one hub for the life of a worker.

    Args:
        settings: where NATS is and what the stream should be.
        urls: the servers to use; with an embedded one the settings name none.
        row: where it counts.
        sink: takes the events, in order; must not block.
        backlog: how many events the sink still holds: above half its bound JetStream is held back.
    """

    def __init__(
        self,
        settings: Settings,
        urls: list[str],
        row: Row,
        sink: Callable[[FeedEvent], None],
        backlog: Callable[[], int],
    ) -> None:
        self.status = FeedStatus(since=time.time())
        self.settings = settings
        self.urls = urls
        self.row = row
        self.sink = sink
        self.backlog = backlog
        self.high_water = settings.feed_backlog // 2
        self._prefix_length = len(settings.subject_prefix)
        self.carried = Carried(settings.subjects, settings.subject_prefix)
        self.last: dict[str, int] = {}  # channel -> seq of its latest message
        self.floor = 0  # up to here all has been told as gone: what comes next follows that
        self.core_seq = 0
        self.pending = 0  # messages of the stream that are still to come, by the latest one
        self.latest_ms = 0  # when NATS took that one, milliseconds since 1970
        self.heard = 0.0  # and when it came here, monotonic seconds
        self._was_up = False
        self._session: Session | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        """Run for ever, in the calling greenlet, which must have an event loop to itself."""
        with asyncio.Runner(loop_factory=greenlet_event_loop) as runner:
            runner.run(self._sessions())

    def ask(self, question: Callable[[Client], Coroutine[Any, Any, T]], timeout_seconds: float) -> T:
        """Ask NATS something on the feed's own connection; the calling greenlet waits.

        Raises:
            FeedError: there is no session, NATS does not answer in time, or not with what is asked for.
        """
        session, loop = self._session, self._loop
        if session is None or loop is None or not self.status.ready:
            raise FeedError("NATS is away")
        return ask(loop, question(session._client), timeout_seconds)

    def lag_seconds(self) -> float:
        """How long the latest message was on its way from NATS to here; 0.0: none came yet."""
        if not self.latest_ms:
            return 0.0
        came_at = time.time() - (time.monotonic() - self.heard)
        return max(0.0, came_at - self.latest_ms / 1000)

    async def _sessions(self) -> None:
        self._loop = asyncio.get_running_loop()
        while True:
            async for attempt in AsyncRetrying(
                wait=wait_random_exponential(multiplier=_RETRY_SECONDS, max=_RETRY_CAP_SECONDS)
            ):
                with attempt:
                    await self._one_session()

    async def _one_session(self) -> None:
        """Run one session to its end. Raises `_Brief` if it was too short to start the waits anew."""
        started = time.monotonic()
        self._session = session = Session(self)
        try:
            await session.run()
        except (nats.errors.Error, FeedError, OSError, TimeoutError) as error:
            self._down(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        except Exception as error:  # a defect must not end the feed of a whole worker
            log.exception("feed session failed")
            self._down(repr(error))
        finally:
            self._session = None
            await session.close()
        if time.monotonic() - started < _STEADY_SECONDS:
            raise _Brief

    def up(self, mode: str, server: str) -> None:
        self.status.mode = mode
        self.status.server = server
        self.status.problem = ""
        self.status.ready = True
        self.status.since = time.time()
        self.row.feed_ready = 1
        self.row.totals.feed_sessions += 1
        self.row.totals.feed_reconnects += self._was_up
        self._was_up = True
        log.info("feed is up", mode=mode, nats=server, epoch=self.status.epoch, last_seq=self.status.last_seq)

    def _down(self, problem: str) -> None:
        if self.status.ready:
            self.status.since = time.time()
            log.warning("feed is down", problem=problem)
        elif problem != self.status.problem:
            log.warning("feed does not come up", problem=problem)
        self.status.ready = False
        self.status.problem = problem
        self.row.feed_ready = 0

    def enter_epoch(self, epoch: str, seq: int, *, anew: bool) -> None:
        """Name the life of the sequence, which is at `seq`. `anew`: nothing known of it holds."""
        self.status.epoch = epoch
        if anew:
            self.status.last_seq = self.floor = 0
            self.last.clear()
        self.sink(NewEpoch(epoch, seq))

    def carries(self, channel: str) -> bool:
        """Whether clients can have what comes under this name."""
        return CHANNEL.fullmatch(channel) is not None and self.carried.has(channel)

    def channel(self, subject: str) -> str | None:
        channel = subject[self._prefix_length :]
        if self.carries(channel):
            return channel
        self.row.totals.feed_ignored += 1
        return None

    def take(self, channel: str, seq: int, ts_ms: int, payload: bytes) -> None:
        self.row.totals.feed_messages += 1
        self.sink(Message(channel, seq, max(self.floor, self.last.get(channel, 0)), ts_ms, payload))
        self.last[channel] = seq


class _Brief(Exception):  # noqa: N818 - a signal to the retry loop, not an error
    """The session ended soon after it began: wait longer before the next."""
