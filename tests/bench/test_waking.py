"""`bench.waking`: a real feed gets what a real publisher sends, and its CPU time is told."""

from __future__ import annotations

import re

from bench import waking


def test_a_trial() -> None:
    """Every message came, in one feed and in two; without messages only the share of a core is told."""
    cost = r" +[0-9.]+ µs/message, nats-server +[0-9.]+,"
    share = r" a feed uses +[0-9.]+% of a core, nats-server +[0-9.]+%"
    for workers, rate in ((1, 100.0), (2, 0.0)):
        line = waking.trial(waking.HERE, workers, rate, 5, 0.2)
        assert re.fullmatch(
            rf".+ {workers} feeds +{rate:g}/s in bursts of  5:{cost * bool(rate)}{share}", line
        )
