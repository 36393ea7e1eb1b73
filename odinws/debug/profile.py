"""What a CPU profile is. Pure."""

from __future__ import annotations

import msgspec


class Frame(msgspec.Struct, frozen=True):
    """A function, or a kind of greenlet: then it has no file."""

    name: str
    file: str = ""
    line: int = 0


class Profile(msgspec.Struct):
    """What was sampled.

    Attributes:
        at: when it began, Unix seconds.
        seconds: how long it took.
        cpu_seconds: CPU time used meanwhile, by all threads of the process.
        sampler_seconds: of these, in the sampler itself.
        frames: each function once.
        stacks: each stack once, as indices of frames, the outermost first.
        samples: indices of stacks, in their order.
        weights: seconds of CPU time of each sample.
    """

    pid: int
    at: float
    seconds: float
    cpu_seconds: float
    sampler_seconds: float
    hz: int
    frames: list[Frame]
    stacks: list[list[int]]
    samples: list[int]
    weights: list[float]

    def hottest(self, limit: int) -> list[dict[str, object]]:
        """The functions with most CPU time of their own, as `{"place", "self_seconds", "total_seconds"}`."""
        own: dict[int, float] = {}
        total: dict[int, float] = {}
        for index, weight in zip(self.samples, self.weights, strict=True):
            stack = self.stacks[index]
            own[stack[-1]] = own.get(stack[-1], 0.0) + weight
            for part in set(stack):
                total[part] = total.get(part, 0.0) + weight
        ranked = sorted(own, key=lambda part: own[part], reverse=True)[:limit]
        return [
            {
                "place": f"{frame.file}:{frame.line} {frame.name}" if frame.file else frame.name,
                "self_seconds": round(own[part], 6),
                "total_seconds": round(total[part], 6),
            }
            for part, frame in ((part, self.frames[part]) for part in ranked)
        ]
