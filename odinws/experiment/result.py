"""The answer of an experiment as values, as `result.json`, and its figures in words. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct, field

FILE = "result.json"


class Verdict(StrEnum):
    """What is said about a measure, an arm, or the whole."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference shown"
    UNSTABLE = "unstable"
    FAILED = "failed"


class Row(Struct, frozen=True, kw_only=True):
    """One measure of one arm, set against the baseline. Without a test there are no shift, p and effect."""

    measure: str
    arm: str
    baseline: str
    unit: str  # of the two values, medians over the trials
    value: float
    baseline_value: float
    shift: float | None = None  # relative, Hodges and Lehmann's: 0.1 stands for 10 % more than the baseline
    interval: tuple[float, float] | None = None  # of the shift, with 95 % confidence if `n` allows it
    p: float | None = None  # the chance of such a difference without a cause, over the whole table
    p_alone: float | None = None  # the same for this row alone
    # How clearly all samples point one way, from -1 to 1: matched-pairs rank-biserial correlation; Cliff's
    # delta without pairs.
    effect: float | None = None
    minimum: float  # the smallest relative difference that matters
    verdict: Verdict
    n: int  # pairs; without pairs, the samples of the smaller side
    why: str


class ArmVerdict(Struct, frozen=True):
    """One arm, set against the baseline."""

    arm: str
    verdict: Verdict
    why: str


class Check(Struct, frozen=True):
    """A reason to believe an answer less."""

    severity: Literal["error", "warning", "note"]  # takes the answer away, weakens it, says how to read it
    text: str
    what_to_do: str = ""


class Errors(Struct, frozen=True):
    """Why connections of a trial failed or ended: how often, by cause, the most frequent first."""

    arm: str
    round: int
    counts: dict[str, int]


class Result(Struct, frozen=True, kw_only=True):
    """What comes of an experiment."""

    verdict: Verdict  # of the arm that the answer speaks of first
    answer: str  # one sentence
    status: Literal["complete", "partial"]  # whether all was done that was planned
    name: str
    question: str
    baseline: str
    primary: str
    arms: list[ArmVerdict] = field(default_factory=list)
    measures: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    errors: list[Errors] = field(default_factory=list)  # of the trials that have any

    @property
    def exit_status(self) -> int:
        """For pipelines: 0 better or no difference shown, 1 worse or unstable, 3 failed or partial."""
        if self.verdict is Verdict.FAILED or self.status == "partial":
            return 3
        return 1 if self.verdict in (Verdict.WORSE, Verdict.UNSTABLE) else 0


def figure(value: float, unit: str = "") -> str:
    """A value with three digits that count: `0.0123`, `4.57 ms`, `12,300`."""
    if value and abs(value) < 999.5:
        text = f"{value:.3g}"
        text = f"{value:.6f}".rstrip("0") if "e" in text else text
    else:
        text = f"{value:,.0f}"
    return f"{text} {unit}".rstrip()


def percent(share: float, *, signed: bool = True) -> str:
    """A relative shift, `+12 %`, or a share, `0.4 %`."""
    hundredths = 100 * share
    digits = 0 if abs(hundredths) >= 10 else 1
    return f"{hundredths:{'+' if signed else ''},.{digits}f} %"


def chance(p: float) -> str:
    """A p: `p = 0.031`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
