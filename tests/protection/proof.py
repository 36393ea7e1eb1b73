"""What a proof found, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from rich.console import Console
from rich.table import Table


class Plan(NamedTuple):
    """How large a proof is.

    Attributes:
        connections: of the crowd; of the attackers in `slowloris`.
        seconds: of what each proof is about: the hog, the drain, the attack.
        seed: of all that is drawn here; what the server draws is another matter.
    """

    connections: int
    seconds: float
    seed: int

    @property
    def is_reduced(self) -> bool:
        """The suite runs it, beside other work: what takes time may take more of it."""
        return self.connections < 1000


class Check(NamedTuple):
    """One thing that must hold."""

    what: str
    found: str
    holds: bool


@dataclass
class Proof:
    """Facts that were measured, and checks that hold or not."""

    title: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def fact(self, name: str, value: object) -> None:
        """Note what was measured."""
        self.facts.append((name, _words(value)))

    def check(self, what: str, holds: bool, found: object) -> None:
        """Note whether something holds, and by what."""
        self.checks.append(Check(what, _words(found), holds))

    @property
    def broken(self) -> list[Check]:
        """The checks that do not hold."""
        return [check for check in self.checks if not check.holds]

    def show(self) -> None:
        """Print it."""
        console = Console(soft_wrap=True)
        facts = Table("measured", "value", title=self.title, title_justify="left")
        for name, value in self.facts:
            facts.add_row(name, value)
        checks = Table("must hold", "found", "")
        for check in self.checks:
            checks.add_row(check.what, check.found, "ok" if check.holds else "BROKEN")
        console.print(facts, checks)


def _words(value: object) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
