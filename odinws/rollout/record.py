"""What a watch did: as JSON for programs, as Markdown for people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from odinws.rollout.comparison import GUARDRAILS, Window, values


@dataclass
class Step:
    """One share.

    Attributes:
        percent: what was set.
        workers: how many workers that means, by server.
        outcome: skipped, good, worse, waiting, interrupted, failed; "": under way.
        text: why.
        rolled_seconds: until the workers had it.
        windows: measures of both groups, and why a window did not count.
    """

    percent: int
    workers: dict[str, int]
    outcome: str = ""
    text: str = ""
    rolled_seconds: float | None = None
    windows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, window: Window) -> None:
        """Note a window."""
        self.windows.append(
            {
                "counts": not window.few,
                "why_not": window.few,
                "variant": values(window.variant),
                "others": values(window.others),
                "connections": [window.variant.connections, window.others.connections],
                "delivered": [window.variant.delivered, window.others.delivered],
            }
        )


@dataclass
class Record:
    """A whole watch.

    Attributes:
        verdict: done, set back, waiting, interrupted, changed, failed; "": under way.
        reason: of the verdict, in one line.
        percent: the share at its end.
    """

    file: str
    variant: str
    urls: list[str]
    began: str
    began_percent: float
    seconds: float = 0.0
    verdict: str = ""
    reason: str = ""
    percent: float = 0.0
    steps: list[Step] = field(default_factory=list)

    def save(self, directory: Path) -> None:
        """Write `result.json` and `report.md`; may be called at any time."""
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (directory / "result.json").write_text(text + "\n", encoding="utf-8")
        (directory / "report.md").write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """The answer first, then each step."""
        verdict = self.verdict or "under way"
        lines = [
            f"# {self.variant}: {verdict}",
            "",
            f"{self.reason or 'It has not ended.'} The flag stands at {self.percent:g} %.",
            "",
            f"Flag file `{self.file}`, servers {', '.join(self.urls)}; began {self.began} at "
            f"{self.began_percent:g} %, took {self.seconds:.0f} s.",
            "",
            "| share | workers | outcome | why |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {step.percent} % | {sum(step.workers.values())} | {step.outcome} | {step.text} |"
            for step in self.steps
        ]
        for step in self.steps:
            if step.windows:
                lines += ["", f"## {step.percent} %", "", *_table(step)]
        lines += ["", "Each value: with the variant / without it.", ""]
        return "\n".join(lines)


def _table(step: Step) -> list[str]:
    names = [guardrail.name for guardrail in GUARDRAILS]
    rows = [f"| window | {' | '.join(names)} | note |", "|---" * (len(names) + 2) + "|"]
    for number, window in enumerate(step.windows, 1):
        cells = [f"{_figure(window['variant'][name])} / {_figure(window['others'][name])}" for name in names]
        rows.append(f"| {number} | {' | '.join(cells)} | {window['why_not']} |")
    return rows


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
