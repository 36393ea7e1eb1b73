"""One arm under one scenario, once: start, connect, feed, measure, judge."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from bench import measure
from bench.arms.base import Arm, Command, FeedKind, Place
from bench.build import has_zlib
from bench.client.driver import SPARE_FILES, Clients, open_files_limit, raise_open_files_limit
from bench.client.wire import Load
from bench.feed import Feed, NatsTarget, SocketTarget, Target
from bench.observe import Observer
from bench.scenarios import Scenario
from bench.verdict import Measured, figures, limits, void_reasons
from odinws.errors import OdinError
from odinws.harness import fetch
from odinws.harness.nats import NatsServer
from odinws.harness.ports import free_ports
from odinws.harness.process import Process
from odinws.harness.prometheus import scrape
from odinws.harness.server import START_SECONDS, clean_environ

CONNECT_SECONDS = 180.0
SETTLE_SECONDS = 1.0
"""After the last subscription: servers without an acknowledgement catch up, memory comes to rest."""
DRAIN_STILL_SECONDS = 0.5
DRAIN_SECONDS = 15.0
OVERLOAD_DRAIN_SECONDS = 90.0
UNEVEN = 1.12
"""Workers share connections unevenly, so each needs room for more than its part."""

Result = dict[str, Any]


def impossible(arm: Arm, scenario: Scenario) -> str | None:
    """Why the arm or this machine's limits forbid the trial; None when they do not."""
    if scenario.deflate and not arm.deflates:
        return "no permessage-deflate"
    if scenario.deflate and not has_zlib():
        return "zlib.h is not installed (Debian: zlib1g-dev), so the client cannot inflate"
    processes = scenario.workers if arm.takes_workers else 1
    limit = open_files_limit()
    room = 1.0 if processes == 1 else UNEVEN
    connections = scenario.most_connections
    if connections / processes * room + SPARE_FILES > limit:
        return f"{connections:,} connections in {processes} process(es) of {limit:,} open files"
    return None


def _load(scenario: Scenario, seed: int) -> Load:
    return Load(
        connections=scenario.connections,
        channels=scenario.channel_names(),
        subscribed=scenario.subscribed,
        seed=seed,
        stall_permille=scenario.stall_permille,
        churn_per_second=scenario.churn_per_second,
        rate=scenario.ramp_per_second,
        joins=scenario.joins,
        join_rate=scenario.join_rate,
        deflate=scenario.deflate,
    )


@contextlib.contextmanager
def running(command: Command, port: int, log: Path) -> Iterator[Process]:
    """A started, ready server; ended on leaving.

    Raises ProcessError when it is not ready within START_SECONDS.
    """
    environ = clean_environ(command.environment)
    with Process(command.arguments, log, environ=environ, directory=command.directory) as process:
        process.wait_until(lambda: fetch.answers(port, command.ready_path), START_SECONDS, "ready")
        yield process


class Trial:
    """Carries one trial out. `say` is called with a line for whoever watches."""

    def __init__(self, arm: Arm, scenario: Scenario, seed: int, say: Callable[[str], None]) -> None:
        self._arm = arm
        self._scenario = scenario
        self._seed = seed
        self._say = say

    def run(self) -> Result:
        """The result: `status` is ok, void, failed or impossible, `reasons` says why."""
        result: Result = {"arm": self._arm.name, "scenario": self._scenario.name, "seed": self._seed}
        reason = impossible(self._arm, self._scenario)
        if reason:
            return {**result, "status": "impossible", "reasons": [reason]}
        try:
            with tempfile.TemporaryDirectory(prefix="bench-") as directory:
                result |= self._measured(Path(directory))
        except (OdinError, OSError, psutil.NoSuchProcess) as error:
            return {**result, "status": "failed", "reasons": [str(error)]}
        return result

    def _measured(self, directory: Path) -> Result:
        scenario, arm = self._scenario, self._arm
        raise_open_files_limit()
        port, nats_port = free_ports(2)
        place = Place(directory, port, nats_port, directory / "feed.sock", scenario)
        with contextlib.ExitStack() as stack:
            sockets: SocketTarget | None = None
            ours = [psutil.Process()]
            if arm.feed is FeedKind.SOCKET:
                sockets = stack.enter_context(contextlib.closing(SocketTarget(place.feed_socket)))
            if arm.feed is FeedKind.NATS:
                beside = stack.enter_context(NatsServer(directory, port=nats_port))
                ours.append(psutil.Process(beside.pid))
            process = stack.enter_context(running(arm.command(place), port, directory / "server.log"))
            if sockets is not None:
                sockets.accept(scenario.workers if arm.takes_workers else 1, START_SECONDS)
            target: Target = sockets or stack.enter_context(
                contextlib.closing(NatsTarget(nats_port, whole_text=arm.feed is FeedKind.OWN_NATS))
            )
            return self._under_load(process.pid, ours, place, target)

    def _servers(self, root: int) -> list[psutil.Process]:
        return measure.processes(root, self._arm.excluded_processes)

    def _under_load(self, root: int, ours: list[psutil.Process], place: Place, target: Target) -> Result:
        scenario, path = self._scenario, self._arm.metrics_path
        empty = measure.memory(self._servers(root))
        feed = Feed(scenario, target)
        with Clients(place.port, self._arm.wire, _load(scenario, self._seed), place.directory) as clients:
            ramp = scenario.connections / scenario.ramp_per_second if scenario.ramp_per_second else 0.0
            ready = clients.wait_ready(CONNECT_SECONDS + ramp)
            self._say(f"{ready['ready']:,} of {scenario.connections:,} connected in {ready['seconds']:.1f} s")
            time.sleep(SETTLE_SECONDS)
            full = measure.memory(self._servers(root))
            feed.start()
            try:
                time.sleep(scenario.warmup_seconds)
                servers = self._servers(root)
                metrics = (lambda: scrape(place.port, path)) if path else None
                observer = Observer(servers, ours, clients, feed, metrics, self._arm.is_watched, self._say)
                seen = observer.window(scenario.window_seconds)
                after = measure.memory(servers)
            finally:
                feed.stop()
            clients.quiet()
            patience = OVERLOAD_DRAIN_SECONDS if scenario.overload else DRAIN_SECONDS
            drained = clients.wait_drained(DRAIN_STILL_SECONDS, patience)
            final = clients.finish(feed.counts)
        reasons = void_reasons(scenario, seen.clients, feed.worst_lag_seconds)
        if feed.error is not None:
            reasons.append(f"feed: {feed.error}")
        return {
            "status": "void" if reasons else "ok",
            "reasons": reasons,
            "limits": limits(seen.clients, feed.worst_lag_seconds) if scenario.overload else [],
            **figures(scenario, ready, Measured(seen, empty, full, after)),
            **seen.told,
            "ready": ready,
            "window": seen.clients,
            "final": final,
            "drained": drained,
            "published": sum(feed.counts),
            "feed_lag_seconds": feed.worst_lag_seconds,
            "feed_held_seconds": feed.held_seconds,
            "cpu": {
                **{name: getattr(seen.used, name) for name in ("seconds", "total", "user", "system")},
                "samples": seen.samples,
            },
        }
