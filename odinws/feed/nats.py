"""The NATS feed of a worker: runs one session after another, with nats-py's event loop in a greenlet.

A session connects, checks the stream, and consumes from where the last session ended, until anything fails.
The next one follows after a delay (exponential, with full jitter, forever). So a lost connection, a lost
consumer, a leader change and a replaced stream are all handled in the same way.

With JetStream the consumer is ordered: push, without acknowledgements, in memory, with flow control and idle
heartbeats (NATS ADR-17). Without acknowledgements NATS never redelivers, so there are no redelivery storms.
A gap in the consumer sequence ends the session; the next one starts after the last message that was taken.
Without JetStream the feed subscribes to core NATS and numbers messages itself; the epoch tells.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import gevent
import nats
import nats.errors
import nats.js.errors
import structlog
from gevent.event import AsyncResult
from nats.aio.client import Client
from tenacity import AsyncRetrying, wait_random_exponential

from odinws.errors import FeedError, RefusedError
from odinws.feed import history
from odinws.feed.events import FeedEvent
from odinws.feed.greenlet_loop import GreenletEventLoop
from odinws.feed.servers import Servers
from odinws.feed.session import Intake, Session
from odinws.settings import Settings
from odinws.shared.recent import RingBuffer
from odinws.shared.worker_stats import WorkerStats

_RETRY_SECONDS = 0.1
_RETRY_CAP_SECONDS = 2.0
_STABLE_SECONDS = 5.0  # a session that lasted this long resets the backoff
_SPARE_SECONDS = 1.0  # extra time for a query while the event loop is busy

T = TypeVar("T")

log = structlog.get_logger("odinws.feed")


class NatsFeed:
    """Feeds the hub for the life of a worker.

    Args:
        settings: credentials for NATS, and the configuration of the stream.
        urls: the servers; with an embedded one the settings name none.
        stats: the worker's stats.
        sink: receives the events, in order; must not block.
        backlog: returns how many events the sink has not processed yet. JetStream is throttled while they
            are more than half of the bound.
        cluster: what the workers have learned of the cluster, see `Servers`; None: an own one.

    Attributes:
        status: the state of the feed.
        intake: the position in the stream, and the lag.
    """

    def __init__(
        self,
        settings: Settings,
        urls: list[str],
        stats: WorkerStats,
        sink: Callable[[FeedEvent], None],
        backlog: Callable[[], int],
        cluster: RingBuffer | None = None,
    ) -> None:
        self.intake = Intake(settings, stats, sink, backlog)
        self.status = self.intake.status
        self._settings = settings
        self._servers = Servers(urls, cluster)
        self._session: Session | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        """Run forever in the calling greenlet, with an asyncio event loop of its own."""
        with asyncio.Runner(loop_factory=GreenletEventLoop) as runner:
            runner.run(self._sessions())

    def query(self, request: Callable[[Client], Coroutine[Any, Any, T]], timeout_seconds: float) -> T:
        """Send a request over the feed's connection to NATS, and wait for the result.

        Raises:
            FeedError: there is no session, or NATS does not answer in time, or it reports an error.
        """
        session, loop = self._session, self._loop
        if session is None or loop is None or not self.status.ready:
            raise FeedError("NATS is away")
        return _run_query(loop, request(session.client), timeout_seconds)

    @property
    def reads_many(self) -> bool:
        """Whether several channels can be read by one request, see `history.reads_many`."""
        session = self._session
        return session is not None and self.status.mode == "jetstream" and history.reads_many(session.client)

    @property
    def known_from(self) -> int:
        """See `Cursor.known_from`."""
        return self.intake.cursor.known_from

    def is_unsure(self, seq: int) -> bool:
        """Whether something behind a sequence may be lost, of which clients are not told yet."""
        passed_over = self.intake.passed_over
        return passed_over is not None and passed_over.has_after(seq)

    def is_current(self, channel: str, seq: int) -> bool:
        """See `Cursor.is_current`."""
        return self.intake.cursor.is_current(channel, seq)

    async def _sessions(self) -> None:
        self._loop = asyncio.get_running_loop()
        while True:
            async for attempt in AsyncRetrying(
                wait=wait_random_exponential(multiplier=_RETRY_SECONDS, max=_RETRY_CAP_SECONDS)
            ):
                with attempt:
                    await self._one_session()

    async def _one_session(self) -> None:
        """Run one session to its end. Raises `_ShortSession` if it was too short to reset the backoff."""
        started = time.monotonic()
        server = self._servers.next()
        self._session = session = Session(self._settings, server, self.intake)
        try:
            await session.run()
        except (nats.errors.Error, FeedError, OSError, TimeoutError) as error:
            self.intake.down(str(error) or type(error).__name__, refused=isinstance(error, RefusedError))
        except Exception as error:  # a bug must not end the feed of a whole worker
            log.exception("feed session failed")
            self.intake.down(repr(error))
        finally:
            self._session = None
            self._servers.learn(session.client.discovered_servers, server)
            await session.close()
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # nats-py may have swallowed it
                raise asyncio.CancelledError
        if time.monotonic() - started < _STABLE_SECONDS:
            raise _ShortSession


class _ShortSession(Exception):  # noqa: N818 - a signal to the retry loop, not an error
    """The session ended soon: wait longer before the next."""


def _run_query(loop: asyncio.AbstractEventLoop, request: Coroutine[Any, Any, T], timeout_seconds: float) -> T:
    """Run a coroutine in another greenlet's event loop, and wait for its result.

    Raises:
        FeedError: NATS does not answer in time, or reports an error.
    """
    answer: AsyncResult = AsyncResult()

    async def run() -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                answer.set(await request)
        except Exception as error:  # noqa: BLE001 - raised again in the calling greenlet
            answer.set_exception(error)

    loop.call_soon(loop.create_task, run())
    try:
        return cast("T", answer.get(timeout=timeout_seconds + _SPARE_SECONDS))
    except (nats.errors.Error, OSError, TimeoutError, gevent.Timeout) as error:
        raise FeedError(f"NATS does not answer: {type(error).__name__}") from error
