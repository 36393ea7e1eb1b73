"""Figures in words. Pure."""

from __future__ import annotations


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
