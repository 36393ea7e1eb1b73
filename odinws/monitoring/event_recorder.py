"""What an operator must know of a worker, seen in its figures once a second, off the way of a message."""

from __future__ import annotations

import structlog

from odinws.close_codes import REFUSALS, CloseReason
from odinws.feed.status import FeedStatus
from odinws.shared.counters import CLOSES, DIFFERENCES
from odinws.shared.recent import EventLog
from odinws.shared.worker_stats import WorkerStats

QUIET_SECONDS = 10.0  # without a refusal, until refusals count as ended
# What is written of clients that are closed against their will: the event, and the rest of its text.
_CLOSED = {
    CloseReason.SLOW: ("slow_closed", "that did not keep up were closed"),
    CloseReason.MEMORY: ("memory_closed", "that held most were closed: above WS_CLIENT_MEMORY"),
}

log = structlog.get_logger("odinws.monitoring.event_recorder")


class EventRecorder:
    """Writes events of a worker into the event log, each kind at most once per look.

    Args:
        stats: of the worker.
        feed: its feed.
        event log: of the server.
    """

    def __init__(self, stats: WorkerStats, feed: FeedStatus, event_log: EventLog) -> None:
        self._stats = stats
        self._feed = feed
        self._event_log = event_log
        self._sessions = stats.totals.feed_sessions
        self._feed_up = False
        self._closed = {reason: stats.totals.closed[CLOSES.index(reason)] for reason in _CLOSED}
        self._refused = list(stats.totals.refused)
        self._differences = list(stats.totals.differences)
        self._refused_before = 0  # those before the refusals that go on
        self._refusing_since = 0.0  # 0: nobody is being refused
        self._refused_at = 0.0

    def record(self, now: float) -> None:
        """Write what has changed since the last call.

        Args:
            now: monotonic seconds.
        """
        self._record_feed()
        self._record_refusals(now)
        self._record_closed()
        found = list(self._stats.totals.differences)
        changes = {
            kind: count - before
            for kind, count, before in zip(DIFFERENCES, found, self._differences, strict=True)
            if count > before
        }
        self._differences = found
        if changes:
            words = ", ".join(f"{kind} {count}" for kind, count in changes.items())
            self._event_log.add("differences", f"counts differed and were set right: {words}")

    def _record_closed(self) -> None:
        for reason, (kind, text) in _CLOSED.items():
            total = self._stats.totals.closed[CLOSES.index(reason)]
            count, self._closed[reason] = total - self._closed[reason], total
            if count:
                log.warning(f"clients {text}", count=count, code=reason.code)
                self._event_log.add(kind, f"{count} clients {text} ({reason.code})")

    def _record_feed(self) -> None:
        sessions, up = self._stats.totals.feed_sessions, bool(self._stats.feed_ready)
        again = sessions > self._sessions
        if self._feed_up and (not up or again):
            self._event_log.add("feed_lost", f"the feed is down: {self._feed.problem or 'it was lost'}")
        if up and (again or not self._feed_up):
            self._event_log.add("feed_up", f"the feed is up ({self._feed.mode}, seq {self._feed.last_seq})")
        self._sessions, self._feed_up = sessions, up

    def _record_refusals(self, now: float) -> None:
        refused = list(self._stats.totals.refused)
        reasons = [
            reason
            for reason, count, before in zip(REFUSALS, refused, self._refused, strict=True)
            if count > before
        ]
        if reasons:
            if not self._refusing_since:
                self._refusing_since, self._refused_before = now, sum(self._refused)
                self._event_log.add("refusals_began", f"clients are refused: {', '.join(reasons)}")
            self._refused_at = now
        elif self._refusing_since and now - self._refused_at >= QUIET_SECONDS:
            count, seconds = sum(refused) - self._refused_before, self._refused_at - self._refusing_since
            log.info("no client is refused any more", refused=count, seconds=round(seconds, 1))
            self._event_log.add(
                "refusals_ended", f"no client is refused any more: {count} were, over {seconds:.0f} s"
            )
            self._refusing_since = 0.0
        self._refused = refused
