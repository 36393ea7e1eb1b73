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
    deflate: bool = False
    """Clients offer permessage-deflate without context takeover, and take no server that refuses."""
    overload: bool = False
    """May be more than machine, clients or feed carry: their limits are noted and make nothing void."""
    baselines: tuple[str, ...] = ()
    """Scenarios against which this one is set, arm by arm and round by round, when they are in the run."""
    shows: tuple[str, ...] = ()
    """Figures that have a column here beside the usual ones (see report)."""

    @property
    def due_per_second(self) -> float:
        """Messages per second due to all connections together, when none is stalled and none joins."""
        return self.bursts_per_second * self.burst_size * self.connections * self.subscribed / self.channels

    def channel_names(self) -> list[str]:
        """The channels in the order of their indices."""
        return [f"token.T{index}" for index in range(self.channels)]


_SINGLE = Scenario("single", "one channel, 2,000 connections, 40 messages/s")

_SEED = Scenario(
    "seed",
    "10 tokens, 5 subscribed of 10, 10,000 connections (500/s), 19.2 messages/s in bursts of ten, 2 workers",
    connections=10_000,
    channels=10,
    subscribed=5,
    burst_size=10,
    bursts_per_second=1.92,
    window_seconds=30.0,
    workers=2,
    ramp_per_second=500,
    shows=("cores_median", "cores_highest", "lag_p99_ms"),
)

_COMPRESSED = replace(
    _SINGLE,
    name="compressed",
    what="one channel, 2,000 connections, 20 messages/s of 400 bytes, permessage-deflate",
    payload_bytes=400,
    bursts_per_second=20.0,
    deflate=True,
    baselines=("compressed-off", "single"),
    shows=("wire_bytes_per_message",),
)

_PEAK = replace(
    _SEED,
    name="peak",
    what="60,000 connections at its feed, 4 workers; 4,000 more join in the window, up to 1,500/s",
    connections=60_000,
    workers=4,
    ramp_per_second=0,
    window_seconds=20.0,
    joins=4_000,
    join_rate=1_500,
    overload=True,
    shows=("joins_per_second", "subscribe_p99_ms", "lag_p99_ms"),
)

# The kernel takes 1.3 MB or more for a stalled client before its server notices: seconds of 320 KB/s.
_SLOW = replace(
    _SINGLE,
    name="slow",
    what="one channel, 1,000 connections, 8,000 bytes, 40 messages/s; 5 % of clients stop reading",
    connections=1_000,
    payload_bytes=8_000,
    stall_permille=50,
    window_seconds=20.0,
    baselines=("slow-none",),
    shows=("resident_growth_mb",),
)

SWEEP_SIZES = (500, 1_000, 2_000, 4_000, 8_000, 16_000)
_SWEEP_BASELINE = "sweep-2000"

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
    "seed": (_SEED,),
    "seed-100": (
        replace(_SEED, name="seed-100", what=_SEED.what.replace("500/s", "100/s"), ramp_per_second=100),
    ),
    "seed-even": (
        replace(
            _SEED,
            name="seed-even",
            what=_SEED.what.replace("in bursts of ten", "evenly, one at a time"),
            burst_size=1,
            bursts_per_second=19.2,
            baselines=("seed",),
        ),
    ),
    "wide": (
        Scenario(
            "wide",
            "10,000 channels, 2,000 connections with 500 each, 400 messages/s, evenly",
            channels=10_000,
            subscribed=500,
            bursts_per_second=400.0,
            baselines=("single",),
        ),
    ),
    "sweep": tuple(
        Scenario(
            f"sweep-{size}",
            f"one channel, {size:,} connections, 10 messages/s",
            connections=size,
            bursts_per_second=10.0,
            baselines=() if f"sweep-{size}" == _SWEEP_BASELINE else (_SWEEP_BASELINE,),
        )
        for size in SWEEP_SIZES
    ),
    "compressed": (
        replace(
            _COMPRESSED,
            name="compressed-off",
            what=_COMPRESSED.what.replace("permessage-deflate", "without compression"),
            deflate=False,
            baselines=(),
        ),
        _COMPRESSED,
    ),
    "peak": (_PEAK,),
    "beyond": (
        replace(
            _PEAK,
            name="beyond",
            what="100,000 connections, 5 messages/s in bursts of ten, 6 workers; 4,000 join in the window",
            connections=100_000,
            bursts_per_second=0.5,
            workers=6,
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
    "slow": (
        replace(
            _SLOW,
            name="slow-none",
            what=_SLOW.what.replace("5 % of clients stop reading", "all clients read"),
            stall_permille=0,
            baselines=(),
        ),
        _SLOW,
    ),
    "churn": (
        replace(
            _SINGLE,
            name="churn",
            what="one channel, 2,000 connections, 40 messages/s, 100 reconnects/s",
            churn_per_second=100,
            shows=("subscribe_p99_ms",),
        ),
    ),
    "ingest": (
        Scenario(
            "ingest",
            "10 channels, 100 connections with one each, 50,000 messages/s: 500,000 deliveries/s",
            connections=100,
            channels=10,
            burst_size=100,
            bursts_per_second=500.0,
            window_seconds=20.0,
            overload=True,
            shows=(
                "published_per_second",
                "stall_p99_ms",
                "stall_p999_ms",
                "stall_longest_ms",
                "resident_before_mb",
                "resident_peak_mb",
                "resident_after_mb",
            ),
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

BY_NAME: dict[str, Scenario] = {
    scenario.name: scenario for group in (*SCENARIOS.values(), (SMOKE,)) for scenario in group
}
