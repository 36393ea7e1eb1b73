"""Which greenlets there are and where each waits: what a goroutine profile is elsewhere."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from typing import Any

import gevent
from greenlet import greenlet

from odinws.debug.locations import stack
from odinws.scheduling import Slice

_BATCH = 512
# `issubclass(type(one), greenlet)` and not `isinstance`: that asks a proxy for what it stands for.
# The collector does not name what was frozen, so those from before are kept in mind.
_early: weakref.WeakSet[Any] = weakref.WeakSet()


def remember() -> None:
    """Keep in mind the greenlets there are; to be called before `gc.freeze`."""
    for found in gc.get_objects():
        if issubclass(type(found), greenlet):
            _early.add(found)


def count(limit: int) -> dict[str, Any]:
    """Greenlets by their stacks, the most frequent first.

    Args:
        limit: how many different stacks.
    """
    current = gevent.getcurrent()
    stacks: Counter[tuple[str, ...]] = Counter()
    total = 0
    for found in _all():
        if found.dead:
            continue
        total += 1
        if found is current:
            stacks[("this look",)] += 1
        elif found.gr_frame is None:
            stacks[("not started",)] += 1
        else:
            stacks[tuple(stack(found.gr_frame))] += 1
    places: Counter[str] = Counter()
    for places_of, number in stacks.items():
        places[_own(places_of)] += number
    return {
        "greenlets": total,
        "places": [{"place": name, "count": number} for name, number in places.most_common(limit)],
        "stacks": [
            {"count": number, "stack": list(places_of)} for places_of, number in stacks.most_common(limit)
        ],
    }


def _own(places: tuple[str, ...]) -> str:
    """The innermost place that is not gevent's own: who waits, not by what means."""
    outer = [found for found in places if not found.startswith(("gevent/", "src/gevent/"))]
    return (outer or list(places))[-1]


def _all() -> list[Any]:
    found = {id(one): one for one in list(_early)}
    breath = Slice()
    objects = gc.get_objects()
    for start in range(0, len(objects), _BATCH):
        for one in objects[start : start + _BATCH]:
            if issubclass(type(one), greenlet):
                found[id(one)] = one
        breath.yield_if_over()
    return list(found.values())
