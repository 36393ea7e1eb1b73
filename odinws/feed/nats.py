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
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import gevent
import nats
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from tenacity import AsyncRetrying, wait_random_exponential

from odinws.board import Row
from odinws.errors import FeedError
from odinws.feed import stream
from odinws.feed.asking import ask
from odinws.feed.events import FeedEvent, Lost, Message, NewEpoch
from odinws.feed.selector import greenlet_event_loop
from odinws.feed.status import FeedStatus
from odinws.protocol import CHANNEL
from odinws.settings import Settings, without_credentials

_CONNECT_SECONDS = 2
_HEARTBEAT_SECONDS = 1.0
_SILENCE_SECONDS = 3.0  # this long without a heartbeat the consumer counts as lost
_PING_SECONDS = 2
_RETRY_SECONDS = 0.1
_RETRY_CAP_SECONDS = 2.0
_STEADY_SECONDS = 5.0  # a session that lived this long starts the waits anew
_BACKPRESSURE_SECONDS = 0.002
_MESSAGES_PER_TURN = 32  # about a millisecond of work
_PENDING_MESSAGES = 1_000_000
_PENDING_BYTES = 256 << 20

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
        self._settings = settings
        self._urls = urls
        self._row = row
        self._sink = sink
        self._backlog = backlog
        self._high_water = settings.feed_backlog // 2
        self._prefix_length = len(settings.subject_prefix)
        self._subjects = stream.subjects(settings)
        self._last: dict[str, int] = {}  # channel -> seq of its latest message
        self._core_seq = 0
        self._session: _Session | None = None
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
        self._session = session = _Session(self)
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

    def _up(self, mode: str, server: str) -> None:
        self.status.mode = mode
        self.status.server = server
        self.status.problem = ""
        self.status.ready = True
        self.status.since = time.time()
        self._row.feed_ready = 1
        self._row.totals.feed_sessions += 1
        log.info("feed is up", mode=mode, nats=server, epoch=self.status.epoch, last_seq=self.status.last_seq)

    def _down(self, problem: str) -> None:
        if self.status.ready:
            self.status.since = time.time()
            log.warning("feed is down", problem=problem)
        elif problem != self.status.problem:
            log.warning("feed does not come up", problem=problem)
        self.status.ready = False
        self.status.problem = problem
        self._row.feed_ready = 0

    def _enter_epoch(self, epoch: str, seq: int, *, anew: bool) -> None:
        """Name the life of the sequence, which is at `seq`. `anew`: nothing known of it holds."""
        self.status.epoch = epoch
        if anew:
            self.status.last_seq = 0
            self._last.clear()
        self._sink(NewEpoch(epoch, seq))

    def _channel(self, subject: str) -> str | None:
        channel = subject[self._prefix_length :]
        if CHANNEL.fullmatch(channel):
            return channel
        self._row.totals.feed_ignored += 1
        return None

    def _take(self, channel: str, seq: int, ts_ms: int, payload: bytes) -> None:
        self._row.totals.feed_messages += 1
        self._sink(Message(channel, seq, self._last.get(channel, 0), ts_ms, payload))
        self._last[channel] = seq


class _Brief(Exception):  # noqa: N818 - a signal to the retry loop, not an error
    """The session ended soon after it began: wait longer before the next."""


class _Session:
    """One life of a connection to NATS."""

    def __init__(self, feed: NatsFeed) -> None:
        self._feed = feed
        self._settings = feed._settings
        self._client = Client()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A session that fails on its way up never reads it, and asyncio would complain.
        self._ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._heard = time.monotonic()
        self._consumer_seq = 0
        self._taken = 0
        self._seeds_to = 0  # messages up to here only tell the latest seq of their channel
        self._whole_stream = False  # every message of the stream comes to us

    async def run(self) -> None:
        """Consume until something goes wrong.

        Raises:
            nats.errors.Error, OSError, TimeoutError: NATS can't be reached, or is lost.
            FeedError: the consumer is lost or skipped.
        """
        await self._client.connect(
            servers=self._feed._urls,
            name=f"odinws {self._settings.environment}",
            allow_reconnect=False,
            connect_timeout=_CONNECT_SECONDS,
            ping_interval=_PING_SECONDS,
            max_outstanding_pings=2,
            error_cb=self._on_error,
            closed_cb=self._on_closed,
        )
        if self._client._server_info.get("jetstream") and await self._on_jetstream():
            await self._watch_heartbeats()
        else:
            await self._on_core()
        await self._ended

    async def close(self) -> None:
        """Close the connection, whatever its state. Never raises what NATS may say to it."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._client.close()
        except (nats.errors.Error, OSError, TimeoutError):
            pass  # it is gone already, which is what we wanted

    # -- JetStream ---------------------------------------------------------------------------------

    async def _on_jetstream(self) -> bool:
        """Consume the stream. False: this account has no JetStream."""
        feed = self._feed
        js = self._client.jetstream(timeout=_CONNECT_SECONDS)
        try:
            info = await stream.find_or_create(js, self._settings)
        except nats.js.errors.APIError as error:
            if error.err_code == stream.JETSTREAM_OFF_FOR_ACCOUNT:
                return False
            raise FeedError(f"stream {self._settings.stream_name}: {error.description}") from error
        self._report(stream.differences(info, self._settings))
        status, state = feed.status, info.state
        epoch = stream.epoch(info)
        # A stream with less in it than we saw was restored from an older copy: its numbers come again.
        if epoch != status.epoch or status.last_seq > state.last_seq:
            feed._enter_epoch(epoch, state.last_seq, anew=True)
            # Clients are promised all that comes behind it, even if this session ends before it is ready.
            status.last_seq = self._seeds_to = state.last_seq
        elif state.first_seq > status.last_seq + 1:
            self._expired(status.last_seq + 1, state.first_seq - 1)
            status.last_seq = state.first_seq - 1  # told once is enough
        self._whole_stream = info.config.subjects == [feed._subjects]
        inbox = self._client.new_inbox()
        await self._client.subscribe(
            inbox,
            cb=self._on_stream_message,
            pending_msgs_limit=_PENDING_MESSAGES,
            pending_bytes_limit=_PENDING_BYTES,
        )
        await self._consume(js, inbox)
        return True

    def _report(self, differences: str) -> None:
        status = self._feed.status
        if differences and differences != status.stream_differs:
            name = self._settings.stream_name
            log.warning("stream differs from the settings", stream=name, differs=differences)
        status.stream_differs = differences

    async def _consume(self, js: JetStreamContext, inbox: str) -> None:
        seeds = self._seeds_to > 0
        info = await js.add_consumer(
            self._settings.stream_name,
            ConsumerConfig(
                deliver_subject=inbox,
                deliver_policy=DeliverPolicy.LAST_PER_SUBJECT if seeds else DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=None if seeds else self._feed.status.last_seq + 1,
                filter_subject=self._feed._subjects,
                ack_policy=AckPolicy.NONE,
                max_deliver=1,
                flow_control=True,
                idle_heartbeat=_HEARTBEAT_SECONDS,
                inactive_threshold=60.0,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        if not seeds or info.num_pending == 0:  # a stream may have forgotten all it ever had
            self._ready("jetstream")

    async def _let_others_run(self) -> None:
        """nats-py calls for all that it has read without a pause of its own."""
        self._taken += 1
        if self._taken % _MESSAGES_PER_TURN == 0:
            await asyncio.sleep(0)

    def _wait_for_room(self) -> None:
        """Stop all reading from NATS until the hub has room: a feed that is too fast waits in the stream.

        The greenlet sleeps, and asyncio with it: else nats-py would read on, into memory.
        """
        while self._feed._backlog() > self._feed._high_water:
            gevent.sleep(_BACKPRESSURE_SECONDS)

    async def _on_stream_message(self, msg: Msg) -> None:
        await self._let_others_run()
        self._wait_for_room()
        self._heard = time.monotonic()
        if not msg.reply.startswith("$JS.ACK."):
            await self._on_control(msg)
            return
        # NATS ADR-15: $JS.ACK, in the newer form a domain and an account, then
        # stream, consumer, delivered, seq, consumer seq, ns, pending.
        tokens = msg.reply.split(".")
        fields = tokens[4:9] if len(tokens) == 9 else tokens[6:11]
        seq, consumer_seq, ts_ns, pending = int(fields[1]), int(fields[2]), int(fields[3]), int(fields[4])
        if consumer_seq != self._consumer_seq + 1:
            self._end(FeedError(f"consumer skipped from {self._consumer_seq} to {consumer_seq}"))
            return
        self._consumer_seq = consumer_seq
        feed = self._feed
        channel = feed._channel(msg.subject)
        if seq <= self._seeds_to:
            if channel is not None:
                feed._last[channel] = seq
        else:
            if self._whole_stream and seq > feed.status.last_seq + 1:
                self._expired(feed.status.last_seq + 1, seq - 1)
            if channel is not None:
                feed._take(channel, seq, ts_ns // 1_000_000, msg.data)
        feed.status.last_seq = max(feed.status.last_seq, seq)
        if not feed.status.ready and (pending == 0 or seq >= self._seeds_to):
            self._ready("jetstream")

    async def _on_control(self, msg: Msg) -> None:
        """Answer flow control."""
        reply = msg.reply
        if not reply and msg.headers:
            reply = msg.headers.get("Nats-Consumer-Stalled", "")
        if reply:
            await self._client.publish(reply)

    async def _watch_heartbeats(self) -> None:
        while not self._ended.done():
            asked = time.monotonic()
            await asyncio.wait((self._ended,), timeout=_HEARTBEAT_SECONDS)
            now = time.monotonic()
            if now - asked > 2 * _HEARTBEAT_SECONDS:
                self._heard = now  # it was this loop that stood still: what came in is not read yet
            elif now - self._heard > _SILENCE_SECONDS:
                self._end(FeedError(f"no heartbeat of the consumer for {_SILENCE_SECONDS:g} s"))

    def _expired(self, first: int, last: int) -> None:
        """The stream has no longer what we had not taken; it may have been of any channel."""
        self._feed._row.totals.feed_gaps += 1
        log.warning("stream no longer has messages", first=first, last=last)
        self._feed._sink(Lost(None, first, last, "expired"))

    # -- core NATS ---------------------------------------------------------------------------------

    async def _on_core(self) -> None:
        # Nobody knows what was published since the last session, so the name changes; the count goes on.
        feed = self._feed
        feed._enter_epoch(f"core-{secrets.token_hex(4)}", feed._core_seq, anew=feed.status.mode != "core")
        await self._client.subscribe(
            feed._subjects,
            cb=self._on_core_message,
            pending_msgs_limit=_PENDING_MESSAGES,
            pending_bytes_limit=_PENDING_BYTES,
        )
        await self._client.flush(_CONNECT_SECONDS)
        self._ready("core")

    async def _on_core_message(self, msg: Msg) -> None:
        await self._let_others_run()
        feed = self._feed
        channel = feed._channel(msg.subject)
        if channel is not None:
            feed._core_seq += 1
            feed._take(channel, feed._core_seq, int(time.time() * 1000), msg.data)

    # -- both --------------------------------------------------------------------------------------

    def _ready(self, mode: str) -> None:
        url = self._client.connected_url
        self._feed._up(mode, without_credentials(url.geturl()) if url is not None else "")

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            self._end(FeedError("messages were dropped on the way from NATS"))
        else:
            log.debug("NATS client", error=repr(error))

    async def _on_closed(self) -> None:
        self._end(FeedError("connection to NATS lost"))

    def _end(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)
