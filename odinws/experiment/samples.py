"""From records to samples: one value for each measure, arm and round. Pure."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping

from odinws.experiment.kinds import Second, Trial
from odinws.experiment.measures import MEASURES

ByRound = Mapping[int, float]
Samples = Mapping[str, Mapping[str, ByRound]]
"""By measure, arm and round."""

_SECONDS_FOR_DRIFT = 6  # fewer have no thirds worth comparing
_TRIALS_FOR_DRIFT = 3


def samples(trials: Iterable[Trial], seconds: Iterable[Second]) -> Samples:
    """What the good trials measured. A trial's own value goes first, then its counts, then its seconds."""
    found: dict[str, dict[str, dict[int, float]]] = {name: defaultdict(dict) for name in MEASURES}
    by_trial = measured_seconds(seconds)
    for trial in trials:
        if trial.status != "ok":
            continue
        own = by_trial.get((trial.arm, trial.round), [])
        for name, measure in MEASURES.items():
            value = trial.values.get(name, trial.counts.get(name))
            seen = [second.values[name] for second in own if name in second.values]
            if value is None and seen:
                value = max(seen) if measure.longest else statistics.median(seen)
            if value is not None and math.isfinite(value):
                found[name][trial.arm][trial.round] = float(value)
    return found


def measured_seconds(seconds: Iterable[Second]) -> dict[tuple[str, int], list[Second]]:
    """The seconds behind the warm-up, by arm and round, in their order."""
    found: dict[tuple[str, int], list[Second]] = defaultdict(list)
    for second in sorted(seconds, key=lambda second: second.second):
        if second.second >= 0:
            found[second.arm, second.round].append(second)
    return found


def logarithm(measure: str, value: float) -> float:
    """Of a value; what is below the floor of its measure counts as the floor."""
    return math.log(max(value, MEASURES[measure].floor))


def drifts(seconds: Iterable[Second]) -> dict[tuple[str, str], float]:
    """How far measures move within trials: the last third of the seconds over the first, as a logarithm.

    Returns:
        By measure and arm, the median over the trials. Only where all trials move one way: else they wander,
        and do not drift. Trials with few seconds have no say, and few trials have none.
    """
    moves: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (arm, _), those in measured_seconds(seconds).items():
        for name in MEASURES.keys() & those[0].values.keys():
            values = [second.values[name] for second in those if name in second.values]
            if len(values) >= _SECONDS_FOR_DRIFT:
                third = len(values) // 3
                first, last = statistics.median(values[:third]), statistics.median(values[-third:])
                moves[name, arm].append(logarithm(name, last) - logarithm(name, first))
    return {
        key: statistics.median(those)
        for key, those in moves.items()
        if len(those) >= _TRIALS_FOR_DRIFT
        and (all(move > 0 for move in those) or all(move < 0 for move in those))
    }
