"""Channel names and wildcards. Pure."""

from __future__ import annotations

import re

CHANNEL = re.compile(r"(?:token|user)\.[A-Za-z0-9_-]{1,64}|global")
WILDCARDS = ("token.*", "user.*")
STATS_CHANNEL = "server.stats"  # not from NATS: the server's own stats, for clients that may inspect it
MAX_CHANNEL_BYTES = len("token.") + 64


def can_be_subscribed(channel: str) -> bool:
    """Whether this is the name of a NATS channel, or a wildcard."""
    return bool(CHANNEL.fullmatch(channel)) or channel in WILDCARDS


def wildcard(channel: str) -> str:
    """The wildcard that matches this channel, as `token.*` matches `token.BTC`; "" for `global`."""
    kind, dot, _ = channel.partition(".")
    return f"{kind}.*" if dot else ""
