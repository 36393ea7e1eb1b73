"""The conformance suite finds each broken strategy, and names the broken guarantee with a short history."""

from __future__ import annotations

from typing import Any

import pytest

from odinws.conformance import check
from strategies import Strategy
from tests.strategies.broken import BROKEN


@pytest.mark.parametrize(
    ("strategy", "promise"), BROKEN.items(), ids=lambda one: getattr(one, "__name__", "")
)
def test_it_is_found_and_named(strategy: type[Strategy[Any]], promise: str) -> None:
    """By a random history, whose steps are few."""
    found = [
        broken
        for broken in check(strategy, 100)
        if promise in (broken.promise, broken.problem.partition(": ")[0])
    ]
    assert found
    assert all(1 <= len(broken.history) <= 30 and "\n" not in broken.problem for broken in found)
