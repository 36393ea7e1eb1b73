"""One arm under one scenario, once: start, connect, feed, measure, judge."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from bench import measure
from bench.arms.base import Arm, FeedKind, Place
from bench.client.driver import SPARE_FILES, Clients, Event, open_files_limit, raise_open_files_limit
from bench.feed import Feed, HttpTarget, MqttTarget, NatsTarget, SocketTarget, Target
from bench.measure import Cpu
from bench.scenarios import Scenario
from bench.verdict import Observed, figures, limits, void_reasons
from odinws.errors import OdinError
from odinws.harness.nats import NatsServer
from odinws.harness.ports import free_ports
from odinws.harness.prometheus import Metrics, scrape
from odinws.harness.server import START_SECONDS, Server

CONNECT_SECONDS = 180.0
SETTLE_SECONDS = 1.0
"""After the last subscription: servers without an acknowledgement catch up, memory comes to rest."""
DRAIN_STILL_SECONDS = 0.5
DRAIN_SECONDS = 15.0
OVERLOAD_DRAIN_SECONDS = 90.0
LOOK_SECONDS = 1.0
BACK_SECONDS = 0.1
"""Between two looks at who has come back."""
LEAVE_SECONDS, LEAVE_LOOK_SECONDS = 20.0, 0.5
AT_REST = 0.05
"""Cores: a server that uses less has done with its clients."""
SAMPLE_SECONDS = 5.0
"""The length of a CPU sample, and the time between two lines for whoever watches."""
UNEVEN = 1.12
"""Workers share connections unevenly, so each needs room for more than its part."""

Result = dict[str, Any]


def impossible(arm: Arm, scenario: Scenario) -> str | None:
    """Why the arm or this machine's limits forbid the trial; None when they do not."""
    if scenario.deflate and not arm.deflates:
        return "no permessage-deflate"
    if arm.most_subscribed is not None and scenario.subscribed > arm.most_subscribed:
        return f"{arm.most_subscribed} channels for one connection at most"
    processes = scenario.workers if arm.takes_workers else 1
    limit, connections = open_files_limit(), scenario.most_connections
    room = 1.0 if processes == 1 else UNEVEN
    if connections / processes * room + SPARE_FILES > limit:
        return f"{connections:,} connections in {processes} process(es) of {limit:,} open files"
    return None


@dataclass(frozen=True)
class Trial:
    """Carries one trial out."""

    arm: Arm
    scenario: Scenario
    seed: int
    say: Callable[[str], None]
    """Called with a line for whoever watches."""

    def run(self) -> Result:
        """The result: `status` is ok, void, failed or impossible, `reasons` says why."""
        result: Result = {"arm": self.arm.name, "scenario": self.scenario.name, "seed": self.seed}
        if reason := impossible(self.arm, self.scenario):
            return {**result, "status": "impossible", "reasons": [reason]}
        try:
            with tempfile.TemporaryDirectory(prefix="bench-") as directory:
                return result | self._with_server(Path(directory))
        except (OdinError, OSError, psutil.NoSuchProcess) as error:
            return {**result, "status": "failed", "reasons": [str(error)]}

    def _with_server(self, directory: Path) -> Result:
        scenario, arm = self.scenario, self.arm
        raise_open_files_limit()
        port, nats_port, inner_port = free_ports(3)
        place = Place(directory, port, nats_port, scenario, inner_port)
        with contextlib.ExitStack() as stack:
            ours = [psutil.Process()]
            sockets = None
            if arm.feed is FeedKind.SOCKET:
                sockets = stack.enter_context(contextlib.closing(SocketTarget(place.feed_socket)))
            if arm.feed is FeedKind.NATS:
                beside = stack.enter_context(NatsServer(directory, port=nats_port))
                ours.append(psutil.Process(beside.pid))
            server = stack.enter_context(arm.server(place))
            if sockets is not None:
                sockets.accept(scenario.workers if arm.takes_workers else 1, START_SECONDS)
            target: Target
            match arm.feed:
                case FeedKind.HTTP:
                    target = stack.enter_context(contextlib.closing(HttpTarget(port)))
                case FeedKind.MQTT:
                    target = stack.enter_context(contextlib.closing(MqttTarget(nats_port)))
                case _:
                    target = sockets or stack.enter_context(
                        contextlib.closing(NatsTarget(nats_port, whole_text=arm.feed is FeedKind.OWN_NATS))
                    )
            return self._under_load(server, ours, place, target)

    def _under_load(self, server: Server, ours: list[psutil.Process], place: Place, target: Target) -> Result:
        scenario = self.scenario
        servers = measure.processes(server.pid)
        empty, idle = measure.memory(servers), measure.cpu(servers)
        feed = Feed(scenario, target)
        with Clients(place.port, self.arm.wires, scenario, self.seed, place.directory) as clients:
            ramp = scenario.connections / scenario.ramp_per_second if scenario.ramp_per_second else 0.0
            ready = clients.wait_ready(CONNECT_SECONDS + ramp)
            self.say(f"{ready['ready']:,} of {scenario.connections:,} connected in {ready['seconds']:.1f} s")
            time.sleep(SETTLE_SECONDS)
            full, opened = measure.memory(servers), measure.cpu(servers).since(idle)
            feed.start()
            try:
                time.sleep(scenario.warmup_seconds)
                calm = self._calm(clients)
                told_before = self._told(server.admin_port)
                published = feed.published
                clients.begin()
                began = measure.cpu(servers)
                storm = self._vanish(servers, clients, began) if scenario.vanishing else None
                used, ours_used, samples, peak = self._watch(servers, began, ours, server.admin_port, clients)
                window = clients.end()
                published = feed.published - published
                told_after = self._told(server.admin_port)
                after = measure.memory(servers)
            finally:
                feed.stop()
            clients.quiet()
            patience = OVERLOAD_DRAIN_SECONDS if scenario.overload else DRAIN_SECONDS
            drained = clients.wait_drained(DRAIN_STILL_SECONDS, patience)
            final = clients.finish(feed.published)
            closed = self._leave(servers, clients)
        told = (told_before, told_after) if told_before and told_after else None
        seen = Observed(
            ready,
            window,
            used,
            samples,
            ours_used.total,
            published,
            empty,
            full,
            after,
            peak,
            told,
            opened.total,
            closed,
            final["ready"],
            storm,
            calm,
        )
        reasons = void_reasons(scenario, seen.window, feed.worst_lag_seconds)
        if feed.error is not None:
            reasons.append(f"feed: {feed.error}")
        return {
            "status": "void" if reasons else "ok",
            "reasons": reasons,
            "limits": limits(seen.window, feed.worst_lag_seconds) if scenario.overload else [],
            **figures(scenario, seen),
            "ready": ready,
            "window": seen.window,
            "final": final,
            "drained": drained,
            "published": feed.published,
            "resumes": all(wire.since for wire in self.arm.wires),
            "feed_lag_seconds": feed.worst_lag_seconds,
            "feed_held_seconds": feed.held_seconds,
            "cpu": {**asdict(seen.used), "samples": seen.samples},
        }

    def _told(self, admin_port: int) -> Metrics | None:
        """What the server says of itself; None when it says nothing."""
        return scrape(admin_port) if self.arm.feed is FeedKind.NATS else None

    def _calm(self, clients: Clients) -> Event | None:
        """What clients see before the storm; None: there is none."""
        if not self.scenario.calm_seconds:
            return None
        clients.begin()
        time.sleep(self.scenario.calm_seconds)
        return clients.end()

    def _vanish(self, servers: list[psutil.Process], clients: Clients, began: Cpu) -> Cpu | None:
        """Those of the scenario vanish; what the server used from their return until all are back.

        None: they do not return, or not within the window.
        """
        scenario = self.scenario
        clients.vanish()
        if not scenario.away_seconds:
            return None
        time.sleep(scenario.away_seconds)
        away = measure.cpu(servers)
        while time.monotonic() < began.seconds + scenario.window_seconds:
            time.sleep(BACK_SECONDS)
            if clients.end()["returned"] >= scenario.vanishing:
                return measure.cpu(servers).since(away)
        return None

    def _leave(self, servers: list[psutil.Process], clients: Clients) -> float:
        """All clients vanish; the seconds of CPU that the server uses until it has come to rest."""
        before = last = measure.cpu(servers)
        clients.leave()
        deadline = time.monotonic() + LEAVE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(LEAVE_LOOK_SECONDS)
            now = measure.cpu(servers)
            used, last = now.since(last).total, now
            if used < AT_REST * LEAVE_LOOK_SECONDS:
                break
        return last.since(before).total

    def _watch(
        self,
        servers: list[psutil.Process],
        begun: Cpu,
        ours: list[psutil.Process],
        admin_port: int,
        clients: Clients,
    ) -> tuple[Cpu, Cpu, list[float], int]:
        """What is left of a window that has begun.

        Returns what the server and the bench itself used, cores of the server in each whole SAMPLE_SECONDS,
        and its highest resident memory in bytes. A watched server is asked for its metrics with each sample.
        """
        samples: list[float] = []
        peak, ours_begun = 0, measure.cpu(ours)
        last, end = begun, begun.seconds + self.scenario.window_seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
            peak = max(peak, measure.resident(servers))
            if time.monotonic() - last.seconds >= SAMPLE_SECONDS:
                now = measure.cpu(servers)
                used = now.since(last)
                samples.append(used.total / used.seconds)
                last = now
                if self.arm.is_watched:
                    self._told(admin_port)
                so_far = clients.end()
                self.say(f"{so_far['delivered']:,} delivered to {so_far['ready']:,}")
        return measure.cpu(servers).since(begun), measure.cpu(ours).since(ours_begun), samples, peak
