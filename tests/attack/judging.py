"""What must hold of a trial. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec

from tests.attack.attackers import Outcome
from tests.attack.honest import Found
from tests.attack.stages import RISE_BYTES

LATE_SECONDS = 0.050  # by which the p99 of honest clients may rise
STAYS_SHARE = 0.10  # of the memory before, that may stay
AFTER_SECONDS = 10.0  # when all must be as it was
LOG_CHARACTERS = 128 << 10  # of an attack

_SHOWN = 3
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # in a log they would be the sender's word in a terminal


class Trial(msgspec.Struct, frozen=True):
    """What was seen of one vector.

    Attributes:
        before, most, after: bytes of memory of all workers: before, the most meanwhile, and once it was well
            again, or `AFTER_SECONDS` after the attackers had left.
        recovered_seconds: how long it took until memory and newcomers were as before; inf: longer.
        quiet, under: what honest clients found before and meanwhile.
        ends: how often the server refused and closed, by reason.
        busy: CPU of all workers meanwhile, in cores.
        logged: what it wrote to its log meanwhile, in characters.
        has_controls: whether that has control characters.
        restarted: whether a worker ended.
        expected: the reason by which it must have, see `Vector.ends`; "": there is none.
        may_rise: bytes by which memory may, see `Stage.rise_bytes`.
        least: WebSockets that there must have been, see `Vector.least`.
        memory: seconds since the attack began, and MiB.
    """

    vector: str
    outcome: Outcome
    before: int
    most: int
    after: int
    recovered_seconds: float | None
    quiet: Found
    under: Found
    ends: dict[str, int]
    busy: float
    logged: int
    has_controls: bool
    restarted: bool
    memory: list[tuple[float, float]]
    expected: str = ""
    may_rise: int = RISE_BYTES
    least: int = 0

    @property
    def rise_bytes(self) -> int:
        """By how much the memory rose."""
        return self.most - self.before

    @property
    def late_seconds(self) -> float:
        """By how much p99 rose, of heartbeats or of deliveries."""
        return max(
            p99(self.under.heartbeats) - p99(self.quiet.heartbeats),
            p99(self.under.deliveries) - p99(self.quiet.deliveries),
        )


def p99(seconds: Sequence[float]) -> float:
    """The 99th percentile; 0.0 of nothing."""
    ordered = sorted(seconds)
    return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else 0.0


def faults(trial: Trial, late_seconds: float = LATE_SECONDS) -> list[str]:
    """What does not hold, a line each; `late_seconds` is by how much p99 may rise."""
    found = []
    if not trial.outcome.connected:
        found.append("nobody attacked")
    if trial.outcome.upgraded < trial.least:
        found.append(f"nothing is proven: only {trial.outcome.upgraded} were in")
    if trial.expected and trial.expected not in trial.ends:
        found.append(f"nothing is proven: nobody was ended for {trial.expected}")
    if trial.restarted:
        found.append("a worker ended")
    if trial.rise_bytes > trial.may_rise:
        found.append(f"memory rose by {trial.rise_bytes / (1 << 20):.0f} MiB")
    if trial.late_seconds > late_seconds:
        found.append(f"p99 rose by {1000 * trial.late_seconds:.0f} ms")
    if not trial.under.heartbeats or not trial.under.deliveries:
        found.append("honest clients heard nothing")
    if trial.under.refused:
        reasons = list(dict.fromkeys(trial.under.refused))
        found.append(f"{len(trial.under.refused)} honest clients were refused: {'; '.join(reasons[:_SHOWN])}")
    if trial.under.missing:
        found.append(f"{trial.under.missing} messages did not reach honest clients")
    if trial.recovered_seconds is None:
        stays = 100 * (trial.after / max(1, trial.before) - 1)
        found.append(f"not as before after {AFTER_SECONDS:g} s: memory {stays:+.0f} %")
    if trial.logged > LOG_CHARACTERS:
        found.append(f"{trial.logged >> 10} KiB of log")
    if trial.has_controls:
        found.append("control characters in the log")
    breaches = trial.outcome.breaches
    if breaches:
        found.append(f"{len(breaches)} looks inside: {'; '.join(breaches[:_SHOWN])}")
    return found


def has_controls(text: str) -> bool:
    """Whether a log has characters that a terminal obeys."""
    return _CONTROLS.search(text) is not None
