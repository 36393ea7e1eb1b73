"""What a run found, as a table and as checks."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass
class Proof:
    """Facts to read, and what does not hold."""

    name: str
    facts: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def check(self, holds: bool, text: str) -> None:
        """Note what must hold."""
        if not holds:
            self.broken.append(text)

    def show(self, console: Console) -> None:
        """Print all of it."""
        table = Table(title=self.name, show_header=False)
        for name, value in self.facts.items():
            table.add_row(name, value)
        console.print(table)
        for text in self.broken:
            console.print(f"does not hold: {text}", style="red", highlight=False)
        if not self.broken:
            console.print("all holds", style="green")
