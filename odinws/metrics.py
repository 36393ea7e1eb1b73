"""Prometheus metrics of the whole server, read from the board when they are asked for.

prometheus-client's own multiprocess mode keeps one file per worker that ever lived and has no custom
collectors. The board is shared memory already and has the one true value of each, so its collector
reads that: nothing is counted twice, nothing is left on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

import odinws
from odinws import guard
from odinws.board import (
    CLOSES,
    DIFFERENCES,
    LAG_BOUNDS_SECONDS,
    RECOVERIES,
    REFUSALS,
    STALL_BOUNDS_SECONDS,
    Board,
    Totals,
)
from odinws.choice import DEFAULT_STRATEGY, Choice
from odinws.guard import State
from odinws.settings import Settings

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily


def exposition(board: Board, settings: Settings, state: State) -> tuple[bytes, str]:
    """The metrics as text, and their content type.

    Args:
        state: what admission goes by.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BoardCollector(board, settings, state))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class BoardCollector(Collector):
    """Turns the board into metric families."""

    def __init__(self, board: Board, settings: Settings, state: State) -> None:
        self._board = board
        self._settings = settings
        self._state = state

    def collect(self) -> Iterator[Family]:
        """Yield all families."""
        yield from self._deployment()
        yield from self._admission()
        yield from self._workers()
        totals = self._board.totals_by_choice() or {Choice(): Totals()}
        yield from _by_choice((choice, self._totals(sums)) for choice, sums in totals.items())

    def _deployment(self) -> Iterator[Family]:
        settings = self._settings
        build = InfoMetricFamily("ws_build", "Version and choice of strategy.")
        build.add_metric(
            (),
            {
                "version": odinws.__version__,
                "environment": settings.environment,
                "strategy": settings.strategy or ("by flag" if settings.flags_file else DEFAULT_STRATEGY),
                "shards": str(self._board.resizes.asked or settings.num_shards),
                "shard_key": settings.shard_key,
            },
        )
        yield build
        for name, text, value in (
            ("ws_connections_limit", "Connections that the whole server may hold.", settings.max_connections),
            ("ws_cpu_limit_cores", "Cores that the whole server may use.", settings.cpu_limit),
            ("ws_memory_limit_bytes", "Memory that the whole server may use.", settings.memory_limit),
        ):
            yield GaugeMetricFamily(name, text, value=value)

    def _admission(self) -> Iterator[Family]:
        state = self._state
        yield GaugeMetricFamily(
            "ws_admission_rate", "Connections per second that ResourceGuard admits.", value=state.rate
        )
        for name, text, values in (
            ("ws_admission_pressure", "0: no reason to refuse, 1: fully loaded.", "pressure"),
            ("ws_admission_value", "What ResourceGuard compares, in the unit of its threshold.", "value"),
            ("ws_admission_threshold", "Above it a resource is unhealthy.", "threshold"),
            ("ws_admission_healthy", "1 if the resource is healthy.", "healthy"),
        ):
            family = GaugeMetricFamily(name, text, labels=("resource",))
            for reading in state.readings:
                family.add_metric((reading.reason,), float(getattr(reading, values)))
            yield family

    def _workers(self) -> Iterator[Family]:
        settings = self._settings
        labels = ("worker", "shards", "shard_key", "strategy", "variant", "strategy_reason")
        rows = []
        for index, row in self._board.living():
            shards = str(self._board.resizes.shards(index) or settings.num_shards)
            rows.append(((str(index), shards, settings.shard_key, *row.choice), row))
        for field, name, text in (
            ("connections", "ws_connections", "Connections: open, closing, or being upgraded."),
            ("subscriptions", "ws_subscriptions", "Subscriptions of all connections."),
            ("accepting", "ws_worker_accepting", "1 if the worker takes new connections."),
            ("feed_ready", "ws_feed_ready", "1 if the worker's feed is up."),
            ("greenlets", "ws_greenlets", "Greenlets at work."),
            ("rss_bytes", "ws_memory_rss_bytes", "Resident memory."),
            ("cpu_cores", "ws_cpu_cores", "CPU use in cores, smoothed."),
            ("hub_lag_seconds", "ws_hub_lag_seconds", "Longest turn of the event loop in the last 5 s."),
            ("hub_stall_seconds", "ws_hub_stall_longest_seconds", "Longest turn of the event loop."),
            ("pass_longest_seconds", "ws_pass_longest_seconds", "Longest fan-out pass."),
        ):
            family = GaugeMetricFamily(name, text, labels=labels)
            for worker, row in rows:
                family.add_metric(worker, getattr(row, field))
            yield family
        cpu = CounterMetricFamily("ws_cpu_seconds", "CPU time of the workers that run.", labels=labels)
        info = InfoMetricFamily("ws_worker", "Strategy of each worker, and why it has that.", labels=labels)
        for worker, row in rows:
            cpu.add_metric(worker, row.cpu_seconds)
            info.add_metric(worker, {"place": str(row.place)})
        yield cpu
        yield info

    def _totals(self, sums: Totals) -> Iterator[Family]:
        for name, text, value in (
            ("ws_connections_accepted", "Upgrades that became connections.", sums.accepted),
            ("ws_commands", "Commands received.", sums.commands),
            ("ws_command_errors", "Commands answered with an error or a rejection.", sums.command_errors),
            ("ws_passes", "Fan-out passes.", sums.passes),
            ("ws_pass_seconds", "Time spent in fan-out passes.", sums.pass_seconds),
            ("ws_messages_delivered", "Data frames handed to a connection.", sums.delivered),
            ("ws_messages_undelivered", "Data frames given up with a closing connection.", sums.undelivered),
            ("ws_messages_shed", "Data frames a slow client was not sent, told as gaps.", sums.shed),
            ("ws_bytes_delivered", "Bytes of data frames handed to connections.", sums.delivered_bytes),
            ("ws_sends", "Hand-overs of data to a connection.", sums.sends),
            ("ws_feed_messages", "Messages taken from NATS by all workers.", sums.feed_messages),
            ("ws_feed_ignored", "Messages on subjects that are no channel.", sums.feed_ignored),
            ("ws_feed_invalid", "Messages that are not JSON, told as gaps.", sums.feed_invalid),
            ("ws_feed_overflow", "Messages dropped before the hub, told as gaps.", sums.feed_overflow),
            ("ws_feed_gaps", "Stretches the stream no longer had, told as gaps.", sums.feed_gaps),
            ("ws_reconciliations", "Comparisons of all counts.", sums.reconciliations),
            ("ws_messages_replayed", "Messages of the past that were sent.", sums.replayed),
            ("ws_connections_rebalanced", "Connections sent to other workers.", sums.rebalanced),
            ("ws_feed_published", "By how much the stream rose, over all workers.", sums.feed_published),
            ("ws_feed_received", "Deliveries of these: as many, or something amplifies.", sums.feed_received),
            ("ws_feed_redelivered", "Deliveries that were not the first.", sums.feed_redelivered),
            ("ws_feed_duplicates", "Sequences that came again and were dropped.", sums.feed_duplicates),
            ("ws_feed_sessions", "Times a worker's feed came up.", sums.feed_sessions),
        ):
            yield CounterMetricFamily(name, text, value=value)
        yield _histogram(
            "ws_delivery_lag_seconds",
            "From NATS to the kernel, by the oldest message of each pass: an upper bound for the others.",
            LAG_BOUNDS_SECONDS,
            sums.lag,
            sums.lag_seconds,
        )
        yield _histogram(
            "ws_hub_stall_seconds",
            "Turns of the event loop: how long whoever was ready may have waited.",
            STALL_BOUNDS_SECONDS,
            sums.stalls,
            sums.stall_seconds,
        )
        refused = CounterMetricFamily("ws_connections_refused", "Upgrades refused.", labels=("reason",))
        for reason, count in zip(REFUSALS, sums.refused, strict=True):
            refused.add_metric((reason,), count)
        yield refused
        for name, text, label, labels, counts in (
            (
                "ws_connections_would_refuse",
                "Upgrades that only a dry run let in.",
                "reason",
                guard.REASONS,
                sums.would_refuse,
            ),
            (
                "ws_channels_resumed",
                "Subscriptions with `since`, by where what was missed came from, or why it did not.",
                "outcome",
                RECOVERIES,
                sums.recovered,
            ),
            (
                "ws_reconciliation_differences",
                "Differences between counts that were found and set right: there should be none.",
                "kind",
                DIFFERENCES,
                sums.differences,
            ),
        ):
            family = CounterMetricFamily(name, text, labels=(label,))
            for value, count in zip(labels, counts, strict=True):
                family.add_metric((value,), count)
            yield family
        closed = CounterMetricFamily("ws_connections_closed", "Connections ended.", labels=("reason", "code"))
        for close, count in zip(CLOSES, sums.closed, strict=True):
            closed.add_metric((close.label, str(close.code)), count)
        yield closed


def _by_choice(parts: Iterable[tuple[Choice, Iterable[Family]]]) -> Iterator[Family]:
    """Make one family of those that differ only in the choice of strategy, with that in the labels."""
    merged: dict[str, Family] = {}
    for choice, families in parts:
        for family in families:
            samples = [s._replace(labels={**s.labels, **choice.labels()}) for s in family.samples]
            if family.name in merged:
                merged[family.name].samples += samples
            else:
                family.samples = samples
                merged[family.name] = family
    yield from merged.values()


def _histogram(
    name: str, text: str, bounds: Sequence[float], counts: Sequence[int], total_seconds: float
) -> HistogramMetricFamily:
    """A histogram without labels; `counts` are those of each bucket by itself."""
    edges = [*map(floatToGoString, bounds), "+Inf"]
    buckets = list(zip(edges, accumulate(counts), strict=True))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=total_seconds, unit="seconds")
