"""What a guard makes of a board at its first look."""

from __future__ import annotations

from odinws import load
from odinws.admission import limits
from odinws.board import Board
from odinws.guard import Guard, State
from odinws.settings import Settings


def seen(board: Board, settings: Settings) -> State:
    """The state that health, metrics and admission would share."""
    return Guard(limits(settings)).observe(load.measure(board, settings), 0.0)
