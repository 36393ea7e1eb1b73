"""How channels are called. Pure."""

from __future__ import annotations

import re

CHANNEL = re.compile(r"(?:token|user)\.[A-Za-z0-9_-]{1,64}|global")
WILDCARDS = ("token.*", "user.*")
STATS_CHANNEL = "server.stats"  # not of NATS: what the server says of itself, to those who may inspect it
MAX_CHANNEL_BYTES = len("token.") + 64


def can_be_subscribed(channel: str) -> bool:
    """Whether it is a channel of NATS, or a wildcard."""
    return bool(CHANNEL.fullmatch(channel)) or channel in WILDCARDS


def wildcard(channel: str) -> str:
    """The pattern that stands for all channels of this one's kind; "" for `global`, which has no kind."""
    kind, dot, _ = channel.partition(".")
    return f"{kind}.*" if dot else ""
