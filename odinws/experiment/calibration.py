"""Whether servers on this machine take clients as fast as a plan brings them: tried before a run."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from odinws.experiment import causes
from odinws.experiment.block import CONNECT_SECONDS, Block
from odinws.experiment.feed import Feed
from odinws.experiment.load import Line
from odinws.experiment.outcome import Part
from odinws.experiment.plan import Arm, Plan
from odinws.experiment.result import Check

_RAMP_SECONDS = 4.0  # of the ramp that are tried
_PATIENCE_SECONDS = 10.0  # for these clients to come, from the first line of their swarm on
_ANY_MACHINE = 100.0  # connections/s that are not worth a trial
_ENOUGH = 0.8  # of the ramp; beside other work a server has slower seconds
_ADVISED = 0.8  # of what was taken


async def calibrate(plan: Plan, tell: Callable[[str], None] = lambda _: None) -> list[Check]:
    """Bring the first clients to servers as the plan has them, and compare the pace with `load.ramp`.

    In turn that is done for one arm of each load, together for all at once; slow ramps are taken as they are.

    Returns:
        An error where a trial would not get its clients in time, a warning where they come late.

    Raises SwarmError without Locust, EmbeddedNatsError without NATS, and FeedLostError.
    """
    found: list[Check] = []
    with tempfile.TemporaryDirectory(prefix="odinws-calibration-") as directory:
        blocks = list(_blocks(plan))
        if not blocks:
            return found
        logs = Path(directory)
        async with Feed.started(logs / "nats") as feed:
            for arms in blocks:
                tell(f"trying the ramp of {', '.join(arm.name for arm in arms)}")
                placed = [(position, _tried(arm)) for position, arm in enumerate(arms)]
                block = Block(plan, 0, placed, feed, logs, lambda _: None, lambda _: None)
                parts = await block.calibrate(_PATIENCE_SECONDS)
                for arm, part in zip(arms, parts, strict=True):
                    found += _judged(plan, arm, part)
    return found


def pace(lines: Sequence[Line], wanted: int) -> float:
    """Connections/s that a server took, as its swarm saw it; infinite if all came within two lines."""
    coming = [line for line in lines if 0 < line.connected < wanted]
    if len(coming) < 2:
        return math.inf if lines and lines[-1].connected >= wanted else 0.0
    return (coming[-1].connected - coming[0].connected) / (coming[-1].t - coming[0].t)


def check(plan: Plan, arm: Arm, taken: float) -> Check | None:
    """What is to be said of an arm whose server took so many connections/s."""
    ramp, connections = arm.load.ramp, arm.load.connections
    if taken >= _ENOUGH * ramp:
        return None
    where = "load.ramp" if ramp == plan.load.ramp else f"arm[{plan.arms.index(arm)}].load.ramp"
    text = (
        f"{where} = {ramp:g}: a server as {arm.name} took {taken:.0f} connections/s on this machine just now"
    )
    limit = connections / ramp + CONNECT_SECONDS
    advice = f"set {where} to {_advised(taken):g} or less, or stop what else runs here"
    if connections > taken * limit:
        text += f", and a trial waits {limit:.0f} s for its {connections:,}"
        return Check("error", text, advice)
    return Check("warning", text, advice)


def _advised(taken: float) -> float:
    """Two digits of a ramp that is safe."""
    ramp = max(1.0, _ADVISED * taken)
    step = 10.0 ** (math.floor(math.log10(ramp)) - 1)
    return max(1.0, math.floor(ramp / step) * step)


def _blocks(plan: Plan) -> Iterator[list[Arm]]:
    fast = [arm for arm in (plan.baseline, *plan.others) if arm.load.ramp > _ANY_MACHINE]
    if plan.mode == "together":
        yield from [fast] if fast else []
    else:
        yield from (
            [arm] for number, arm in enumerate(fast) if arm.load not in [a.load for a in fast[:number]]
        )


def _tried(arm: Arm) -> Arm:
    few = min(arm.load.connections, math.ceil(arm.load.ramp * _RAMP_SECONDS))
    return replace(arm, load=replace(arm.load, connections=few))


def _judged(plan: Plan, arm: Arm, part: Part) -> Iterator[Check]:
    if part.problem:
        yield Check("warning", f"{arm.name} was tried: {part.problem}", "mend what it says")
    elif found := check(plan, arm, pace(part.swarm.lines, part.plan.load.connections)):
        if errors := part.swarm.last.errors:
            found = replace(found, text=f"{found.text} ({causes.in_words(errors)})")
        yield found
