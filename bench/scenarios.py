"""The scenarios, as data. Nothing here does I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Scenario:
    """One load, the same for every arm.

    The feed publishes `burst_size` messages at one instant, `bursts_per_second` times a second, walking the
    channels in turn. Every connection subscribes to `subscribed` of the `channels`, chosen by the seed.
    """

    name: str
    what: str
    connections: int = 2_000
    channels: int = 1
    subscribed: int = 1
    payload_bytes: int = 200
    bursts_per_second: float = 40.0
    burst_size: int = 1
    warmup_seconds: float = 3.0
    window_seconds: float = 10.0
    workers: int = 1
    ping_seconds: int = 0
    """0: no pings within any window."""
    stall_permille: int = 0
    churn_per_second: int = 0

    @property
    def due_per_second(self) -> float:
        """Messages per second due to all connections together, when none is stalled."""
        return self.bursts_per_second * self.burst_size * self.connections * self.subscribed / self.channels

    def channel_names(self) -> list[str]:
        """The channels in the order of their indices."""
        return [f"token.T{index}" for index in range(self.channels)]


_SINGLE = Scenario("single", "one channel, 2,000 connections, 40 messages/s")

SWEEP_SIZES = (500, 1_000, 2_000, 4_000, 8_000, 16_000)

SCENARIOS: dict[str, tuple[Scenario, ...]] = {
    "single": (_SINGLE,),
    "burst": (
        replace(
            _SINGLE,
            name="burst",
            what="ten tokens at one instant, all subscribed to all, 4 bursts/s",
            channels=10,
            subscribed=10,
            burst_size=10,
            bursts_per_second=4.0,
        ),
    ),
    "seed": (
        Scenario(
            "seed",
            "10 tokens, 5 subscribed of 10, 10,000 connections, 19.2 messages/s in bursts of ten",
            connections=10_000,
            channels=10,
            subscribed=5,
            burst_size=10,
            bursts_per_second=1.92,
            window_seconds=15.0,
        ),
    ),
    "wide": (
        Scenario(
            "wide",
            "10,000 channels, 2,000 connections with 500 each, 400 messages/s, evenly",
            channels=10_000,
            subscribed=500,
            bursts_per_second=400.0,
        ),
    ),
    "sweep": tuple(
        Scenario(
            f"sweep-{size}",
            f"one channel, {size:,} connections, 10 messages/s",
            connections=size,
            bursts_per_second=10.0,
        )
        for size in SWEEP_SIZES
    ),
    "peak": (
        Scenario(
            "peak",
            "60,000 connections at the seed's feed, 4 workers",
            connections=60_000,
            channels=10,
            subscribed=5,
            burst_size=10,
            bursts_per_second=1.92,
            window_seconds=20.0,
            workers=4,
        ),
    ),
    "idle": (
        Scenario(
            "idle",
            "10,000 connections, no messages, a ping every 25 s",
            connections=10_000,
            bursts_per_second=0.0,
            ping_seconds=25,
            warmup_seconds=2.0,
            window_seconds=50.0,
        ),
    ),
    # The kernel takes 1.3 MB or more for a stalled client before its server notices: seconds of 320 KB/s.
    "slow": (
        replace(
            _SINGLE,
            name="slow",
            what="one channel, 1,000 connections, 8,000 bytes, 40 messages/s; 5 % of clients stop reading",
            connections=1_000,
            payload_bytes=8_000,
            stall_permille=50,
            window_seconds=20.0,
        ),
    ),
    "churn": (
        replace(
            _SINGLE,
            name="churn",
            what="one channel, 2,000 connections, 40 messages/s, 100 reconnects/s",
            churn_per_second=100,
        ),
    ),
}

SMOKE = Scenario(
    "smoke",
    "every arm starts and delivers; says nothing about time",
    connections=50,
    channels=4,
    subscribed=2,
    burst_size=4,
    bursts_per_second=5.0,
    warmup_seconds=0.5,
    window_seconds=2.0,
)

DESCRIPTIONS: dict[str, str] = {
    scenario.name: scenario.what for group in (*SCENARIOS.values(), (SMOKE,)) for scenario in group
}
