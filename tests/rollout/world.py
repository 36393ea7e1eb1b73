"""A fleet that is not there: it follows the file, in a time of its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from odinws.close_codes import REFUSALS, CloseReason
from odinws.rollout import flags
from odinws.rollout.fleet import FleetError
from odinws.rollout.members import Server, Worker, wanted
from odinws.shared.counters import LAG_BOUNDS_SECONDS, STALL_BOUNDS_SECONDS
from tests.rollout.scene import VARIANT

ROLL_SECONDS = 4.0


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.at: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        """The time of this world."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Pass it, and do what is due."""
        self.now += seconds
        for due in [entry for entry in self.at if entry[0] <= self.now]:
            self.at.remove(due)
            due[1]()


class World:
    """One server.

    Attributes:
        rates: what a worker does each second, by variant: set them to make one hurt.
        noise: of every rate, as a share.
        silent: it does not answer.
        stuck: workers are not replaced.
    """

    def __init__(self, path: str, places: int = 4, connections: int = 400, seed: int = 1) -> None:
        self.clock = Clock()
        self.path = path
        self.noise = 0.1
        self.silent = self.stuck = False
        self.connections = connections // places
        self.rates: dict[str, dict[str, float]] = {name: normal() for name in (VARIANT, "sync-dict")}
        self._rng = random.Random(seed)
        self._last = self.clock.now
        self._places = places
        self._pids = iter(range(100, 10_000))
        self._workers = [self._new(ordinal, "sync-dict") for ordinal in range(places)]
        self._changing: tuple[int, float] | None = None

    def _new(self, ordinal: int, variant: str) -> dict[str, Any]:
        stats: dict[str, Any] = {
            "fan_out": {"delivered": 0, "undelivered": 0, "shed": 0},
            "cpu_seconds": 0.0,
            "closed": dict.fromkeys([reason.label for reason in CloseReason], 0),
            "refused": dict.fromkeys(REFUSALS, 0),
            "reconciliation": {"differences": {"board": 0, "kernel": 0}},
            "lag": {
                "bounds_seconds": list(LAG_BOUNDS_SECONDS),
                "counts": [0] * (len(LAG_BOUNDS_SECONDS) + 1),
            },
            "stall": {
                "bounds_seconds": list(STALL_BOUNDS_SECONDS),
                "counts": [0] * (len(STALL_BOUNDS_SECONDS) + 1),
            },
        }
        return {"pid": next(self._pids), "place": ordinal, "variant": variant, "stats": stats}

    def kill(self, variant: str) -> None:
        """A worker with the variant dies, and another takes its place."""
        for index, worker in enumerate(self._workers):
            if worker["variant"] == variant:
                self._workers[index] = self._new(worker["place"], variant)
                return

    def read(self) -> list[Server]:
        """As `Fleet`."""
        if self.silent:
            raise FleetError("http://world", "no answer: timed out")
        self._live()
        now = self.clock.now
        workers = tuple(
            Worker(
                "http://world",
                worker["pid"],
                worker["place"],
                worker["variant"],
                worker["variant"],
                "targeting_match",
                self.connections,
                True,
                _copied(worker["stats"]),
                now,
                now,
            )
            for worker in self._workers
        )
        return [Server("http://world", self._places, self.path, "", workers)]

    def _live(self) -> None:
        """Let what happened since the last look happen."""
        seconds, self._last = self.clock.now - self._last, self.clock.now
        self._follow()
        for worker in self._workers:
            stats, rates = worker["stats"], self.rates[worker["variant"]]

            def much(name: str, rates: dict[str, float] = rates) -> float:
                return seconds * rates[name] * self._rng.uniform(1 - self.noise, 1 + self.noise)

            stats["fan_out"]["delivered"] += int(much("delivered"))
            stats["fan_out"]["undelivered"] += int(much("undelivered"))
            stats["cpu_seconds"] += much("cpu_seconds")
            stats["closed"]["internal"] += int(much("errors"))
            stats["refused"]["cpu"] += int(much("refused"))
            stats["reconciliation"]["differences"]["board"] += int(much("differences"))
            at = sum(bound < rates["lag"] for bound in LAG_BOUNDS_SECONDS)
            stats["lag"]["counts"][at] += int(much("delivered"))
            stats["stall"]["counts"][9] += int(much("long_turns"))

    def _follow(self) -> None:
        """Replace one worker after another until all have what the file says."""
        if self.stuck:
            return
        share = (flags.rollout(flags.read(self.path)) or (VARIANT, 0.0))[1]
        count = wanted([Server("u", self._places, "", "", ())], share)["u"]
        has = sum(worker["variant"] == VARIANT for worker in self._workers)
        if has == count:
            self._changing = None
        elif self._changing is None or self._changing[0] != count:
            self._changing = count, self.clock.now + ROLL_SECONDS
        elif self.clock.now >= self._changing[1]:
            ordinal = has if count > has else has - 1
            self._workers[ordinal] = self._new(ordinal, VARIANT if count > has else "sync-dict")
            self._changing = count, self.clock.now + ROLL_SECONDS


def normal() -> dict[str, float]:
    """What a worker without trouble does each second; `lag` in seconds."""
    return {
        "delivered": 1000.0,
        "undelivered": 0.0,
        "cpu_seconds": 0.02,
        "errors": 0.0,
        "refused": 0.0,
        "differences": 0.0,
        "long_turns": 0.1,
        "lag": 0.005,
    }


def _copied(stats: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _copied(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else value
        for name, value in stats.items()
    }
