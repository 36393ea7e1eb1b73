"""Random histories against a plain-dict model, with walks left open in the middle of everything."""

from collections.abc import Generator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    precondition,
    rule,
    run_state_machine_as_test,
)

from odinws.conformance import histories
from odinws.conformance.histories import Churn
from strategies import SHARD_KEYS, Moves, consistent_hash
from strategies.hashing import Ring
from tests.strategies.support import ARMS, Arm, cooperative_locks


@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_any_history_agrees_with_the_model(arm: Arm) -> None:
    """After any history, and during it, the strategy holds exactly what the model holds."""

    histories.run(arm)


class ResizedChurn(Churn):
    """The same, while the number of shards changes in steps at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.resizes: list[Generator[Moves, None, None]] = []

    def step(self, resize: Generator[Moves, None, None]) -> None:
        """Take one step of a resize that may have ended."""
        with cooperative_locks():  # of the shards that come
            moves = next(resize, None)
        assert moves in (None, Moves()) or not self.model.walks, "keys move under an open walk"
        if moves is None:
            self.resizes.remove(resize)

    @precondition(lambda self: len(self.resizes) < 2)
    @rule(shards=st.sampled_from([1, 2, 3, 5, 8, 24]))
    def start_resize(self, shards: int) -> None:
        self.resizes.append(self.model.strategy.resize(shards))
        self.step(self.resizes[-1])
        self.settle()

    @precondition(lambda self: self.resizes)
    @rule(data=st.data())
    def step_resize(self, data: st.DataObject) -> None:
        self.step(data.draw(st.sampled_from(self.resizes)))
        self.settle()

    @precondition(lambda self: self.resizes)
    @rule(data=st.data())
    def give_resize_up(self, data: st.DataObject) -> None:
        resize = data.draw(st.sampled_from(self.resizes))
        resize.close()
        self.resizes.remove(resize)

    def finish(self) -> None:
        for _ in self.model.strategy.resize(4):
            pass
        assert self.model.strategy.shard_count == len(self.model.strategy.shards()) == 4
        locate = Ring.of(4).locate
        for shard, held in enumerate(self.model.strategy._shards):  # type: ignore[attr-defined]
            assert {locate(conn.id) for conn in held.members.conns} <= {shard}
            if self.arm.shard_key == "channel":
                assert {locate(channel) for channel in held.channels} <= {shard}


@pytest.mark.parametrize("shard_key", SHARD_KEYS)
def test_any_history_with_resizes_agrees_with_the_model(
    shard_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is walked, waited for or left when keys move, and wherever a resize stops."""

    class ChurnOfArm(ResizedChurn):
        pass

    monkeypatch.setattr(consistent_hash, "_STEP", 2)  # so that there are many moments between two steps
    ChurnOfArm.arm = Arm("consistent-hash", 3, shard_key)
    bounds = settings(max_examples=40, stateful_step_count=60, deadline=None)
    run_state_machine_as_test(ChurnOfArm, settings=bounds)
