"""One block: the arms that run at one time, under their swarms, on one replay of the feed.

In turn a block has one arm, together all of them. What goes wrong with one arm or its swarm fails the trial
of that arm alone. What goes wrong with NATS ends all.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from odinws.experiment import causes, outcome, scrape
from odinws.experiment.arms import Arm, ArmError
from odinws.experiment.feed import Feed, Recorded, Replay, recording
from odinws.experiment.kinds import Second, Trial
from odinws.experiment.load import Swarm, SwarmError
from odinws.experiment.outcome import Part
from odinws.experiment.plan import Arm as ArmPlan
from odinws.experiment.plan import Plan
from odinws.harness.process import ProcessError

CONNECT_SECONDS = 60.0
"""Beyond the time of the ramp, until all have come."""
_POLL_SECONDS = 0.1
_SWARM_START_SECONDS = 3.0
_SETTLE_SECONDS = 20.0  # after the last message, for a server that is behind
_SWARM_STOP_SECONDS = 15.0
_SERVER_STOP_SECONDS = 8.0
_SPARE_SECONDS = 300.0  # of the swarm's own end, should nobody end it

T = TypeVar("T")


@dataclass
class Block:
    """Use `run` once."""

    plan: Plan
    number: int  # of the round, from 0
    arms: Sequence[tuple[int, ArmPlan]]  # with their position in the round
    feed: Feed
    directory: Path  # for logs and the swarms' files
    second: Callable[[Second], object]  # takes what each second gives
    stage: Callable[[str], None]  # is told what goes on

    def __post_init__(self) -> None:
        self._seconds = self.plan.warmup_seconds + self.plan.measure_seconds
        self._parts = [self._part(order, arm) for order, arm in self.arms]
        self._replay: Replay | None = None
        self._warm = 0  # messages of the warm-up

    async def run(self) -> None:
        """Run it; `trials` has what there is then, also when it is cancelled or raises FeedLostError."""
        try:
            await self.feed.clear()
            await self._start()
            if self._healthy:
                await self._feed_and_measure()
        finally:
            self.stage("ending servers and swarms")
            await self._end()

    async def calibrate(self, seconds: float) -> list[Part]:
        """Only let the clients come, for so many seconds of their swarms, which know how fast they did.

        Raises FeedLostError.
        """
        try:
            await self.feed.clear()
            await self._start()
            messages = await self._recording()
            async with self._playing(
                self.feed.lead_in(messages, self._seconds, _SWARM_START_SECONDS, asyncio.Event())
            ) as playing:
                latest = time.monotonic() + CONNECT_SECONDS
                await self._poll(playing, lambda part: bool(part.swarm.lines), latest)
                await self._poll(playing, self._has_come, time.monotonic() + seconds)
        finally:
            await self._end()
        return self._parts

    def trials(self, interruption: str) -> list[Trial]:
        """What is known of each trial; an `interruption` says why the block did not come to its end."""
        return [
            outcome.trial(part, self.number, self.plan, self._replay, self._warm, interruption)
            for part in self._parts
        ]

    @property
    def _healthy(self) -> list[Part]:
        return [part for part in self._parts if not part.problem]

    async def _start(self) -> None:
        self.stage("starting servers")
        for part in self._parts:
            part.arm.start()
        for part in self._parts:
            with _failing(part):
                await part.arm.served()
                part.empty = await part.arm.look()
        for part in self._healthy:
            part.swarm.start()

    async def _recording(self) -> Sequence[Recorded]:
        return await asyncio.to_thread(recording, self._parts[0].plan.feed, self._seconds, self.plan.seed)

    async def _feed_and_measure(self) -> None:
        messages = await self._recording()
        self._warm = sum(message.due_seconds < self.plan.warmup_seconds for message in messages)
        # Clients come while messages flow, as they do in life.
        come = asyncio.Event()
        lead = self.feed.lead_in(messages, self._seconds, lead_seconds(self.plan), come)
        async with self._playing(lead) as leading:
            started = time.monotonic()
            await self._poll(leading, lambda part: self._has_come_in_time(part, time.monotonic() - started))
            come.set()
            await leading
        if not self._healthy:
            return
        async with self._playing(self.feed.replay(messages, self._seconds)) as replaying:
            await self._measure(replaying)
            if not self._healthy:
                return
            self._replay = await replaying
            # Until nothing comes any more: two lines of each swarm, a second apart, that say the same.
            before = {part.order: len(part.swarm.lines) for part in self._parts}
            deadline = time.monotonic() + _SETTLE_SECONDS
            await self._poll(replaying, lambda part: _is_calm(part, before[part.order]), deadline)
        for part in self._healthy:
            with _failing(part):
                part.metrics = await part.arm.totals()

    @contextlib.asynccontextmanager
    async def _playing(self, work: Coroutine[None, None, T]) -> AsyncIterator[asyncio.Task[T]]:
        """The feed plays as long as we are in here, at most."""
        task = asyncio.create_task(work)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _check_feed(self, playing: asyncio.Task[T]) -> None:
        if playing.done():
            playing.result()
        self.feed.check()

    async def _poll(
        self, playing: asyncio.Task[T], is_done: Callable[[Part], bool], deadline: float = math.inf
    ) -> None:
        """Look at each swarm again and again until it `is_done`, or its trial has failed."""
        waiting = self._healthy
        while waiting and time.monotonic() < deadline:
            self._check_feed(playing)
            for part in list(waiting):
                with _failing(part):
                    part.arm.check_alive()
                    part.swarm.poll()
                    if is_done(part):
                        waiting.remove(part)
            waiting = [part for part in waiting if not part.problem]
            await asyncio.sleep(_POLL_SECONDS)

    def _has_come(self, part: Part) -> bool:
        """Whether a swarm has all its connections."""
        wanted, last = part.plan.load.connections, part.swarm.last
        self.stage(f"{part.plan.name}: {last.connected:,} of {wanted:,} connected")
        return last.connected >= wanted - part.plan.load.churn  # with churn some are always away

    def _has_come_in_time(self, part: Part, seconds: float) -> bool:
        """The same. Raises SwarmError when it takes too long."""
        if self._has_come(part):
            return True
        wanted, last = part.plan.load.connections, part.swarm.last
        limit = wanted / part.plan.load.ramp + CONNECT_SECONDS
        if seconds > limit:
            what = f"{last.failed:,} of {last.attempts:,} attempts failed"
            if last.errors:
                what += f" ({causes.in_words(last.errors)}): {causes.advice(last.errors)}"
            raise SwarmError(f"{last.connected:,} of {wanted:,} connections after {limit:g} s: {what}")
        return False

    async def _measure(self, replaying: asyncio.Task[Replay]) -> None:
        """Look at each arm once a second, from the start of the warm-up to the end of the measuring."""
        started = time.monotonic()
        warm, last = round(self.plan.warmup_seconds), round(self._seconds)
        for number in range(last + 1):
            await asyncio.sleep(max(0.0, started + number - time.monotonic()))
            self._check_feed(replaying)
            await asyncio.gather(*(self._look(part, number - warm) for part in self._healthy))
            if not self._healthy:
                return
            phase = "warming up" if number < warm else "measuring"
            self.stage(f"{phase}, {last - number} s left")

    async def _look(self, part: Part, second: int) -> None:
        """Look now, and record the second that has just ended."""
        with _failing(part):
            found = await part.arm.look()
            part.swarm.poll()
            part.looks.append(found)
            part.lines.append(part.swarm.last)
            if len(part.looks) > 1:
                values = scrape.second_values(part.looks[-2], found)
                values |= outcome.latencies(part.swarm, *part.lines[-2:])
                where = {"round": self.number, "order": part.order, "second": second - 1}
                self.second(Second(arm=part.plan.name, values=values, **where))

    async def _end(self) -> None:
        """End all, the swarms first: what they say last is only true while the servers live."""
        try:
            await asyncio.gather(*(part.swarm.end_async(seconds=_SWARM_STOP_SECONDS) for part in self._parts))
        finally:
            await asyncio.gather(*(part.arm.end_async(seconds=_SERVER_STOP_SECONDS) for part in self._parts))

    def _part(self, order: int, plan: ArmPlan) -> Part:
        name = f"{self.number:03}-{plan.name}"
        arm = Arm(plan, self.feed.url, self.directory / f"{name}.server.log")
        swarm = Swarm(
            plan.load,
            arm.port,
            plan.load.connections / plan.load.ramp + self._seconds + _SPARE_SECONDS,
            self.plan.seed,
            self.directory / f"{name}.swarm.jsonl",
            self.directory / f"{name}.swarm.log",
        )
        return Part(plan, order, arm, swarm)


def lead_seconds(plan: Plan) -> float:
    """How long messages flow before a replay begins, if all clients come in time; the same for all arms."""
    slowest = max(arm.load.connections / arm.load.ramp for arm in plan.arms)
    return math.ceil(slowest + _SWARM_START_SECONDS)


@contextlib.contextmanager
def _failing(part: Part) -> Iterator[None]:
    """What goes wrong with one arm fails its trial."""
    try:
        yield
    except (ArmError, SwarmError, ProcessError) as error:
        part.problem = str(error)


def _is_calm(part: Part, before: int) -> bool:
    lines = part.swarm.lines[before:]
    return len(lines) > 1 and lines[-1].delivered == lines[-2].delivered
