"""All configurations of all strategies."""

from __future__ import annotations

import strategies
from odinws.conformance.model import (
    Arm,
    Conn,
    Model,
    Walk,
    Walker,
    arms,
    cooperative_locks,
    populate,
    settle,
    walked,
)

__all__ = [
    "ARMS",
    "Arm",
    "Conn",
    "Model",
    "Walk",
    "Walker",
    "cooperative_locks",
    "populate",
    "settle",
    "walked",
]

ARMS = [arm for name in strategies.NAMES for arm in arms(name)]
