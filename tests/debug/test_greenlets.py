"""`odinws.debug.greenlets`: who waits where."""

from __future__ import annotations

import gc

import gevent
from gevent.event import Event

from odinws.debug import greenlets


def wait_here(event: Event) -> None:
    """Wait for something that comes later."""
    event.wait()


def test_greenlets_are_counted_by_place() -> None:
    """Those that stand at one place count together, also those from before a freeze of the collector."""
    event = Event()
    early = [gevent.spawn(wait_here, event) for _ in range(2)]
    gevent.sleep(0)
    greenlets.remember()
    gc.freeze()
    try:
        late = gevent.spawn(wait_here, event)
        gevent.sleep(0)
        seen = greenlets.count(50)
        (place,) = [found for found in seen["places"] if found["place"].endswith(" wait_here")]
        assert place["count"] == 3
        assert place["place"].startswith("tests/debug/test_greenlets.py:")
        (found,) = [found for found in seen["stacks"] if place["place"] in found["stack"]]
        assert found["count"] == 3
        assert seen["greenlets"] >= 4
    finally:
        gc.unfreeze()
        event.set()
        gevent.joinall([*early, late])
    assert not [found for found in greenlets.count(500)["places"] if found["place"].endswith(" wait_here")]
