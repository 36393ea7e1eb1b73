"""Reads the shared state and puts it into Prometheus's families."""

from __future__ import annotations

import math
import platform
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

import odinws
from odinws.admission.guard import Reading, State
from odinws.assignment import DEFAULT_STRATEGY, Assignment
from odinws.metrics import catalogue
from odinws.metrics.text import CONTENT_TYPE, number, text
from odinws.settings import Settings, public
from odinws.shared import SharedState
from odinws.shared.counters import Counters
from odinws.shared.fields import Counter, Histogram, Info, Metric
from odinws.shared.shards import lock_counts

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily
Samples = Iterable[tuple[Sequence[str], float]]
Parts = Sequence[tuple[tuple[str, ...], Counters]]  # values of `catalogue.PART_LABELS`, and what is theirs


def exposition(
    shared: SharedState, settings: Settings, state: State, give_way: Callable[[], None] = lambda: None
) -> tuple[bytes, str]:
    """The metrics as text, and their content type.

    Args:
        state: what admission goes by.
        give_way: called between families: all of them together take some milliseconds, and more the more
            workers and shards there are.
    """
    return text(StatsCollector(shared, settings, state, give_way).collect()), CONTENT_TYPE


class StatsCollector(Collector):
    """Turns the shared state into metric families."""

    def __init__(
        self, shared: SharedState, settings: Settings, state: State, give_way: Callable[[], None]
    ) -> None:
        self._give_way = give_way
        self._shared = shared
        self._settings = settings
        self._state = state

    def collect(self) -> Iterator[Family]:
        """Yield all families."""
        parts = (self._server, self._admission, self._workers, self._shards, self._totals)
        for part in parts:
            for family in part():
                yield family
                self._give_way()  # it has been written by now

    def _server(self) -> Iterator[Family]:
        settings, shared = self._settings, self._shared
        values = (
            odinws.__version__,
            platform.python_version(),
            settings.environment,
            settings.strategy or ("by flag" if settings.flags_file else DEFAULT_STRATEGY),
            str(shared.resizes.requested or settings.num_shards),
            settings.shard_key,
        )
        yield _family(catalogue.BUILD, [(values, 1)])
        yield _family(catalogue.SETTING, [((name, value), 1) for name, value in public(settings)])
        for metric in catalogue.LIMITS:
            yield _family(metric, [((), getattr(settings, metric.field))])
        yield _family(catalogue.DESCRIPTORS_LIMIT, [((), _descriptors_limit())])
        yield _family(catalogue.WORKERS, [((), len(shared.living()))])
        yield _family(catalogue.UPTIME, [((), time.monotonic() - shared.started)])
        yield _family(catalogue.STARTS, [((), shared.starts)])

    def _admission(self) -> Iterator[Family]:
        state = self._state
        yield _family(catalogue.ADMISSION_RATE, [((), state.rate)])
        for metric in catalogue.READINGS:
            yield _family(metric, [((reading.reason,), _read(metric, reading)) for reading in state.readings])

    def _workers(self) -> Iterator[Family]:
        settings, now = self._settings, time.monotonic()
        living = self._shared.living()
        workers = []
        for index, stats in living:
            shards = str(self._shared.resizes.shards(index) or settings.num_shards)
            workers.append(((str(index), shards, settings.shard_key, *stats.assignment), stats))
        for metric in catalogue.ROW:
            yield _family(metric, _samples(metric, workers))
        yield _family(
            catalogue.WORKER_UPTIME, [(labels, now - stats.started_at) for labels, stats in workers]
        )
        # One that has not taken its first sample yet has been silent since its start.
        silence = [(labels, now - (stats.sampled_at or stats.started_at)) for labels, stats in workers]
        yield _family(catalogue.WORKER_SILENCE, silence)
        feeds = [_details(self._shared.details(index)).get("feed", {}) for index, _ in living]
        modes = [feed.get("mode") == "jetstream" for feed in feeds]
        yield _family(catalogue.JETSTREAM, zip([labels for labels, _ in workers], modes, strict=True))
        yield _family(
            catalogue.WORKER_INFO, [((*labels, str(stats.ordinal)), 1) for labels, stats in workers]
        )

    def _shards(self) -> Iterator[Family]:
        shards: list[tuple[tuple[str, str], dict[str, Any], dict[str, float]]] = []
        for index, _ in self._shared.living():
            details = self._shared.details(index)
            counts = lock_counts(details)
            for at, shard in enumerate(_details(details).get("shards", [])):
                shards.append(((str(index), str(at)), shard, counts[at]))
        locked = [(labels, shard["lock"], counts) for labels, shard, counts in shards if shard["lock"]]
        for metric in catalogue.SHARD_GAUGES:
            yield _family(metric, [(labels, shard[metric.field]) for labels, shard, _ in shards])
        for metric in catalogue.LOCK_GAUGES:
            yield _family(metric, [(labels, lock[metric.field]) for labels, lock, _ in locked])
        for metric in catalogue.LOCK_COUNTERS:
            yield _family(metric, [(labels, counts[metric.field]) for labels, _, counts in locked])

    def _totals(self) -> Iterator[Family]:
        totals = self._shared.counters_by_assignment() or {Assignment(): Counters()}
        if len(totals) > 1:
            totals.pop(Assignment(), None)  # of a worker that is about to choose, and has counted nothing yet
        parts: Parts = [(tuple(assignment), sums) for assignment, sums in totals.items()]
        for metric in catalogue.TOTALS:
            yield _total(metric, parts)


def _family(metric: Metric, samples: Samples) -> Family:
    """A family of any kind but a histogram."""
    if isinstance(metric, Info):
        info = InfoMetricFamily(metric.name, metric.text)
        for values, _ in samples:
            info.add_metric((), dict(zip(metric.labels, values, strict=True)))
        return info
    kind = CounterMetricFamily if isinstance(metric, Counter) else GaugeMetricFamily
    family = kind(metric.name, metric.text, labels=metric.labels)
    for values, value in samples:
        family.add_metric(values, float(value))
    return family


def _total(metric: Metric, parts: Parts) -> Family:
    if isinstance(metric, Histogram):
        return _histogram(metric, parts)
    return _family(metric, _samples(metric, parts))


def _samples(metric: Metric, parts: Iterable[tuple[tuple[str, ...], object]]) -> Samples:
    """The values of a metric: of each part one, or one for each value of its own labels."""
    for labels, struct in parts:
        value = getattr(struct, metric.field)
        if metric.values:
            yield from (((*own, *labels), count) for own, count in zip(metric.elements, value, strict=True))
        else:
            yield labels, value


def _histogram(metric: Histogram, parts: Parts) -> HistogramMetricFamily:
    """The shared state counts each bucket by itself."""
    family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
    edges = [*map(number, metric.bounds), "+Inf"]
    for labels, sums in parts:
        buckets = list(zip(edges, accumulate(getattr(sums, metric.field)), strict=True))
        family.add_metric(labels, buckets, metric.sum_of(sums))
    return family


def _read(metric: Metric, reading: Reading) -> float:
    if metric.field:
        return float(getattr(reading, metric.field))
    return max(0.0, 1.0 - reading.value / reading.threshold)


def _details(published: object) -> dict[str, Any]:
    return published if isinstance(published, dict) else {}


def _descriptors_limit() -> float:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft
