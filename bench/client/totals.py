"""Adding up what several client processes say. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bench.client.histogram import Histogram

_SUMS = (
    *("open", "ready", "failed", "closed", "stalled_closed"),
    *("delivered", "stalled_delivered", "bytes", "frames", "control", "gap_notices", "pings", "churned"),
    *("tail_missing", "stalled_tail_missing", "after_close", "due", "unequal", "stalled_unequal", "joined"),
)


def add_up(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One event of several: counts added, histograms summarised, of what has a worst the worst."""
    whole: dict[str, Any] = {
        name: sum(event[name] for event in events) for name in _SUMS if name in events[0]
    }
    for name in ("tally", "stalled_tally", "closes", "refused"):
        if name in events[0]:
            sums: Counter[str] = Counter()
            for event in events:
                sums.update(event[name])
            whole[name] = dict(sums)
    for name in ("latency", "subscribe"):
        if name in events[0]:
            whole[name] = Histogram.merged(event[name] for event in events).summary()
    whole["seconds"] = max(event["seconds"] for event in events)
    if "window_seconds" in events[0]:
        whole["window_seconds"] = max(event["window_seconds"] for event in events)
        whole["join_seconds"] = max(event["join_seconds"] for event in events)
        whole["longest_pass"] = max(event["longest_pass"] for event in events)
        loads = [(event["cpu_user"] + event["cpu_system"]) / event["window_seconds"] for event in events]
        whole["busiest_core_share"] = max(loads)
        whole["cpu_seconds"] = sum(event["cpu_user"] + event["cpu_system"] for event in events)
    return whole
