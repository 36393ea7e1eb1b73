"""The board: what all processes of a server know of each other, in shared memory."""

from odinws.board.memory import CHOICES, SLOTS, Board

__all__ = ["CHOICES", "SLOTS", "Board"]
