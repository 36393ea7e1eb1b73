"""The strategy of one worker: chosen once, when it starts."""

from __future__ import annotations

from odinws.choice import Choice


class Chooser:
    """A choice that never changes.

    Attributes:
        choice: what the worker runs, for its whole life.
        problem: why the file of flags can't be used now; "": it can, or there is none.
    """

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.problem = ""

    def outdated(self) -> str:
        """Why the worker is to be replaced now; "": it is not."""
        return ""
