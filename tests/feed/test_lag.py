"""`odinws.feed.nats`: how far the feed is behind, as its row shows it."""

from __future__ import annotations

import time

import pytest

from odinws.board.row import Row
from odinws.feed.nats import NatsFeed
from odinws.settings import Settings


def test_lag() -> None:
    """From NATS taking the latest message to its coming here; clocks that differ make it 0, not less."""
    feed = NatsFeed(Settings.from_environ({}), [], Row(), lambda _: None, lambda: 0)
    assert feed.lag_seconds() == 0.0
    feed.heard = time.monotonic() - 60
    feed.latest_ms = int((time.time() - 60.25) * 1000)
    assert feed.lag_seconds() == pytest.approx(0.25, abs=0.05)
    feed.latest_ms += 5000
    assert feed.lag_seconds() == 0.0
