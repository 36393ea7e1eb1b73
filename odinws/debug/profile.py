"""A CPU profile, and the forms in which tools read it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

SPEEDSCOPE_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_LEAST_SHARE = 0.0005  # of the whole; what is narrower than half a pixel is not drawn


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


def speedscope(profiles: Sequence[Profile], name: str) -> dict[str, Any]:
    """A file for speedscope: one profile per worker, its samples in their order."""
    frames: dict[tuple[str, str, int], int] = {}
    parts = []
    for profile in profiles:
        places = [
            frames.setdefault((frame.name, frame.file, frame.line), len(frames)) for frame in profile.frames
        ]
        stacks = [[places[index] for index in stack] for stack in profile.stacks]
        parts.append(
            {
                "type": "sampled",
                "name": f"worker {profile.pid}",
                "unit": "seconds",
                "startValue": 0,
                "endValue": sum(profile.weights),
                "samples": [stacks[index] for index in profile.samples],
                "weights": profile.weights,
            }
        )
    return {
        "$schema": SPEEDSCOPE_SCHEMA,
        "exporter": "odinws",
        "name": name,
        "activeProfileIndex": 0,
        "shared": {
            "frames": [
                {"name": called, **({"file": file, "line": line} if file else {})}
                for called, file, line in frames
            ]
        },
        "profiles": parts,
    }


def collapsed(profiles: Sequence[Profile]) -> str:
    """One line per stack, `worker;outermost;...;innermost microseconds`, as flamegraph.pl and others read."""
    lines: list[str] = []
    for profile in profiles:
        for stack, seconds in _by_stack(profile):
            names = [f"worker {profile.pid}", *(_label(profile, index) for index in stack)]
            lines.append(f"{';'.join(name.replace(';', ',') for name in names)} {round(seconds * 1e6)}")
    return "\n".join([*sorted(lines), ""])


def tree(profiles: Sequence[Profile]) -> dict[str, Any]:
    """All profiles as one tree of `{"n": name, "v": seconds, "c": [children]}`, widest child first."""
    root: dict[str, Any] = {"n": "all workers", "v": 0.0, "c": {}}
    for profile in profiles:
        for stack, seconds in _by_stack(profile):
            node = root
            node["v"] += seconds
            for name in (f"worker {profile.pid}", *(_label(profile, index) for index in stack)):
                node = node["c"].setdefault(name, {"n": name, "v": 0.0, "c": {}})
                node["v"] += seconds
    return _pruned(root, root["v"] * _LEAST_SHARE)


def _by_stack(profile: Profile) -> list[tuple[list[int], float]]:
    seconds = [0.0] * len(profile.stacks)
    for index, weight in zip(profile.samples, profile.weights, strict=True):
        seconds[index] += weight
    return list(zip(profile.stacks, seconds, strict=True))


def _label(profile: Profile, index: int) -> str:
    frame = profile.frames[index]
    return f"{frame.name} ({frame.file}:{frame.line})" if frame.file else frame.name


def _pruned(node: dict[str, Any], least: float) -> dict[str, Any]:
    children = sorted(node["c"].values(), key=_value, reverse=True)
    return {
        "n": node["n"],
        "v": round(node["v"], 6),
        "c": [_pruned(child, least) for child in children if child["v"] > least],
    }


def _value(node: dict[str, Any]) -> float:
    return float(node["v"])
