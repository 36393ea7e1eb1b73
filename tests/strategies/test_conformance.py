"""Every strategy keeps every guarantee, in every configuration."""

from __future__ import annotations

import pytest

from odinws.conformance import StrategyConformance
from odinws.conformance.promises import PROMISES, Promise
from strategies.sync_dict import SyncDict
from tests.strategies.support import ARMS, Arm


@pytest.mark.parametrize("arm", ARMS, ids=str)
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_every_promise_is_kept(promise: Promise, arm: Arm) -> None:
    """The random histories are in `test_churn`."""
    promise(arm)


class TestMine(StrategyConformance):
    """As somebody would test a strategy of their own."""

    strategy = SyncDict


def test_the_class_has_a_test_for_each_promise() -> None:
    """And one for the histories."""
    tests = {name for name in dir(TestMine) if name.startswith("test_")}
    assert tests == {f"test_{promise.__name__}" for promise in PROMISES} | {
        "test_any_history_agrees_with_the_model"
    }
