"""Random histories against a plain-dict model, with walks left open in the middle of everything."""

from collections.abc import Callable, Generator
from typing import Any, ClassVar

import gevent
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from strategies import SHARD_KEYS, Moves, consistent_hash
from strategies.hashing import Ring
from tests.strategies.support import ARMS, Arm, Conn, Model, Walk, cooperative_locks, settle

BATCH_SIZE = 2
CONNS = st.integers(0, 7)
CHANNELS = st.sampled_from(["x", "y", "token.BTC"])


class Churn(RuleBasedStateMachine):
    """Each call runs in a greenlet of its own, so that it can wait for a lock while the history goes on."""

    arm: ClassVar[Arm]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(self.arm.make(BATCH_SIZE))
        # Two connections share each id, as a client that comes back before its old connection is cleaned up.
        self.conns = [Conn(f"conn-{number // 2}") for number in range(8)]
        self.calls: list[Any] = []
        self.walks: list[Walk] = []

    def settle(self) -> None:
        settle(len(self.calls) + len(self.walks))
        for greenlet in [*self.calls, *(walk.greenlet for walk in self.walks)]:
            if greenlet.ready():
                greenlet.get()
        self.calls = [greenlet for greenlet in self.calls if not greenlet.ready()]
        self.walks = [walk for walk in self.walks if not walk.greenlet.ready()]

    def call(self, operation: Callable[..., None], *args: object) -> None:
        self.calls.append(gevent.spawn(operation, *args))
        self.settle()

    @rule(number=CONNS)
    def add(self, number: int) -> None:
        conn = self.conns[number]
        # The owner waits for its own discard before it adds the connection again.
        if not self.model.leaving[conn]:
            self.call(self.model.add, conn)

    @rule(number=CONNS, channel=CHANNELS)
    def subscribe(self, number: int, channel: str) -> None:
        self.call(self.model.subscribe, self.conns[number], channel)

    @rule(channel=CHANNELS)
    def everybody_subscribes(self, channel: str) -> None:
        for conn in self.conns:
            if not self.model.leaving[conn]:
                self.call(self.model.add, conn)
            self.call(self.model.subscribe, conn, channel)

    @rule(number=CONNS, channel=CHANNELS)
    def unsubscribe(self, number: int, channel: str) -> None:
        self.call(self.model.unsubscribe, self.conns[number], channel)

    @rule(number=CONNS)
    def discard(self, number: int) -> None:
        self.call(self.model.discard, self.conns[number])

    @precondition(lambda self: len(self.walks) < 3)
    @rule(channel=CHANNELS)
    def start_walk(self, channel: str) -> None:
        walk = Walk(self.model, channel, BATCH_SIZE)
        self.walks.append(walk)
        walk.step()
        self.settle()

    @precondition(lambda self: self.walks)
    @rule(data=st.data())
    def step_walk(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.walks)).step()
        self.settle()

    @precondition(lambda self: self.walks)
    @rule(data=st.data())
    def stop_walk(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.walks)).stop()
        self.settle()

    @invariant()
    def nothing_waits_without_a_walk(self) -> None:
        """Only an open walk can keep a call waiting."""
        assert self.walks or not self.calls

    def finish(self) -> None:
        """Bring to an end what is left open besides calls and walks."""

    def teardown(self) -> None:
        for walk in self.walks:
            walk.stop()
        self.settle()
        assert not self.walks
        assert not self.calls
        self.finish()
        self.model.compare()
        for conn in self.conns:
            self.model.discard(conn)
        self.model.compare()
        for shard in self.model.strategy.shards():
            assert (shard.connections, shard.channels, shard.subscriptions) == (0, 0, 0)


@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_any_history_agrees_with_the_model(arm: Arm) -> None:
    """After any history, and during it, the strategy holds exactly what the model holds."""

    class ChurnOfArm(Churn):
        pass

    ChurnOfArm.arm = arm
    bounds = settings(max_examples=40, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(ChurnOfArm, settings=bounds)


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
            assert {locate(conn.id) for conn in held.members} <= {shard}
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
