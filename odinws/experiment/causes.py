"""Why connections of a trial failed, and what to change. Pure.

A swarm counts the errors of connections by their text; docs/swarm.md lists the texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

_MOST = 3  # causes that a sentence names
_SLOWER = "lower load.ramp"
_ADVICE = (
    (
        r"refused with 503 \(overload\)|no answer|no connection|not subscribed|ended while|reset while",
        _SLOWER,
    ),
    (r"refused with 503 \(capacity\)", "raise WS_MAX_CONNECTIONS in the settings of the arm"),
    (
        r"refused with 503 \((cpu|memory|greenlets|hub_lag)\)",
        "lower load.connections or load.ramp, or let the guard refuse nobody: WS_ADMISSION_DRY_RUN = true",
    ),
    (r"refused with 429", "lower load.ramp, or raise WS_UPGRADE_RATE in the settings of the arm"),
    (r"refused with 40[13]", "the swarm has no token and no origin: take their settings out of the arm"),
    (r"rejected", "the swarm subscribes to token.*: allow it in the settings of the arm"),
)
_OTHERWISE = "see the logs of this trial"


def in_words(errors: Mapping[str, int]) -> str:
    """The most frequent causes: `1,895 times refused with 503 (overload), 12 times reset while upgrading`."""
    most = Counter(errors).most_common(_MOST)
    return ", ".join(f"{f'{times:,} times' if times > 1 else 'once'} {cause}" for cause, times in most)


def advice(errors: Mapping[str, int]) -> str:
    """What to change so that the most frequent cause goes away."""
    cause = max(errors, key=lambda cause: errors[cause], default="")
    return next((text for pattern, text in _ADVICE if re.match(pattern, cause)), _OTHERWISE)


def summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The errors of several trials together."""
    return dict(sum((Counter(part) for part in parts), Counter()))
