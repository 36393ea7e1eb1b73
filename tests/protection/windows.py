"""Figures of points in time. Pure; times are in seconds, in any order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence


def most_within(times: Iterable[float], seconds: float) -> int:
    """The most that lie in any stretch of so many seconds, its end not included."""
    ordered = sorted(times)
    return max((bisect_left(ordered, at + seconds) - index for index, at in enumerate(ordered)), default=0)


def longest_refusal(admitted: Iterable[float], refused: Iterable[float]) -> float:
    """The longest stretch of refusals with no admission between, from the first to the last of them."""
    longest, since = 0.0, None
    for at, enters in sorted([(at, True) for at in admitted] + [(at, False) for at in refused]):
        if enters:
            since = None
        elif since is None:
            since = at
        else:
            longest = max(longest, at - since)
    return longest


def share(values: Sequence[float], quantile: float) -> float:
    """The least value that `quantile` of all do not exceed; 0.0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] if ordered else 0.0
