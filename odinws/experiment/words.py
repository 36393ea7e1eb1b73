"""Figures and answers in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from odinws.experiment.measures import MEASURES
from odinws.experiment.result import ArmVerdict, Row, Verdict

_SPOKEN_OF_FIRST = {Verdict.FAILED: 0, Verdict.BETTER: 1, Verdict.WORSE: 2, Verdict.UNSTABLE: 3}


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


def difference(row: Row) -> str:
    """A row as a part of a sentence: `CPU per delivered message +12 % (+9.1 % to +14 %, p = 0.031)`."""
    title = MEASURES[row.measure].title
    if row.shift is None or row.interval is None or row.p is None:
        return f"{title} {figure(row.value, row.unit)}, {row.baseline} {figure(row.baseline_value, row.unit)}"
    low, high = row.interval
    return f"{title} {percent(row.shift)} ({percent(low)} to {percent(high)}, {chance(row.p)})"


def about_arm(verdict: Verdict, rows: Sequence[Row], primary: Row | None) -> str:
    """Why an arm got its verdict.

    Args:
        rows: those that gave it, the clearest first; none for no difference.
        primary: the row of the measure that the plan asks for.
    """
    if verdict in (Verdict.FAILED, Verdict.BETTER, Verdict.WORSE):
        return "; ".join(difference(row) for row in rows)
    if primary is None:
        return "the measure asked for has no values"
    if verdict is Verdict.UNSTABLE:
        return f"{difference(primary)}: {primary.why}"
    return f"{difference(primary)}, and {percent(primary.minimum, signed=False)} would matter"


def answer(arms: Sequence[ArmVerdict], baseline: str) -> tuple[Verdict, str]:
    """The verdict about the whole, and its sentence.

    With several arms it is that of the one that failed, else of the best of those that are better, else of
    one that is worse, else of one that is unstable. `arms` has the best one first.
    """
    first = min(arms, key=lambda arm: _SPOKEN_OF_FIRST.get(arm.verdict, len(_SPOKEN_OF_FIRST)))
    sentence = {
        Verdict.BETTER: f"{first.arm} is better than {baseline}: {first.why}",
        Verdict.WORSE: f"{first.arm} is worse than {baseline}: {first.why}",
        Verdict.NO_DIFFERENCE: f"No difference between {first.arm} and {baseline} was shown: {first.why}",
        Verdict.UNSTABLE: f"Nothing can be said of {first.arm} and {baseline}: {first.why}",
        Verdict.FAILED: f"{first.arm} failed: {first.why}",
    }[first.verdict]
    others = ", ".join(f"{arm.arm} {arm.verdict}" for arm in arms if arm is not first)
    return first.verdict, f"{sentence}{f' (the others: {others})' if others else ''}."
