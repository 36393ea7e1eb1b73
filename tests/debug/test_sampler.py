"""`odinws.debug.sampler`: who used the CPU, by function and greenlet."""

from __future__ import annotations

import signal
import time

import gevent

from odinws.debug.sampler import Sampler


def burn(seconds: float) -> None:
    """Use so much CPU time of this process."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def in_a_greenlet() -> None:
    """Burn in pieces, with switches between them."""
    for _ in range(20):
        burn(0.01)
        gevent.sleep(0)


def in_the_loop() -> None:
    """Burn in a callback of the event loop."""
    burn(0.2)


def test_samples_name_functions_and_greenlets() -> None:
    """CPU time in a greenlet, in the event loop and in the main greenlet are told apart."""
    sampler = Sampler(200)
    sampler.start()
    gevent.get_hub().loop.run_callback(in_the_loop)
    gevent.spawn(in_a_greenlet).join()
    burn(0.1)
    profile = sampler.stop()
    names = [[profile.frames[part].name for part in stack] for stack in profile.stacks]
    seconds: dict[str, float] = {}
    for index, weight in zip(profile.samples, profile.weights, strict=True):
        if names[index][-1] == "burn":
            seconds[names[index][0]] = seconds.get(names[index][0], 0.0) + weight
    assert set(seconds) == {"greenlet in_a_greenlet", "event loop", "main greenlet"}
    assert 0.1 <= seconds["greenlet in_a_greenlet"] <= 0.3
    assert 0.1 <= seconds["event loop"] <= 0.3
    assert sum(profile.weights) <= profile.cpu_seconds
    assert 0 < profile.sampler_seconds < profile.cpu_seconds
    place = next(frame for frame in profile.frames if frame.name == "burn")
    assert place.file == "tests/debug/test_sampler.py"


def test_nothing_is_left_behind() -> None:
    """The timer is off; a late signal ends nobody."""
    sampler = Sampler(250)
    sampler.start()
    sampler.stop()
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    signal.raise_signal(signal.SIGPROF)
    count = len(sampler.stop().samples)
    burn(0.05)
    assert len(sampler.stop().samples) == count
