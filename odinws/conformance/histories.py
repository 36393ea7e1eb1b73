"""Random histories against a plain-dict model, with walks left open in the middle of everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import gevent
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from odinws.conformance.model import EMPTY, WAITS, Arm, Conn, Model, Walk, settle

BATCH_SIZE = 2
CONNS = st.integers(0, 7)
CHANNELS = st.sampled_from(["x", "token.*", "token.BTC"])


class Churn(RuleBasedStateMachine):
    """Each call runs in a greenlet of its own, so that it can wait for a lock while the history goes on."""

    arm: ClassVar[Arm]
    history: ClassVar[list[str]]
    """The latest; after a failure hypothesis ends with the shortest that it found."""

    def __init__(self) -> None:
        super().__init__()
        type(self).history = []
        self.model = Model(self.arm.make(BATCH_SIZE))
        # Two connections share each id, as a client that comes back before its old connection is cleaned up.
        self.conns = [Conn(f"conn-{number // 2}", "ab"[number % 2]) for number in range(8)]
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
        words = ", ".join(map(repr, args))
        self.history.append(f"{operation.__name__}({words})")
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
    @rule(channel=CHANNELS | st.none())
    def start_walk(self, channel: str | None) -> None:
        walk = Walk(self.model, channel, BATCH_SIZE)
        self.history.append(f"walk of {walk}: first batch")
        self.walks.append(walk)
        walk.step()
        self.settle()

    @precondition(lambda self: self.walks)
    @rule(data=st.data())
    def step_walk(self, data: st.DataObject) -> None:
        walk = data.draw(st.sampled_from(self.walks))
        self.history.append(f"walk of {walk}: next batch")
        walk.step()
        self.settle()

    @precondition(lambda self: self.walks)
    @rule(data=st.data())
    def stop_walk(self, data: st.DataObject) -> None:
        walk = data.draw(st.sampled_from(self.walks))
        self.history.append(f"walk of {walk}: closed")
        walk.stop()
        self.settle()

    @invariant()
    def nothing_waits_without_a_walk(self) -> None:
        """Only an open walk can keep a call waiting."""
        assert self.walks or not self.calls, WAITS

    def finish(self) -> None:
        """Bring to an end what is left open besides calls and walks."""

    def teardown(self) -> None:
        for walk in self.walks:
            walk.stop()
        self.history.append("all walks are closed")
        self.settle()
        assert not self.walks, WAITS
        assert not self.calls, WAITS
        self.finish()
        self.model.compare()
        for conn in self.conns:
            self.history.append(f"discard({conn})")
            self.model.discard(conn)
        self.model.compare()
        for shard in self.model.strategy.shards():
            assert (shard.connections, shard.channels, shard.subscriptions) == (0, 0, 0), f"{EMPTY}: {shard}"


def run(arm: Arm, examples: int = 40, steps: int = 40) -> None:
    """Play random histories.

    Raises:
        BaseException: as a promise was broken; `history` among its attributes is the shortest way there.
    """
    machine = type("ChurnOfArm", (Churn,), {"arm": arm, "history": []})
    bounds = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=True,  # the same strategy gets the same verdict
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(machine, settings=bounds)
    except BaseException as error:  # whatever the strategy raised: its history belongs to it
        error.history = list(machine.history)  # type: ignore[attr-defined]
        raise
