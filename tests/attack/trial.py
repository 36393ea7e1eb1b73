"""One vector against a scene: how it is before, meanwhile, and afterwards."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tests.attack import attackers
from tests.attack.attacker import Plan
from tests.attack.attackers import Outcome
from tests.attack.judging import AFTER_SECONDS, LATE_SECONDS, STAYS_SHARE, Trial, has_controls
from tests.attack.scene import Scene, Watch, talk
from tests.attack.vectors.base import Vector

_LOOK_SECONDS = 0.25
_NICE = 10  # attackers are on other machines: they take no CPU from the server


class Times(NamedTuple):
    """How long a trial looks.

    Attributes:
        quiet: seconds before the attack.
        attack: seconds of it.
        late: seconds by which the p99 of honest clients may rise.
    """

    quiet: float
    attack: float
    late: float = LATE_SECONDS


LONG = Times(1.0, 3.0)
SHORT = Times(0.6, 1.2, 5 * LATE_SECONDS)  # beside other work


def trial(scene: Scene, vector: Vector, first: int, times: Times, log: Path, **changed: Any) -> Trial:
    """Attack and look.

    Args:
        first: number of the first attacker's address; those that were attackers before may be known.
        log: of the attackers.
        changed: of the plan of the attackers.
    """
    network = scene.network
    plan = Plan(
        vector.name,
        network,
        scene.port,
        scene.admin_port,
        first,
        vector.attackers,
        vector.lanes,
        times.attack,
        scene.stage.tls,
        least=vector.least,
    )
    plan = msgspec.structs.replace(plan, **changed)
    with talk(attackers.COMMAND, log, network.outside, _NICE) as attacking:
        attacking.tell(msgspec.json.encode(plan).decode())
        scene.begin()
        with Watch(scene) as quiet:
            time.sleep(times.quiet)
        before = scene.found()
        workers = {worker.pid for worker in scene.workers()}
        ends, logged = Counter(scene.ends()), scene.log_length()
        scene.begin()
        used, began = scene.cpu_seconds(), time.monotonic()
        with Watch(scene) as watch:
            attacking.tell("go")
            outcome = attacking.hear(Outcome)
        busy = (scene.cpu_seconds() - used) / (time.monotonic() - began)
    level = sum(size for _, size in quiet.samples) // len(quiet.samples)
    under = scene.found()
    recovered = _recover(scene, level * (1 + STAYS_SHARE))
    said = scene.log_since(logged)
    started = watch.samples[0][0]
    return Trial(
        vector.name,
        outcome,
        level,
        max(size for _, size in watch.samples),
        scene.rss_bytes(),
        recovered,
        before,
        under,
        {reason: count for reason, count in (Counter(scene.ends()) - ends).items() if count},
        busy,
        len(said),
        has_controls(said),
        {worker.pid for worker in scene.workers()} != workers,
        [(round(at - started, 2), round(size / (1 << 20), 1)) for at, size in watch.samples],
        vector.ends,
        vector.stage.rise_bytes,
        vector.least,
    )


def _recover(scene: Scene, most_bytes: float) -> float | None:
    """Seconds until memory is below that and a newcomer gets in; None: not within `AFTER_SECONDS`."""
    left = time.monotonic()
    while (passed := time.monotonic() - left) < AFTER_SECONDS:
        if scene.rss_bytes() <= most_bytes and scene.newcomer().entries:
            return passed
        time.sleep(_LOOK_SECONDS)
    return None
