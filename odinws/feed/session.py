"""A session with NATS: connect, check the stream, consume until anything fails. And what outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Callable, Mapping

import gevent
import nats
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo

from odinws.errors import FeedError, RefusedError
from odinws.feed import authentication, history, refusals, stream
from odinws.feed.cursor import Cursor
from odinws.feed.events import Backfill, FeedEvent, Lost, Message
from odinws.feed.passed_over import PassedOver
from odinws.feed.servers import Server
from odinws.feed.status import FeedStatus
from odinws.feed.stream import ALL_HOLES, NO_HOLES, Holes
from odinws.feed.tap import Tap
from odinws.scheduling import until_tick
from odinws.settings import Settings, without_credentials
from odinws.shared.worker_stats import WorkerStats

_CONNECT_SECONDS = 2
_HEARTBEAT_SECONDS = 1.0
_SILENCE_SECONDS = 3.0  # without a heartbeat for this long the consumer counts as lost
_LOOK_SECONDS = 4.0  # from one look at the stream to the next
_UNSURE_SECONDS = 1.0  # the same, while it is not known whether something is lost
_PING_SECONDS = 2
_BACKPRESSURE_SECONDS = 0.002
_IDLE = re.compile(rb"\r\nNats-Last-Consumer:[ \t]*(\d+)\r\nNats-Last-Stream:[ \t]*(\d+)")
_STALLED = re.compile(rb"\r\nNats-Consumer-Stalled:[ \t]*([^\s]+)")
_KNOWN_SUBJECTS = 20_000  # some 3 MB
_AT_ONCE = 500  # subjects looked at before others run: 1 ms
_BACKFILL_MESSAGES = 2000  # read by a new worker before it accepts connections: a third of a second

log = structlog.get_logger("odinws.feed")


class Intake:
    """Takes the messages that sessions receive, counts them, and hands them to the hub.

    Args:
        settings: which channels are carried, and the size of the backlog.
        stats: the worker's stats.
        sink: receives the events, in order; must not block.
        backlog: returns how many events the sink has not processed yet.

    Attributes:
        status: the state of the feed.
        pending: how many messages the stream still has for us, as the latest message says.
        passed_over: may be lost, or of others; None: the consumer gets each message of the stream.
    """

    def __init__(
        self,
        settings: Settings,
        stats: WorkerStats,
        sink: Callable[[FeedEvent], None],
        backlog: Callable[[], int],
    ) -> None:
        self.status = FeedStatus(since=time.time())
        self.cursor = Cursor()
        self.pending = 0
        self.passed_over: PassedOver | None = None
        self._stats = stats
        self._totals = stats.totals  # kept, as ctypes makes an object of each access
        self._sink = sink
        self._backlog = backlog
        self._high_water = settings.feed_backlog // 2
        self._channels = settings.channels
        self._known: dict[str, str | None] = {}  # subject -> channel
        self._taken_ms = 0  # when NATS stored the latest message, Unix milliseconds
        self._heard = 0.0  # when it was received, monotonic seconds
        self._was_up = False

    @property
    def is_full(self) -> bool:
        """Whether the backlog is more than half full: then JetStream is throttled."""
        return self._backlog() > self._high_water

    def lag_seconds(self) -> float:
        """How long the latest message took from NATS to here; 0.0: none came yet."""
        if not self._taken_ms:
            return 0.0
        came_at = time.time() - (time.monotonic() - self._heard)
        return max(0.0, came_at - self._taken_ms / 1000)

    def channel(self, subject: str) -> str | None:
        """The channel of a subject; None if it is not carried, which is counted."""
        try:
            channel = self._known[subject]
        except KeyError:
            if len(self._known) >= _KNOWN_SUBJECTS:
                self._known.clear()
            channel = self._known[subject] = self._channels.channel_of(subject)
        if channel is None:
            self._totals.feed_ignored += 1
        return channel

    # -- the state of the feed ---------------------------------------------------------------------

    def up(self, mode: str, server: str) -> None:
        """A session is established: messages flow from now on."""
        self.status.mode = mode
        self.status.server = server
        self.status.problem = ""
        self.status.ready = True
        self.status.since = time.time()
        self._stats.feed_ready = 1
        self._totals.feed_sessions += 1
        self._totals.feed_reconnects += self._was_up
        self._was_up = True
        log.info("feed is up", mode=mode, nats=server, epoch=self.cursor.epoch, last_seq=self.cursor.seq)

    def down(self, problem: str, *, refused: bool = False) -> None:
        """A session has ended, or could not be established.

        Args:
            refused: whether NATS refuses what the session asked for.
        """
        self._totals.feed_refused += refused
        if self.status.ready:
            self.status.since = time.time()
            log.warning("feed is down", problem=problem)
        elif problem != self.status.problem:
            log.warning("feed does not come up", problem=problem)
        self.status.ready = False
        self.status.problem = problem
        self._stats.feed_ready = 0

    # -- the sequence ------------------------------------------------------------------------------

    def begin(
        self,
        epoch: str,
        seq: int,
        latest: Mapping[str, int],
        backfill: Backfill | None = None,
        known_from: int | None = None,
    ) -> None:
        """Start over with another stream, see `Cursor.begin`; `backfill` has its latest messages."""
        self._sink(self.cursor.begin(epoch, seq, latest, known_from))
        if backfill is not None:
            self._sink(backfill)
        self._update_status()

    def rename(self, epoch: str) -> None:
        """Continue in a new epoch, see `Cursor.rename`."""
        self._sink(self.cursor.rename(epoch))
        self._update_status()

    def expire(self, first_seq: int) -> int:
        """The stream begins at `first_seq` now; returns how many messages are lost by that."""
        gone = self._lose(ALL_HOLES.within(self.cursor.seq + 1, first_seq - 1))
        self._update_status()
        return gone

    def pass_by(self, seq: int, holes: Holes) -> None:
        """The stream has nothing for us up to `seq`: what we have not received was of others, or is lost."""
        if seq <= self.cursor.seq:
            return
        self._pass_over(seq, holes)
        self.cursor.skip(seq)
        self._update_status()

    def doubt(self, upto: int, holes: Holes) -> None:
        """Tell what may be lost of what was passed over, see `PassedOver.take`."""
        if self.passed_over is not None:
            for lost in self.passed_over.take(upto, holes):
                self.cursor.doubt(lost)
                self._tell(lost)

    def take(
        self, subject: str, seq: int, ts_ms: int, payload: bytes, *, deliveries: int, holes: Holes
    ) -> None:
        """Take a message of the stream.

        Args:
            ts_ms: when NATS stored it, Unix milliseconds.
            deliveries: how often NATS has delivered it.
            holes: what the stream does not have of the sequences between the last message and this. The
                others are not for us.
        """
        channel = self.channel(subject)
        if seq <= self.cursor.seq:
            self._totals.feed_duplicates += 1
            self._stats.count_received(0, 1)
            return
        gone = self._pass_over(seq - 1, holes) if seq != self.cursor.seq + 1 else 0
        self._stats.count_received(1 + gone, deliveries)
        self._taken_ms, self._heard = ts_ms, time.monotonic()
        self._emit(channel, seq, ts_ms, payload)

    def take_uncounted(self, subject: str, payload: bytes) -> None:
        """Take a message of core NATS: it has no sequence, so it gets the next one here."""
        channel = self.channel(subject)
        if channel is not None:
            self._emit(channel, self.cursor.seq + 1, int(time.time() * 1000), payload)

    def _pass_over(self, last: int, holes: Holes) -> int:
        """Nothing comes of what is behind the cursor up to `last`; returns how many of that are lost."""
        first = self.cursor.seq + 1
        lost = holes.within(first, last)
        if self.passed_over is not None:
            self.passed_over.add(first, lost.first - 1 if lost else last)
            if lost:
                self.passed_over.add(lost.last + 1, last)
        return self._lose(lost)

    def _lose(self, lost: Lost | None) -> int:
        if lost is None:
            return 0
        self.cursor.lose(lost)
        self._tell(lost)
        return lost.last - lost.first + 1

    def _tell(self, lost: Lost) -> None:
        self._totals.feed_gaps += 1
        log.warning("stream no longer has messages", first=lost.first, last=lost.last, reason=lost.reason)
        self._sink(lost)

    def _emit(self, channel: str | None, seq: int, ts_ms: int, payload: bytes) -> None:
        if channel is None:
            self.cursor.skip(seq)
        else:
            self._totals.feed_messages += 1
            self._sink(self.cursor.take(channel, seq, ts_ms, payload))
        self.status.last_seq = seq

    def _update_status(self) -> None:
        self.status.epoch, self.status.last_seq = self.cursor.epoch, self.cursor.seq


class Session:
    """One connection to NATS, from connect to failure.

    Args:
        settings: credentials for NATS, and the configuration of the stream.
        server: where to connect.
        intake: receives the messages; knows where the last session ended.

    Attributes:
        client: the connection.
    """

    def __init__(self, settings: Settings, server: Server, intake: Intake) -> None:
        self._settings = settings
        self._server = server
        self._intake = intake
        self.client = Client()
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        # A session that fails before it is up never awaits it, and asyncio would complain.
        self._ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._failure: Exception | None = None  # why the server could not be reached
        self._heard = time.monotonic()
        self._consumer_seq = 0
        self._answering: asyncio.Task[None] | None = None  # of flow control, the latest
        self._is_filtered = False  # whether the consumer leaves out messages that are not for us
        self._holes = NO_HOLES  # what the stream does not have of what the consumer passes over
        self._listed = NO_HOLES  # what it did not have at the latest look
        self._may_be_denied = False  # whether nothing is wrong if NATS refuses what is asked now
        self._is_denied = False  # whether we may not ask whether there is JetStream
        self._counts = False  # whether messages of core NATS are given numbers: its epoch has begun

    async def run(self) -> None:
        """Consume until anything fails. Always raises.

        Raises:
            nats.errors.Error, OSError, TimeoutError: NATS can't be reached, or is lost.
            FeedError: the consumer is lost, or skipped messages.
            RefusedError: NATS does not permit what is needed, or a limit is reached.
        """
        work = asyncio.ensure_future(self._work())
        work.add_done_callback(lambda work: work.cancelled() or work.exception())  # as `_ended`
        try:
            await asyncio.wait({work, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
        if work.done() and isinstance(error := work.exception(), Exception):
            if isinstance(error, nats.js.errors.APIError):
                error = RefusedError(f"JetStream refuses: {error.description}")
            self._end(error)
        await self._ended

    async def _work(self) -> None:
        """Connect, begin to consume, and look after it."""
        await self._connect()
        if await self._finds_jetstream():
            await self._on_jetstream()
            self._heard = time.monotonic()
            self._check_heartbeats(self._heard)
            await self._watch()
        else:
            await self._on_core()
            await self._watch_core()

    async def _connect(self) -> None:
        options = authentication.options(self._settings)
        if self._server.tls_hostname:
            options["tls_hostname"] = self._server.tls_hostname
        try:
            await self.client.connect(
                servers=[self._server.url],
                name=f"odinws {self._settings.environment}",
                allow_reconnect=False,
                max_reconnect_attempts=1,  # and none for a name that is not known
                reconnect_time_wait=0,
                connect_timeout=_CONNECT_SECONDS,
                ping_interval=_PING_SECONDS,
                max_outstanding_pings=2,
                error_cb=self._on_error,
                closed_cb=self._on_closed,
                **options,
            )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            cause = self._failure or error  # the error itself may only say that no server is left to try
            text = str(cause) or type(cause).__name__
            refused = RefusedError if "authorization" in text.lower() else FeedError
            raise refused(f"{without_credentials(self._server.url)}: {text}") from error

    async def close(self) -> None:
        """Close the connection, whatever its state. Errors of NATS are ignored."""
        self._end(FeedError("the session is closed"))
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self.client.close()
        except (nats.errors.Error, OSError, TimeoutError):
            pass  # the connection is gone already

    # -- JetStream ---------------------------------------------------------------------------------

    async def _finds_jetstream(self) -> bool:
        """Whether there is JetStream: of this server, of another in its cluster, or behind a leaf node.

        Raises:
            FeedError: nobody answers, and there was JetStream before, or this server says that it has it.
        """
        name, may_be_without = self._settings.stream_name, not self.client._server_info.get("jetstream")
        self._may_be_denied = may_be_without
        try:
            found = await stream.has_jetstream(self.client, name)
        except FeedError:
            if not self._is_denied:
                raise
            found = False
        finally:
            self._may_be_denied = False
        if may_be_without and not found and self._intake.status.mode == "jetstream":
            raise FeedError(f"nobody answers $JS.API.STREAM.INFO.{name}")
        return found

    async def _on_jetstream(self) -> None:
        """Start consuming the stream."""
        intake = self._intake
        js = self.client.jetstream(timeout=_CONNECT_SECONDS)
        try:
            info = await stream.find_or_create(js, self._settings)
        except nats.js.errors.APIError as error:
            name = self._settings.stream_name
            text = error.description or f"nobody answers $JS.API.STREAM.INFO.{name}"
            raise RefusedError(f"stream {name}: {text}") from error
        await refusals.provoke(self.client, self._settings.stream_name)
        self._report(info, 0)
        state, epoch = info.state, stream.epoch(info)
        self._is_filtered = stream.needs_filter(info, self._settings.channels.subjects)
        if intake.cursor.continues(epoch, state.last_seq):
            await self._doubt()
            intake.expire(state.first_seq)
            if self._is_filtered:
                self._holes = await stream.holes(self.client, self._settings.stream_name)
        else:
            latest, known_from = await self._latest(js, info)
            backfill = await self._backfill(state.last_seq)
            if backfill is not None:
                latest.update((message.channel, message.seq) for message in backfill.messages)
            # Clients are promised everything after it, even if this session ends before it is ready.
            intake.begin(epoch, state.last_seq, latest, backfill, known_from)
        if not self._is_filtered:
            self._holes = stream.left_out(info)
        intake.passed_over = PassedOver() if self._is_filtered else None
        inbox = self.client.new_inbox()
        tap = Tap(
            self.client, self._on_stream_message, lambda: intake.is_full, self._wait_for_room, self._end
        )
        await tap.subscribe(self.client, inbox)
        await self._consume(js, inbox)

    def _report(self, info: StreamInfo, last_seq: int) -> None:
        status, differences = self._intake.status, stream.differences(info, self._settings)
        self._warn(stream.warnings(info, last_seq))
        if differences and differences != status.stream_differs:
            name = self._settings.stream_name
            log.warning("stream differs from the settings", stream=name, differs=differences)
        status.stream_differs = differences

    def _warn(self, warnings: tuple[str, ...]) -> None:
        """Replace what is told of the stream; what is new is logged."""
        status = self._intake.status
        for warning in set(warnings).difference(status.warnings):
            log.warning(warning)
        status.warnings = warnings

    async def _consume(self, js: JetStreamContext, inbox: str) -> None:
        settings = self._settings
        await stream.add_consumer(
            self.client,
            js,
            settings.stream_name,
            ConsumerConfig(
                deliver_subject=inbox,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self._intake.cursor.seq + 1,
                **(history.subject_filter(settings.channels.subjects) if self._is_filtered else {}),
                ack_policy=AckPolicy.NONE,
                max_deliver=1,
                flow_control=True,
                idle_heartbeat=_HEARTBEAT_SECONDS,
                inactive_threshold=60.0,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        self._ready("jetstream")

    async def _latest(self, js: JetStreamContext, info: StreamInfo) -> tuple[dict[str, int], int]:
        """By channel, the sequence of its latest message; and from where on that is known.

        Those after the last sequence of `info` are left out: what such a channel had before is not known.
        """
        name, subjects = self._settings.stream_name, self._settings.channels.subjects
        last_seq = info.state.last_seq
        if info.config.subjects == list(subjects):
            # nats-server ignores such a filter but counts by it, so what the stream has of others, from when
            # it took them, would have us stop too early.
            subjects = (">",)
        found = await history.latest_of_all(self.client, js, name, subjects)
        lost = (await stream.holes(self.client, name)).within(1, last_seq)  # afterwards: it may lose more
        latest: dict[str, int] = {}
        for number, (subject, seq) in enumerate(found.items()):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            if seq <= last_seq and (channel := self._intake.channel(subject)) is not None:
                latest[channel] = seq
        if any(seq > last_seq for seq in found.values()):
            return latest, last_seq
        return latest, lost.last if lost else 0

    async def _backfill(self, last_seq: int) -> Backfill | None:
        """The latest messages up to `last_seq`, so that clients of a worker that ended can resume here."""
        settings = self._settings
        most = min(_BACKFILL_MESSAGES, settings.ring_messages)
        first = upto = max(0, last_seq - most)
        messages: list[Message] = []
        latest: dict[str, int] = {}
        while upto < last_seq:
            try:
                page = await history.page(
                    self.client,
                    settings.stream_name,
                    settings.channels,
                    (),
                    upto,
                    most,
                    1 << 20,
                )
            except FeedError:
                return None  # a stream without direct gets; clients that resume get a gap
            for event in page.events:
                if isinstance(event, Lost):
                    first = min(event.last, last_seq)
                    messages.clear()
                    latest.clear()
                elif event.seq <= last_seq:
                    messages.append(event._replace(prev=latest.get(event.channel, first)))
                    latest[event.channel] = event.seq
            upto = page.upto
        return Backfill(first, last_seq, messages)

    def _wait_for_room(self) -> None:
        """Stop all reading from NATS until the hub has room: a feed that is too fast waits in the stream.

        The greenlet sleeps, and asyncio with it: else it would read on, into memory.
        """
        while self._intake.is_full:
            gevent.sleep(_BACKPRESSURE_SECONDS)

    def _on_stream_message(self, subject: str, reply: bytes, headers: bytes, payload: bytes) -> None:
        if self._ended.done():
            return
        self._heard = time.monotonic()
        if not reply.startswith(b"$JS.ACK."):
            self._on_control(reply, headers)
            return
        # NATS ADR-15: $JS.ACK, in the newer form a domain and an account, then
        # stream, consumer, delivered, seq, consumer seq, ns, pending.
        tokens = reply.split(b".")
        fields = tokens[4:9] if len(tokens) == 9 else tokens[6:11]
        consumer_seq = int(fields[2])
        if consumer_seq != self._consumer_seq + 1:
            self._end(FeedError(f"consumer skipped from {self._consumer_seq} to {consumer_seq}"))
            return
        self._consumer_seq = consumer_seq
        self._intake.pending = int(fields[4])
        self._intake.take(
            subject,
            int(fields[1]),
            int(fields[3]) // 1_000_000,
            payload,
            deliveries=int(fields[0]),
            holes=self._holes,
        )

    def _on_control(self, reply: bytes, headers: bytes) -> None:
        """Answer flow control, and note how far a consumer has looked that has nothing for us."""
        if (idle := _IDLE.search(headers)) and int(idle[1]) == self._consumer_seq:
            self._intake.pass_by(int(idle[2]), self._holes)
        if not reply and (found := _STALLED.search(headers)):
            reply = found[1]
        if reply:
            self._answering = self._loop.create_task(self._answer(reply.decode()))

    async def _answer(self, reply: str) -> None:
        with contextlib.suppress(nats.errors.Error, OSError):  # without a connection the session ends
            await self.client.publish(reply)

    async def _watch(self) -> None:
        """Compare what the stream has with what came, from time to time. Ends with an exception.

        Raises:
            FeedError: the consumer does not go on, or the stream is another one or has other settings now.
        """
        due = before = 0  # the last sequence of the stream, and ours, at the look before
        looked = self._loop.time()
        while not self._ended.done():  # `asyncio.wait_for` before Python 3.12 may swallow a cancellation
            await asyncio.sleep(_UNSURE_SECONDS)
            cursor = self._intake.cursor
            try:
                await self._doubt()
                if self._loop.time() - looked < _LOOK_SECONDS:
                    continue
                info = await stream.info(self.client, self._settings.stream_name)
                await refusals.provoke(self.client, self._settings.stream_name)
            except nats.js.errors.NotFoundError as error:
                raise FeedError(f"stream {self._settings.stream_name} is gone") from error
            except (nats.errors.Error, FeedError) as error:
                # Its consumer may live on, as where a cluster has lost its majority: nothing is stored then.
                self._warn((f"stream {self._settings.stream_name} can't be looked at: {error}",))
                continue
            if stream.epoch(info) != cursor.epoch:
                raise FeedError(f"stream {self._settings.stream_name} was replaced")
            if stream.needs_filter(info, self._settings.channels.subjects) != self._is_filtered:
                raise FeedError(f"stream {self._settings.stream_name} has other settings now")
            self._report(info, due)
            if before == cursor.seq < due and not self._intake.is_full:
                raise FeedError(f"no message since {before}, and the stream has more, up to {due}")
            due, before, looked = info.state.last_seq, cursor.seq, self._loop.time()

    async def _doubt(self) -> None:
        """What was deleted early may have been passed over: that shows nowhere else."""
        intake = self._intake
        if intake.passed_over:
            seen = intake.cursor.seq
            self._listed = await stream.holes(self.client, self._settings.stream_name, self._listed)
            intake.doubt(seen, self._listed)

    def _check_heartbeats(self, asked: float) -> None:
        """Every second while the session lasts; `asked` is when this call was asked for."""
        if self._ended.done():
            return
        now = time.monotonic()
        if now - asked > 2 * _HEARTBEAT_SECONDS:
            self._heard = now  # this loop was stalled itself: heartbeats may wait to be read
        elif now - self._heard > _SILENCE_SECONDS:
            self._end(FeedError(f"no heartbeat of the consumer for {_SILENCE_SECONDS:g} s"))
        self._loop.call_later(until_tick(_HEARTBEAT_SECONDS), self._check_heartbeats, now)

    # -- core NATS ---------------------------------------------------------------------------------

    async def _on_core(self) -> None:
        tap = Tap(self.client, self._on_core_message, lambda: False, lambda: None, self._end)
        for subject in self._settings.channels.subjects:
            await tap.subscribe(self.client, subject)
        await refusals.settle(self.client)
        if self._ended.done():  # NATS refuses a subject: no epoch begins, and no client is told of one
            return
        # What was published since the last session is unknown, so the epoch changes; the sequence continues.
        epoch = f"core-{secrets.token_hex(4)}"
        if self._intake.status.mode == "core":
            self._intake.rename(epoch)
        else:
            self._intake.begin(epoch, 0, {})
        self._counts = True
        self._ready("core")

    async def _watch_core(self) -> None:
        """Wait for JetStream. Ends with an exception.

        Raises:
            FeedError: it is there.
        """
        while not self._ended.done():
            await asyncio.sleep(_LOOK_SECONDS)
            found = False
            with contextlib.suppress(nats.errors.Error, FeedError):
                found = not self._is_denied and await self._finds_jetstream()
            if found:
                raise FeedError("JetStream is there now")

    def _on_core_message(self, subject: str, reply: bytes, headers: bytes, payload: bytes) -> None:
        if self._counts and not self._ended.done():
            self._intake.take_uncounted(subject, payload)

    # -- both --------------------------------------------------------------------------------------

    def _ready(self, mode: str) -> None:
        if self._ended.done():
            return
        url = self.client.connected_url
        self._intake.up(mode, without_credentials(url.geturl()) if url is not None else "")

    async def _on_error(self, error: Exception) -> None:
        log.debug("NATS client", error=repr(error))
        self._failure = error
        if refusals.is_refusal(error):
            if self._may_be_denied:
                self._is_denied = True
                return
            settings = self._settings
            subjects = settings.channels.subjects
            words = refusals.words(error, settings.stream_name, subjects)
            self._end(RefusedError(f"NATS refuses: {words}"))

    async def _on_closed(self) -> None:
        why = f": {self.client.last_error}" if self.client.last_error else ""
        self._end(FeedError(f"connection to NATS lost{why}"))

    def _end(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)
