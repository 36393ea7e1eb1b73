"""What a guard makes of a shared state at its first look."""

from __future__ import annotations

from odinws.admission import load
from odinws.admission.decision import limits
from odinws.admission.guard import Guard, State
from odinws.settings import Settings
from odinws.shared import SharedState


def seen(shared: SharedState, settings: Settings) -> State:
    """The state that health, metrics and admission would share."""
    return Guard(limits(settings)).observe(load.measure(shared, settings), 0.0)
