"""What a scenario is. They all stand in `scenarios.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

CHANNEL_NAME = "token.T{}"
"""With the index of the channel; bench/client/judge.c and the C peers know it too."""


@dataclass(frozen=True)
class Scenario:
    """One load, the same for every arm.

    The feed publishes `burst_size` messages at one instant, `bursts_per_second` times a second, walking the
    channels in turn. Every connection subscribes to `subscribed` of the `channels`, chosen by the seed.
    """

    name: str
    what: str
    group: str = ""
    """Scenarios of one group are run together."""
    connections: int = 2_000
    channels: int = 1
    subscribed: int = 1
    payload_bytes: int = 200
    bursts_per_second: float = 40.0
    burst_size: int = 1
    warmup_seconds: float = 3.0
    window_seconds: float = 10.0
    workers: int = 1
    ramp_per_second: int = 0
    """Connections begun per second; 0: as fast as 256 handshakes at one time allow."""
    ping_seconds: int = 0
    """0: no pings within any window."""
    stall_permille: int = 0
    churn_per_second: int = 0
    joins: int = 0
    """Connections that come in addition, from the beginning of the window on."""
    join_rate: int = 0
    """Of these begun per second, at most."""
    vanishing: int = 0
    """Connections that vanish at one instant, without a close frame, when the window begins."""
    away_seconds: float = 0.0
    """Until they come back, 256 handshakes at one time, and resume if the server can; 0: they do not."""
    calm_seconds: float = 0.0
    """Before that, latency is measured in this time too."""
    deflate: bool = False
    """Clients offer permessage-deflate without context takeover, and take no server that refuses."""
    overload: bool = False
    """May be more than machine, clients or feed carry: their limits are noted and make nothing void."""
    baselines: tuple[str, ...] = ()
    """Scenarios against which this one is set, arm by arm and round by round, when they are in the run."""
    shows: tuple[str, ...] = ()
    """Figures that have a column here beside the usual ones (see report)."""

    @property
    def most_connections(self) -> int:
        """With those that join."""
        return self.connections + self.joins

    @property
    def due_per_second(self) -> float:
        """Messages per second due to all connections together, when none is stalled and none joins."""
        return self.bursts_per_second * self.burst_size * self.connections * self.subscribed / self.channels

    def sized(self, connections: int) -> Scenario:
        """The same with so many connections, and as many more or fewer who join or vanish."""
        share = connections / self.connections
        return replace(
            self,
            connections=connections,
            joins=round(self.joins * share),
            vanishing=round(self.vanishing * share),
        )

    def channel_names(self) -> list[str]:
        """The channels in the order of their indices."""
        return [CHANNEL_NAME.format(index) for index in range(self.channels)]


def _read() -> dict[str, Scenario]:
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())

    def made(name: str) -> Scenario:
        row: dict[str, Any] = {"name": name, "group": name, "baselines": ()}
        row |= {key: tuple(value) if isinstance(value, list) else value for key, value in table[name].items()}
        base = made(row.pop("like")) if "like" in row else Scenario("", "")
        return replace(base, **row)

    return {name: made(name) for name in table}


BY_NAME = _read()
SMOKE = BY_NAME["smoke"]
SCENARIOS: dict[str, tuple[Scenario, ...]] = {
    group: tuple(each for each in BY_NAME.values() if each.group == group)
    for group in dict.fromkeys(each.group for each in BY_NAME.values() if each is not SMOKE)
}
"""By the name under which they are run."""
