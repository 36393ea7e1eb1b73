"""Whether a strategy keeps the promises of `strategies.base`: for the command line, and for your own tests.

    from odinws.conformance import StrategyConformance

    class TestMine(StrategyConformance):
        strategy = Mine

It needs gevent and hypothesis.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import gevent
from gevent.exceptions import LoopExit

from odinws.conformance import histories, promises
from odinws.conformance.model import WAITS, Arm, arms
from strategies import Strategy

__all__ = ["Broken", "StrategyConformance", "check"]

_PATIENCE_SECONDS = 5.0  # for a scenario, which takes milliseconds
_STEPS = 15  # of a history: long enough for all that was ever found, short enough to shrink


@dataclass(frozen=True)
class Broken:
    """A promise that is broken."""

    promise: str  # in words
    arm: str
    history: tuple[str, ...]  # the fewest calls that show it, or the line of the scenario that failed
    problem: str  # what was wrong, in one line


def check(strategy: type[Strategy[Any]], examples: int = 100) -> list[Broken]:
    """Hold a strategy to all promises, in all configurations, with so many random histories in each.

    There is at most one finding for each promise.
    """
    found: dict[str, Broken] = {}
    hub = gevent.get_hub()
    stream, hub.exception_stream = hub.exception_stream, None  # what greenlets raise is reported here
    try:
        for arm in arms(strategy.__name__, strategy):
            for promise in promises.PROMISES:
                text = (promise.__doc__ or "").rstrip(".")
                if text in found:
                    continue  # one finding is enough: whoever waits for ever takes his time
                error = _failure(partial(_in_time, promise), arm)
                if error is not None:
                    found[text] = Broken(text, str(arm), (_line(error),), _problem(error))
            if any(len(broken.history) > 1 for broken in found.values()):
                continue  # one history is enough: shrinking takes its time
            error = _failure(lambda arm: histories.run(arm, examples, _STEPS), arm)
            if error is not None:
                problem = _problem(error)
                is_named = isinstance(error, AssertionError | LoopExit | gevent.Timeout)
                promise_text = problem.partition(": ")[0] if is_named else "no call raises"
                history = tuple(getattr(error, "history", ()))
                found.setdefault(promise_text, Broken(promise_text, str(arm), history, problem))
    finally:
        hub.exception_stream = stream
        gc.collect()
    # Those with a history first: it says most.
    return sorted(found.values(), key=lambda broken: len(broken.history) < 2)


def _in_time(run: Callable[[Arm], None], arm: Arm) -> None:
    """Where other greenlets live, gevent can't tell that nobody will ever wake the one that waits."""
    with gevent.Timeout(_PATIENCE_SECONDS):
        run(arm)


def _failure(run: Callable[[Arm], None], arm: Arm) -> BaseException | None:
    try:
        run(arm)
    except (Exception, ExceptionGroup, LoopExit, gevent.Timeout) as error:  # noqa: BLE001 - it is the finding
        return error
    return None


def _problem(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, LoopExit | gevent.Timeout):
        return f"{WAITS}: this one waits for ever"
    text = str(error).partition("\n")[0]
    if not isinstance(error, AssertionError):
        return f"{type(error).__name__}: {text}"
    return text or _line(error)


def _line(error: BaseException) -> str:
    """The assertion that failed, in a scenario or in what it walks with."""
    lines = [str(frame.line) for frame in reversed(traceback.extract_tb(error.__traceback__))]
    return next((line for line in lines if line.startswith("assert ")), lines[0])


class StrategyConformance:
    """A test class for pytest: set `strategy` in a subclass whose name begins with `Test`.

    It has one test for each promise and one for random histories, each in all configurations.
    """

    strategy: ClassVar[type[Strategy[Any]]]

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        if "strategy" not in vars(cls):
            return
        for promise in promises.PROMISES:
            setattr(cls, f"test_{promise.__name__}", _test(partial(_in_time, promise), promise.__doc__))
        cls.test_any_history_agrees_with_the_model = _test(histories.run, histories.__doc__)  # type: ignore[attr-defined]


def _test(run: Callable[[Arm], None], text: str | None) -> Callable[[StrategyConformance], None]:
    def test(self: StrategyConformance) -> None:
        for arm in arms(self.strategy.__name__, self.strategy):
            run(arm)

    test.__doc__ = text
    return test
