"""The arms, by name."""

from __future__ import annotations

from collections.abc import Mapping

import click

from bench.arms import odinws, peers, tls
from bench.arms.base import Arm

ARMS: dict[str, Arm] = {arm.name: arm for arm in (*odinws.ARMS, *peers.ARMS, *tls.ARMS)}

REFERENCE = "c-loop"
"""What ratios are taken against, unless told otherwise."""


def choose(words: str, arms: Mapping[str, Arm] = ARMS) -> list[Arm]:
    """The arms named in a comma-separated list.

    The part of a name before its colon stands for all of that kind, `all` for all, but for those that run on
    request only. Raises click.BadParameter for a word that names none.
    """
    chosen: dict[str, Arm] = {}
    for word in words.split(","):
        found = {
            name: arm
            for name, arm in arms.items()
            if word == name or (not arm.on_request and word in ("all", name.partition(":")[0]))
        }
        if not found:
            raise click.BadParameter(f"{word} names no arm; there are {', '.join(arms)}")
        chosen.update(found)
    return list(chosen.values())
