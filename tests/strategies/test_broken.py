"""The conformance suite finds each broken strategy, and names the broken guarantee with a short history."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from odinws.conformance import Broken, check
from strategies import Strategy
from tests.strategies.broken import BROKEN

SECONDS = 250.0  # less than pytest allows a test


def findings(strategy: type[Strategy[Any]]) -> list[Broken]:
    """In a process of its own: where others live too, gevent can't tell who waits for ever."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(check, strategy, 100).result(SECONDS)


@pytest.mark.parametrize(
    ("strategy", "promise"), BROKEN.items(), ids=lambda one: getattr(one, "__name__", "")
)
def test_it_is_found_and_named(strategy: type[Strategy[Any]], promise: str) -> None:
    """By a random history, whose steps are few."""
    found = [
        broken
        for broken in findings(strategy)
        if promise in (broken.promise, broken.problem.partition(": ")[0])
    ]
    assert found
    assert all(1 <= len(broken.history) <= 30 and "\n" not in broken.problem for broken in found)
