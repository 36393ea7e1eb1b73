"""Tries mutations of what is kept, for a time. An input that fails is made as short as can be, and kept."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.fuzz.corpus import CORPUS, entries, keep
from tests.fuzz.costs import check
from tests.fuzz.mutation import mutate
from tests.fuzz.targets.base import Target

SLOW_SECONDS = 2.0  # of CPU: no input that small may take so long
_MINIMISE_SECONDS = 10.0
_TELL_SECONDS = 0.2
_MAX_POOL = 2000
_MEASURED = 0.05  # of the inputs
_DIGITS = re.compile("[0-9]+")


class Finding(NamedTuple):
    """An input that breaks a promise.

    Attributes:
        path: where it is kept.
        error: what it raised.
    """

    target: str
    data: bytes
    path: Path
    error: Exception


class Outcome(NamedTuple):
    """What became of a target's time.

    Attributes:
        tries: how many inputs were checked.
        labels: how many different things became of them.
        finding: the first input that failed, which ends it; None: none did.
    """

    tries: int
    labels: int
    finding: Finding | None


def trial(target: Target, data: bytes, *, costs: bool = True) -> tuple[str, Exception | None]:
    """Check one input: what became of it, and what it raised.

    Args:
        costs: whether what it costs is measured, which takes far longer than all else.
    """
    started = time.process_time()
    try:
        label = target.check(data)
        if costs and target.read is not None:
            check(target.read, data)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return f"{type(error).__name__}", error
    seconds = time.process_time() - started
    if seconds > SLOW_SECONDS:
        return "slow", AssertionError(f"{len(data)} bytes took {seconds:.1f} s of CPU")
    return label, None


def campaign(
    target: Target,
    seed: object,
    seconds: float,
    tell: Callable[[int, int], object],
    corpus: Path = CORPUS,
) -> Outcome:
    """Mutate until the time is over or an input fails.

    Inputs that become something new serve as others to start from. The same seed and corpus give the same
    inputs in the same order; how many of them, the machine decides.

    Args:
        tell: called a few times a second with the tries and labels so far.
    """
    dice = Random(f"{seed} {target.name}")
    pool = [path.read_bytes() for path in entries(target.name, corpus)] or [b""]
    labels: set[str] = set()
    tries = 0
    deadline = time.monotonic() + seconds
    told = 0.0
    finding = None
    while finding is None and (now := time.monotonic()) < deadline:
        data = mutate(dice.choice(pool), pool, dice)
        label, error = trial(target, data, costs=dice.random() < _MEASURED)
        label = _DIGITS.sub("#", label)  # how many of anything is no other way through the code
        tries += 1
        if error is not None:
            finding = _keep(target, data, error, corpus)
        elif label not in labels and len(pool) < _MAX_POOL:
            labels.add(label)
            pool.append(data)
        if now - told > _TELL_SECONDS:
            told = now
            tell(tries, len(labels))
    tell(tries, len(labels))
    return Outcome(tries, len(labels), finding)


def _keep(target: Target, data: bytes, error: Exception, corpus: Path) -> Finding:
    deadline = time.monotonic() + _MINIMISE_SECONDS

    def fails(less: bytes) -> bool:
        return time.monotonic() < deadline and type(trial(target, less)[1]) is type(error)

    least = minimise(data, fails)
    return Finding(target.name, least, keep(target.name, least, corpus), trial(target, least)[1] or error)


def minimise(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """Delete pieces, large ones first, for as long as what is left fails too."""
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            less = data[:at] + data[at + size :]
            if fails(less):
                data = less
            else:
                at += size
        size //= 2
    return data
