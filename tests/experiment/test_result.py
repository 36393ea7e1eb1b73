"""Figures in result."""

from __future__ import annotations

import pytest

from odinws.experiment import result


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.0, "ms", "0 ms"),
        (4.5678, "ms", "4.57 ms"),
        (0.01234, "", "0.0123"),
        (999.6, "KB", "1,000 KB"),
        (12345.6, "", "12,346"),
        (0.00001, "s", "0.00001 s"),
        (-2.5, "", "-2.5"),
        (100.0, "%", "100 %"),
    ],
)
def test_figure(value: float, unit: str, expected: str) -> None:
    """Three digits that count, never an exponent."""
    assert result.figure(value, unit) == expected


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.123, "+12 %"), (-0.0042, "-0.4 %"), (0.0, "+0.0 %"), (12.345, "+1,234 %")],
)
def test_percent(share: float, expected: str) -> None:
    """With a sign; tenths where they count."""
    assert result.percent(share) == expected
    assert result.percent(share, signed=False) == expected.removeprefix("+")


def test_chance() -> None:
    """No more digits than it is worth."""
    assert [result.chance(p) for p in (2 / 64, 1.0, 0.0002)] == ["p = 0.031", "p = 1", "p < 0.001"]
