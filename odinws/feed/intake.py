"""The part of a feed that outlives its sessions: the position in the stream, the status, the counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import structlog

from odinws.feed.cursor import Cursor
from odinws.feed.events import Backfill, FeedEvent
from odinws.feed.status import FeedStatus
from odinws.messages.channels import CHANNEL
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats

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
        self._stats = stats
        self._sink = sink
        self._backlog = backlog
        self._high_water = settings.feed_backlog // 2
        self._channels = settings.channel_filter
        self._prefix_length = len(settings.subject_prefix)
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

    def carries(self, channel: str) -> bool:
        """Whether this is a channel that clients can subscribe to here."""
        return CHANNEL.fullmatch(channel) is not None and self._channels.has(channel)

    def channel(self, subject: str) -> str | None:
        """The channel of a subject; None if it is not carried, which is counted."""
        channel = subject[self._prefix_length :]
        if self.carries(channel):
            return channel
        self._stats.totals.feed_ignored += 1
        return None

    # -- the state of the feed ---------------------------------------------------------------------

    def up(self, mode: str, server: str) -> None:
        """A session is established: messages flow from now on."""
        self.status.mode = mode
        self.status.server = server
        self.status.problem = ""
        self.status.ready = True
        self.status.since = time.time()
        self._stats.feed_ready = 1
        self._stats.totals.feed_sessions += 1
        self._stats.totals.feed_reconnects += self._was_up
        self._was_up = True
        log.info("feed is up", mode=mode, nats=server, epoch=self.cursor.epoch, last_seq=self.cursor.seq)

    def down(self, problem: str) -> None:
        """A session has ended, or could not be established."""
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
        self, epoch: str, seq: int, latest: Mapping[str, int], backfill: Backfill | None = None
    ) -> None:
        """Start over with another stream, see `Cursor.begin`; `backfill` has its latest messages."""
        self._sink(self.cursor.begin(epoch, seq, latest))
        if backfill is not None:
            self._sink(backfill)
        self._update_status()

    def rename(self, epoch: str) -> None:
        """Continue in a new epoch, see `Cursor.rename`."""
        self._sink(self.cursor.rename(epoch))
        self._update_status()

    def expire(self, first_seq: int) -> int:
        """The stream begins at `first_seq` now; returns how many messages are lost by that."""
        lost = self.cursor.expire(first_seq)
        if lost is None:
            return 0
        self._stats.totals.feed_gaps += 1
        log.warning("stream no longer has messages", first=lost.first, last=lost.last)
        self._sink(lost)
        self._update_status()
        return lost.last - lost.first + 1

    def take(
        self, subject: str, seq: int, ts_ms: int, payload: bytes, *, deliveries: int, whole_stream: bool
    ) -> None:
        """Take a message of the stream.

        Args:
            ts_ms: when NATS stored it, Unix milliseconds.
            deliveries: how often NATS has delivered it.
            whole_stream: whether we receive every message of the stream: then those between the last one and
                this are lost.
        """
        channel = self.channel(subject)
        if seq <= self.cursor.seq:
            self._stats.totals.feed_duplicates += 1
            self._stats.count_received(0, 1)
            return
        gone = self.expire(seq) if whole_stream else 0
        self._stats.count_received(1 + gone, deliveries)
        self._taken_ms, self._heard = ts_ms, time.monotonic()
        self._emit(channel, seq, ts_ms, payload)

    def take_uncounted(self, subject: str, payload: bytes) -> None:
        """Take a message of core NATS: it has no sequence, so it gets the next one here."""
        channel = self.channel(subject)
        if channel is not None:
            self._emit(channel, self.cursor.seq + 1, int(time.time() * 1000), payload)

    def _emit(self, channel: str | None, seq: int, ts_ms: int, payload: bytes) -> None:
        if channel is None:
            self.cursor.skip(seq)
        else:
            self._stats.totals.feed_messages += 1
            self._sink(self.cursor.take(channel, seq, ts_ms, payload))
        self._update_status()

    def _update_status(self) -> None:
        self.status.epoch, self.status.last_seq = self.cursor.epoch, self.cursor.seq
