"""Which strategy a worker is assigned, and why. Pure."""

from __future__ import annotations

import ctypes
from typing import Annotated, NamedTuple

DEFAULT_STRATEGY = "sync-dict"
REASONS = ("explicit", "default", "static", "targeting_match", "disabled", "error")


class Assignment(NamedTuple):
    """The assignment of one worker.

    Attributes:
        strategy: its name, see `strategies.check_name`.
        variant: the flag's variant that selects it; without a flag, the name of the strategy.
        reason: one of `REASONS`: explicit (WS_SHARD_STRATEGY), default (nothing is configured, or the flag's
            targeting has no match), static, targeting_match, disabled (all three by the flag), error (the
            flag is unusable).
    """

    strategy: str = ""
    variant: str = ""
    reason: str = ""

    def labels(self) -> dict[str, str]:
        """Labels for metrics and fields for logs; empty values are left out."""
        named = {"strategy": self.strategy, "variant": self.variant, "strategy_reason": self.reason}
        return {name: value for name, value in named.items() if value}


class Assigner:
    """The assignment of one worker, made when it starts; this one never changes.

    Attributes:
        assignment: what the worker runs, for its whole life.
        problem: why the file of flags can't be used now; "": it can, or there is none.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.problem = ""

    def outdated(self) -> str:
        """Why the worker is to be replaced now; "": it is not."""
        return ""


class Assigned(ctypes.Structure):
    """A structure with an assignment, for the shared state. The worker writes it once, before its pid."""

    strategy: Annotated[bytes, ctypes.c_char * 96]
    variant: Annotated[bytes, ctypes.c_char * 64]
    reason: Annotated[bytes, ctypes.c_char * 32]

    @property
    def assignment(self) -> Assignment:
        """The assignment; texts are truncated to the size of their fields."""
        # A truncated text may end within a character.
        return Assignment(
            *(text.decode(errors="replace") for text in (self.strategy, self.variant, self.reason))
        )

    @assignment.setter
    def assignment(self, assignment: Assignment) -> None:
        for name, text in assignment._asdict().items():
            setattr(self, name, text.encode()[: getattr(type(self), name).size])
