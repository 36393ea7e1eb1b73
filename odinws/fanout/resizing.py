"""A worker's part in a live resize: polls for requests, and moves keys between passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import structlog

from odinws.scheduling import until_tick
from odinws.shared import SharedState
from strategies.base import Moves, Strategy

_POLL_SECONDS = 0.25
_WAIT_POLL_SECONDS = 0.02

log = structlog.get_logger("odinws.worker")


class Resizing:
    """Resizes the strategy of one worker, if that supports it.

    Args:
        shared: holds the requested number of shards.
        slot: the worker's.
        strategy: the worker's.
        run_between_passes: runs a step while no walk is open, see `Hub`.
    """

    def __init__(
        self,
        shared: SharedState,
        slot: int,
        strategy: Strategy[Any],
        run_between_passes: Callable[[Callable[[], Moves | None]], Moves | None],
    ) -> None:
        self._shared = shared
        self._slot = slot
        self._strategy = strategy
        self._run_between_passes = run_between_passes
        shared.resizes.begin(slot, strategy.shard_count if strategy.can_resize else 0)

    def run(self) -> None:
        """Apply each request. Runs for the life of the worker, even if its strategy can't be resized."""
        while True:
            self.apply()
            gevent.sleep(until_tick(_POLL_SECONDS))

    def apply(self) -> None:
        """Resize if another number of shards is requested; returns when that has taken effect."""
        shards = self._shared.resizes.requested
        if not shards or not self._strategy.can_resize or shards == self._strategy.shard_count:
            return
        began, before = time.monotonic(), self._strategy.shard_count
        steps = self._strategy.resize(shards)
        moves = Moves()
        while (step := self._run_between_passes(lambda: next(steps, None))) is not None:
            moves = moves + step
        self._shared.resizes.took_effect(self._slot, shards, moves)
        log.info(
            "shards resized",
            before=before,
            shards=shards,
            channels_moved=moves.channels,
            connections_moved=moves.connections,
            seconds=round(time.monotonic() - began, 3),
        )

    def request(self, shards: int, wait_seconds: float) -> bool:
        """Request a resize of all workers that can; True if all of them have applied it within the time."""
        self._shared.resizes.ask(shards)
        until = time.monotonic() + wait_seconds
        while not (done := self.is_done()) and time.monotonic() < until:
            gevent.sleep(_WAIT_POLL_SECONDS)
        return done

    def is_done(self) -> bool:
        """Whether all workers that can be resized have the requested number of shards."""
        return self._shard_counts() <= {self._shared.resizes.requested}

    def is_possible(self) -> bool:
        """Whether any worker can be resized."""
        return bool(self._shard_counts())

    def _shard_counts(self) -> set[int]:
        return {self._shared.resizes.shards(slot) for slot, _ in self._shared.living()} - {0}
