"""What odinws says of itself at `/metrics`: how long its loop stood still, how late it was, what it took."""

from __future__ import annotations

import http.client
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

ANSWER_SECONDS = 20.0

_HISTOGRAMS = {"lag": "ws_delivery_lag_seconds_bucket", "stall": "ws_hub_stall_seconds_bucket"}
_LONGEST = "ws_hub_stall_longest_seconds"
_COUNTERS = {
    "feed_messages": "ws_feed_messages_total",
    "feed_overflow": "ws_feed_overflow_total",
    "feed_gaps": "ws_feed_gaps_total",
    "shed": "ws_messages_shed_total",
}

Buckets = Mapping[float, float]
"""Observations up to each bound, in seconds; the last bound is infinity."""


@dataclass(frozen=True)
class Scrape:
    """The totals of a server at one instant."""

    lag: Buckets
    """From NATS taking a message to the kernel taking it."""
    stall: Buckets
    """Turns of the event loop."""
    longest_stall_seconds: float
    """Since the server began."""
    counters: Mapping[str, int]


def read(text: str) -> Scrape:
    """Read the exposition format. What is not in it is empty or 0."""
    histograms: dict[str, dict[float, float]] = {name: {} for name in _HISTOGRAMS.values()}
    counters = dict.fromkeys(_COUNTERS.values(), 0)
    longest = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in histograms:
                buckets, bound = histograms[sample.name], float(sample.labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + sample.value  # over all strategies
            elif sample.name in counters:
                counters[sample.name] += int(sample.value)
            elif sample.name == _LONGEST:
                longest = max(longest, sample.value)
    return Scrape(
        lag=histograms[_HISTOGRAMS["lag"]],
        stall=histograms[_HISTOGRAMS["stall"]],
        longest_stall_seconds=longest,
        counters={name: counters[metric] for name, metric in _COUNTERS.items()},
    )


def fetch(port: int, path: str) -> Scrape:
    """Ask a server. Raises OSError when it does not answer, or not with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode()
    except http.client.HTTPException as error:
        raise OSError(f"{path}: {error!r}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(f"{path}: HTTP status {response.status}")
    return read(text)


def within(before: Buckets, after: Buckets) -> dict[float, float]:
    """What was observed between two instants."""
    return {bound: count - before.get(bound, 0.0) for bound, count in after.items()}


def bound_ms(buckets: Buckets, share: float) -> float | None:
    """The bound of the bucket that has the given share: the truth is not above it, by up to a bucket's width.

    None without observations; infinity above the last bound.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    return 1000 * next(bound for bound in bounds if buckets[bound] >= share * buckets[bounds[-1]])


def figures(before: Scrape | None, after: Scrape | None) -> dict[str, Any]:
    """The figures of a window; all None when the server does not tell."""
    names = ("lag_p99_ms", "stall_p99_ms", "stall_p999_ms", "stall_longest_ms", *_COUNTERS)
    if before is None or after is None:
        return dict.fromkeys(names)
    stall = within(before.stall, after.stall)
    longest = bound_ms(stall, 1.0)
    if after.longest_stall_seconds > before.longest_stall_seconds:
        longest = 1000 * after.longest_stall_seconds  # a record of this window, so it is known exactly
    values = (
        bound_ms(within(before.lag, after.lag), 0.99),
        bound_ms(stall, 0.99),
        bound_ms(stall, 0.999),
        None if longest is None or math.isinf(longest) else longest,
        *(after.counters[name] - before.counters[name] for name in _COUNTERS),
    )
    return dict(zip(names, values, strict=True))
