"""The strategy of one worker: chosen once, when it starts."""

from __future__ import annotations

from odinws.choice import DEFAULT_STRATEGY, Choice
from odinws.settings import Settings


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


def chooser(settings: Settings, place: int) -> Chooser:
    """Choose for a worker: WS_SHARD_STRATEGY, else the flag in WS_FLAGS_FILE, else the default strategy.

    Args:
        place: of the worker, see `board`.
    """
    if settings.strategy:
        return Chooser(Choice(settings.strategy, settings.strategy, "explicit"))
    if not settings.flags_file:
        return Chooser(Choice(DEFAULT_STRATEGY, DEFAULT_STRATEGY, "default"))
    from odinws.rollout.flagged import FlagChooser  # 4 MB and 0.1 s that only those pay who use it

    return FlagChooser(settings.flags_file, settings.environment, place, settings.workers)
