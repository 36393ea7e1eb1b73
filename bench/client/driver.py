"""Starts the measuring client in as many processes as its connections need, and speaks with them."""

from __future__ import annotations

import contextlib
import json
import resource
import select
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.build import BENCH, compile_c
from bench.scenarios import CHANNEL_NAME, Scenario
from odinws.harness.process import STOP_SECONDS, Process, ProcessError
from odinws.histogram import quantile

Event = dict[str, Any]

SPARE_FILES = 100
"""Descriptors of a process that are not connections."""
_WORST = (
    *("seconds", "window_seconds", "join_seconds", "return_seconds", "catch_up_seconds", "longest_pass"),
    *("latency.longest", "subscribe.longest"),
)
_IN_FLIGHT = 256  # handshakes at one time, of all processes together
_SAME = ("channels", "subscribed", "stall_permille", "deflate")
_SHARED_OUT = ("connections", "joins", "vanishing")
_RATES = ("ramp_per_second", "join_rate", "churn_per_second")  # of all processes together


@dataclass(frozen=True)
class Wire:
    """How a client speaks to a server: hello, then a command of prefix, items with separators, suffix."""

    path: str = "/"
    hello: str = ""
    """A frame of its own, unless empty."""
    greeting: str = ""
    """The command waits for a frame that begins with this; empty: for none."""
    prefix: str = '{"type":"subscribe","data":{"channels":['
    item: str = '"%c"'
    """What subscribes to a channel: %c is its name, %i its index."""
    separator: str = ","
    suffix: str = "]}}"
    since: str = ""
    """Between the items and, for who resumes, `since_item`s, then `since_suffix`. Empty: nobody does."""
    since_item: str = ""
    """%s is the sequence of the last message, 0 if there was none."""
    since_suffix: str = ""
    ack: str = "subscription_ack"
    """A frame with this in it means subscribed; empty: no waiting."""
    ask: str = ""
    """A frame that begins with this is answered with `reply`; empty: none is."""
    reply: str = ""
    binary: bool = False
    numbered: bool = False
    """The server numbers as odinws does, and tells of what it leaves out."""
    headers: str = ""
    """More lines of the upgrade's head, each with its end."""
    in_path: bool = False
    """What subscribes is the end of the path, and no command."""
    mqtt: bool = False
    """Clients speak MQTT; `item` is a topic."""
    protobuf: bool = False
    """Clients speak Centrifugo's protocol in Protobuf; `item` is a channel."""
    sse: bool = False
    """Clients read Server-Sent Events, and say nothing."""
    tls: bool = False
    """wss, without checks of the certificate."""


def open_files_limit() -> int:
    """Descriptors that one process may have: the hard limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def raise_open_files_limit() -> int:
    """Let this process, and what it starts from now on, have as many descriptors as the hard limit says."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files_limit(), open_files_limit()))
    return open_files_limit()


def has_tls() -> bool:
    """Whether the client can speak TLS: OpenSSL's headers are there."""
    return Path("/usr/include/openssl/ssl.h").is_file()


def build() -> Path:
    """Compile the client, which needs a C compiler and zlib. Raises MissingError."""
    if has_tls():
        return compile_c(BENCH / "client", "client-tls", "-DWITH_TLS", "-lz", "-lssl", "-lcrypto")
    return compile_c(BENCH / "client", "client", "-lz")


def bucket_bound(bucket: int) -> int:
    """The nanoseconds that a bucket ends before: exact up to 64, within 3.2 % above. Mirrors client.c."""
    return bucket + 1 if bucket < 64 else (33 + bucket % 32) << (bucket // 32 - 1)


def latencies(histogram: Mapping[str, int]) -> dict[str, float | int | None]:
    """Count, p50, p95, p99 and longest of what clients counted; milliseconds, None without values.

    The longest is exact, and no percentile lies above it.

    Args:
        histogram: counts by bucket, and the `longest` in nanoseconds.
    """
    buckets = {int(bucket): count for bucket, count in histogram.items() if bucket != "longest"}
    longest = histogram["longest"]
    counts = [buckets.get(bucket, 0) for bucket in range(max(buckets, default=0) + 2)]
    bounds = [bucket_bound(bucket) for bucket in range(len(counts) - 1)]

    def percentile_ms(percent: int) -> float | None:
        found = quantile(bounds, counts, percent / 100)
        return None if found is None else min(found, longest) / 1e6

    return {
        "count": sum(counts),
        **{f"p{percent}_ms": percentile_ms(percent) for percent in (50, 95, 99)},
        "longest_ms": longest / 1e6 if buckets else None,
    }


def add_up(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One event of several: counts added, histograms summarised, of what has a worst the worst."""
    whole: dict[str, Any] = {"closes": {}, "refused": {}}
    for key in {key: None for event in events for key in event if key != "event"}:
        values = [event.get(key, 0) for event in events]
        group, _, member = key.rpartition(".")
        where = whole.setdefault(group, {}) if group else whole
        where[member] = max(values) if key in _WORST else sum(values)
    for name in ("latency", "subscribe"):
        whole[name] = latencies(whole[name])
    shares = [event["cpu_seconds"] / max(event["window_seconds"], 1e-9) for event in events]
    return {**whole, "busiest_core_share": max(shares)}


class ClientProcess(Process):
    """One process of the client: it answers each command with one event. `end` must be called."""

    def say(self, line: str) -> None:
        """Send a command. If the process has ended, `expect` tells."""
        with contextlib.suppress(BrokenPipeError):
            self.pipes[0].write(line + "\n")
            self.pipes[0].flush()

    def expect(self, name: str, timeout_seconds: float) -> Event:
        """Wait for an event of that name. Raises ProcessError when it does not come."""
        if not select.select([self.pipes[1]], [], [], timeout_seconds)[0]:
            raise ProcessError(f"no '{name}' from the client within {timeout_seconds:g} s")
        if not (line := self.pipes[1].readline()):
            self.wait()
            self.check()
        event: Event = json.loads(line)
        if event["event"] != name:
            raise ProcessError(f"'{event['event']}' from the client, and not '{name}'")
        return event

    def end(self, number: int = signal.SIGTERM, seconds: float = STOP_SECONDS) -> None:
        super().end(number, seconds)
        for pipe in self.pipes:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _spoken(wire: Wire) -> dict[str, Any]:
    """Its options, with the client's names for what an item is made of."""
    options = asdict(wire)
    for name in ("item", "since_item"):
        item = options[name].replace("%c", CHANNEL_NAME.format("%1$u")).replace("%i", "%1$u")
        options[name] = item.replace("%s", "%2$llu")
    return options


class Clients:
    """All client processes of one trial. Use as a context manager: leaving it ends them.

    Args:
        wires: the processes take turns with them; there are as many of each.
    """

    def __init__(
        self, port: int, wires: Sequence[Wire], scenario: Scenario, seed: int, directory: Path
    ) -> None:
        options: dict[str, Any] = {name: getattr(scenario, name) for name in _SAME}
        options |= {"port": port, "seed": seed, "away_ms": round(1000 * scenario.away_seconds)}
        room = len(wires) * (open_files_limit() - SPARE_FILES)
        parts = len(wires) * -(-scenario.most_connections // room)
        options |= {name: -(-getattr(scenario, name) // parts) for name in _RATES}
        options["in_flight"] = max(1, _IN_FLIGHT // parts)
        program, first = str(build()), 0
        self._processes: list[ClientProcess] = []
        for part in range(parts):
            options |= _spoken(wires[part % len(wires)])
            # As even as can be.
            options |= {name: (getattr(scenario, name) + part) // parts for name in _SHARED_OUT}
            options["first_id"] = first
            first += options["connections"] + options["joins"]
            environ = {
                name: str(int(value) if isinstance(value, bool) else value) for name, value in options.items()
            }
            log = directory / f"client-{part}.log"
            self._processes.append(ClientProcess([program], log, environ=environ, piped=True).start())

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.end()

    def _all(self, command: str) -> Event:
        for process in self._processes:
            process.say(command)
        return self._answers(command.partition(" ")[0], 30.0)

    def _answers(self, name: str, timeout_seconds: float) -> Event:
        deadline = time.monotonic() + timeout_seconds
        return add_up(
            [process.expect(name, max(0.0, deadline - time.monotonic())) for process in self._processes]
        )

    def wait_ready(self, timeout_seconds: float) -> Event:
        """Wait until every connection is subscribed or has failed; called first. Raises ProcessError."""
        return self._answers("ready", timeout_seconds)

    def begin(self) -> None:
        """Start a measured window: counts from here."""
        self._all("begin")

    def end(self) -> Event:
        """The counts since `begin`."""
        return self._all("end")

    def vanish(self) -> None:
        """Those of the scenario who vanish do, and come back when they have been away."""
        self._all("vanish")

    def leave(self) -> None:
        """All clients vanish, for good."""
        self._all("leave")

    def quiet(self) -> None:
        """No more churn and joins; stalled clients read again."""
        self._all("quiet")

    def wait_drained(self, still_seconds: float, timeout_seconds: float) -> bool:
        """Wait until nothing more arrives for a while. False: it still did at the end."""
        deadline = time.monotonic() + timeout_seconds
        changed = time.monotonic()
        before = -1
        while time.monotonic() < deadline:
            now = self.end()
            frames = now["frames"] - now["pings"]
            if frames != before:
                before, changed = frames, time.monotonic()
            elif time.monotonic() - changed >= still_seconds:
                return True
            time.sleep(0.1)
        return False

    def finish(self, published: int) -> Event:
        """The verdict, given how many messages there were on all channels, which the feed takes in turn."""
        return self._all(f"finish {published}")
