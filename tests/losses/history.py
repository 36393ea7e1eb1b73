"""A history: the settings of a stream, and what is done to it. Made from a seed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANNELS = ("token.A", "token.B", "token.C", "global")
WANTED = (("token.A",), ("token.B", "global"), ("token.*",), ("token.C", "token.A", "token.B"))

Step = tuple[Any, ...]


@dataclass(frozen=True)
class History:
    """What happens.

    Attributes:
        config: of the stream, as JetStream takes it; `other`: it has subjects of others, too; `source`: it
            takes the messages of another stream; `mirror`: it is a mirror of the one that is published to.
        subjects: that the server carries, as in `WS_SUBJECTS`.
        ring: how many messages a worker keeps.
        steps: (what, arguments...), see `World`.
    """

    config: dict[str, Any]
    subjects: str
    ring: int
    steps: tuple[Step, ...]


def examples() -> dict[int, History]:
    """The histories that have failed once."""
    found = json.loads((Path(__file__).parent / "examples.json").read_text())
    return {
        number: History(**{**one, "steps": tuple(tuple(step) for step in one["steps"])})
        for number, one in enumerate(found)
    }


def make(seed: int, *, durable: bool) -> History:
    """The history of a seed; `durable`: the stream survives a restart of nats-server."""
    rng = random.Random(seed)
    storage = rng.choice(["file", "memory"])
    config: dict[str, Any] = {"storage": "file" if durable else storage}
    limited = rng.random() < 0.5
    if limited:
        config["max_msgs_per_subject"] = rng.choice([1, 1, 1, 2, 5])
    if rng.random() < 0.25:
        config["max_msgs"] = rng.choice([3, 20])
    if rng.random() < 0.15:
        config["max_age"] = 500_000_000
    if rng.random() < 0.15:
        config["allow_msg_ttl"] = True
    if rng.random() < 0.15:
        config["allow_rollup_hdrs"] = True
    if rng.random() < 0.15:
        config |= {"discard": "new", "discard_new_per_subject": limited and rng.random() < 0.5}
    if rng.random() < 0.1:
        config["retention"] = "interest"
    config["allow_direct"] = rng.random() < 0.9
    kind = rng.random()
    if kind < 0.25:
        config["other"] = True
    elif kind < 0.4:
        config["source"] = True
    elif kind < 0.5 and "retention" not in config and "discard" not in config:
        config["mirror"] = True
    subjects = rng.choice(["", "", "token.*", "token.A,token.B,global"])
    steps = [("connect", rng.randrange(len(WANTED)))] * (rng.random() < 0.8)
    steps += [_step(rng, config) for _ in range(rng.randrange(4, 22))]
    return History(config, subjects, rng.choice([1, 5, 1000]), tuple(steps))


def _step(rng: random.Random, config: dict[str, Any]) -> Step:
    weights = {
        "publish": 12,
        "foreign": 0 if "mirror" in config else 4 if {"other", "source"} & config.keys() else 1,
        "delete": 4,
        "purge": 2,
        "connect": 5,
        "leave": 3,
        "lost": 2,
        "away": 3,
        "restart": 2,
        "update": 2,
        "wait": 3,
        "replay": 2,
    }
    [what] = rng.choices(list(weights), list(weights.values()))
    if what == "publish":
        kinds = ["", "", "", "ttl" * ("allow_msg_ttl" in config), "rollup" * ("allow_rollup_hdrs" in config)]
        channels = [rng.choice(CHANNELS) for _ in range(rng.choice([1, 1, 3, 30]))]
        return what, channels, rng.choice(kinds)
    if what == "foreign":
        return what, rng.choice([1, 10])
    if what == "delete":
        return what, rng.choice([1, 3]), rng.choice([1, 10])  # how many of the newest how many
    if what == "purge":
        return what, rng.choice([*CHANNELS, ""]), rng.choice([0, 0, 1])  # of which, and how many to keep
    if what in ("connect", "leave"):
        return what, rng.randrange(len(WANTED))
    if what == "update":
        # A mirror that is full and discards what is new waits for ever.
        new = ["new"] * ("mirror" not in config)
        return what, rng.choice(["other", "own", "limit", "fewer", "age", "rollup", "direct", *new])
    if what == "wait":
        return what, rng.choice([0.02, 0.1, 0.3])
    if what == "replay":
        return what, rng.choice(CHANNELS), rng.randrange(1, 40)
    return (what,)
