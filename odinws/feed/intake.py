"""What outlives the sessions of a feed: the hub that it feeds, its place in the sequence, and how it is."""

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
    """Takes what sessions hear, counts it, and hands it to the hub.

    Args:
        settings: which channels are carried, and how much may wait.
        stats: where it counts.
        sink: takes the events, in order; must not block.
        backlog: how many events the sink still holds.

    Attributes:
        status: how the feed is.
        pending: messages of the stream that are still to come, by the latest one.
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
        self._taken_ms = 0  # when NATS took the latest message, milliseconds since 1970
        self._heard = 0.0  # and when it came here, monotonic seconds
        self._was_up = False

    @property
    def is_full(self) -> bool:
        """Whether the sink holds more than half of what it may: JetStream is held back then."""
        return self._backlog() > self._high_water

    def lag_seconds(self) -> float:
        """How long the latest message was on its way from NATS to here; 0.0: none came yet."""
        if not self._taken_ms:
            return 0.0
        came_at = time.time() - (time.monotonic() - self._heard)
        return max(0.0, came_at - self._taken_ms / 1000)

    def carries(self, channel: str) -> bool:
        """Whether clients can have what comes under this name."""
        return CHANNEL.fullmatch(channel) is not None and self._channels.has(channel)

    def channel(self, subject: str) -> str | None:
        """The channel of a subject; None: it is none that is carried, which is counted."""
        channel = subject[self._prefix_length :]
        if self.carries(channel):
            return channel
        self._stats.totals.feed_ignored += 1
        return None

    # -- the state of the feed ---------------------------------------------------------------------

    def up(self, mode: str, server: str) -> None:
        """Messages flow from now on."""
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
        """A session ended, or did not come up."""
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
        """Begin in another sequence, see `Cursor.begin`; `past`: what of it is there already."""
        self._sink(self.cursor.begin(epoch, seq, latest))
        if backfill is not None:
            self._sink(backfill)
        self._update_status()

    def rename(self, epoch: str) -> None:
        """Count on under another name."""
        self._sink(self.cursor.rename(epoch))
        self._update_status()

    def expire(self, first_seq: int) -> int:
        """Nothing before `first_seq` comes any more: it may have been of any channel. How many are gone."""
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
            ts_ms: when NATS took it, milliseconds since 1970.
            deliveries: how often NATS delivered it.
            whole_stream: every message of it comes here, so those between the last one and this are gone.
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
        """Take a message that NATS did not number: it gets the next number here."""
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
