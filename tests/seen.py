"""What a guard makes of a board at its first look."""

from __future__ import annotations

from odinws.admission import load
from odinws.admission.decision import limits
from odinws.admission.guard import Guard, State
from odinws.board import Board
from odinws.settings import Settings


def seen(board: Board, settings: Settings) -> State:
    """The state that health, metrics and admission would share."""
    return Guard(limits(settings)).observe(load.measure(board, settings), 0.0)
