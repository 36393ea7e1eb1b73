"""A CPU profile of this process by sampling, which knows the greenlets.

`SIGPROF` comes each time the process has used so much CPU time, so an idle worker is not woken up, and the
signal's handler runs in the greenlet that is at work: its stack is the sample. A sampling thread would wait
for the interpreter lock, and get it where it is given up anyhow: between two passes, not in one. A call into
C counts for the function that made it. The weight of a sample is the CPU time since the one before.

The handler takes some microseconds per sample; a profile says how much that was.
"""

from __future__ import annotations

import os
import signal
import time
from types import CodeType, FrameType

import gevent
from gevent.hub import Hub

from odinws.debug.places import short
from odinws.debug.profile import Frame, Profile

_MAX_DEPTH = 128
_MAX_STACKS = 20_000


class Sampler:
    """Samples this process between `start` and `stop`; one at a time, in the main thread.

    Args:
        hz: samples per second of CPU time.
    """

    def __init__(self, hz: int) -> None:
        self._hz = hz
        self._stacks: dict[tuple[object, ...], int] = {}
        self._samples: list[int] = []
        self._weights: list[float] = []
        self._spent = 0.0

    def start(self) -> None:
        """Begin."""
        self._at, self._began = time.time(), time.perf_counter()
        self._cpu = self._cpu_began = time.process_time()
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, 1 / self._hz, 1 / self._hz)

    def stop(self) -> Profile:
        """End, and say what was seen."""
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        # Not the default: a signal that is on its way would end the process.
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        frames: dict[Frame, int] = {}
        stacks = [[frames.setdefault(_frame(part), len(frames)) for part in stack] for stack in self._stacks]
        return Profile(
            pid=os.getpid(),
            at=self._at,
            seconds=time.perf_counter() - self._began,
            cpu_seconds=time.process_time() - self._cpu_began,
            sampler_seconds=self._spent,
            hz=self._hz,
            frames=list(frames),
            stacks=stacks,
            samples=self._samples,
            weights=self._weights,
        )

    def _sample(self, number: int, frame: FrameType | None) -> None:
        began = time.perf_counter()
        cpu = time.process_time()
        codes: list[object] = []
        while frame is not None and len(codes) < _MAX_DEPTH:
            codes.append(frame.f_code)
            frame = frame.f_back
        codes.append(_kind(codes))
        codes.reverse()
        stack = tuple(codes)
        index = self._stacks.get(stack)
        if index is None:
            if len(self._stacks) >= _MAX_STACKS:
                stack = ("other stacks",)
            index = self._stacks.setdefault(stack, len(self._stacks))
        self._samples.append(index)
        self._weights.append(cpu - self._cpu)
        self._cpu = cpu
        self._spent += time.perf_counter() - began


def _kind(codes: list[object]) -> str:
    """Who runs: the event loop, or a greenlet, by the function it was made for."""
    current = gevent.getcurrent()
    if isinstance(current, Hub):
        return "event loop"
    root = codes[-1] if codes else None
    if getattr(current, "parent", None) is None:
        return "main greenlet"
    return f"greenlet {root.co_qualname}" if isinstance(root, CodeType) else "greenlet"


def _frame(part: object) -> Frame:
    if isinstance(part, CodeType):
        return Frame(part.co_qualname, short(part.co_filename), part.co_firstlineno)
    return Frame(str(part))
