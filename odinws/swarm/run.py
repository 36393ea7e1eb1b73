"""The swarm of a run, over one process or several.

Locust's master deals the connections out among the users, adds up what its workers count, and keeps the
record; a worker holds the connections. A run without workers does both in one process.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.event import AsyncResult
from locust import log
from locust.log import greenlet_exception_logger
from locust.runners import MasterRunner, WorkerRunner

from odinws.client.backoff import Backoff
from odinws.swarm.collect import Collector
from odinws.swarm.fleet import Client, Fleet
from odinws.swarm.locust_stats import Reporter

DEFAULT_HOST = "ws://127.0.0.1:3004"
_TICK_SECONDS = 0.02
_JOIN_SECONDS = 30.0
_FINISH_SECONDS = 10.0
_LOG = logging.getLogger("odin")


@dataclass(eq=False)
class Share:
    """A user's share of the connections."""

    index: int
    first: int
    count: int
    ramp: float  # connections per second; 0: at once
    part: float  # of all connections
    began: float = field(default_factory=time.monotonic)
    clients: list[Client] = field(default_factory=list)


class Deal:
    """Shares for users, each of another number; a number that is given back is dealt again."""

    def __init__(self) -> None:
        self._next = itertools.count()
        self._free: list[int] = []

    def share(self, connections: int, users: int) -> dict[str, int]:
        """The next one of `users` nearly equal shares; nothing is left for more users than that."""
        index = self._free.pop() if self._free else next(self._next)
        first, end = (min(connections, connections * i // max(1, users)) for i in (index, index + 1))
        return {"index": index, "first": first, "count": end - first}

    def back(self, index: int) -> None:
        self._free.append(index)


class Own:
    """What this process used and how long its loop stood still, since the last look."""

    def __init__(self) -> None:
        self._cpu, self._at = time.process_time(), time.monotonic()
        self._stall = 0.0

    def late(self, seconds: float) -> None:
        """A timer came that much too late."""
        self._stall = max(self._stall, seconds)

    def look(self) -> tuple[float, float]:
        """Percent of a core, and the longest stall in ms; both start anew."""
        cpu, at, stall = time.process_time(), time.monotonic(), self._stall
        percent = 100 * (cpu - self._cpu) / max(1e-3, at - self._at)
        self._cpu, self._at, self._stall = cpu, at, 0.0
        return round(percent, 1), round(stall * 1000, 1)


class Swarm:
    """What a process of the swarm has, by its part in the run. For `backoff` and `resume` see `Fleet`."""

    def __init__(self, environment: Any, backoff: Callable[[], Backoff] | None, resume: bool) -> None:
        self._environment = environment
        self._backoff = backoff
        self._resume = resume
        self._runner = runner = environment.runner
        self._is_master = not isinstance(runner, WorkerRunner)
        self._has_clients = not isinstance(runner, MasterRunner)
        self._fleet: Fleet | None = None
        self._watcher: Any = None
        self._greenlets: list[Any] = []
        self._shares: list[Share] = []
        self._joining: dict[str, AsyncResult] = {}
        self._names = itertools.count()
        self._collector: Collector | None = None
        self._deal = Deal()
        self._finished = True
        if self._is_master:
            runner.register_message("odin_join", self._joined)
            runner.register_message("odin_leave", lambda msg, **_: self._deal.back(msg.data["index"]))
            runner.register_message("odin_report", self._reported)
        if self._has_clients:
            runner.register_message("odin_share", self._shared)
            runner.register_message("odin_finish", lambda **_: self.finish(), concurrent=True)

    @property
    def _options(self) -> Any:
        return self._environment.parsed_options

    # -- a run, in every process ---------------------------------------------------------------------

    def start(self) -> None:
        self.finish()
        self._finished = False
        options = self._options
        self._deal = Deal()
        if self._is_master:
            self._collector = Collector(self._environment)
        if self._has_clients:
            self._own = Own()
            self._reporter = Reporter(self._environment.stats)
            url = self._environment.host or DEFAULT_HOST
            self._fleet = fleet = Fleet(url, options, self._backoff, resume=self._resume)
            self._watcher = gevent.get_hub().loop.io(fleet.fileno(), 1)
            self._watcher.start(self._serve, fleet)
            self._greenlets = [gevent.spawn(self._tick, fleet), gevent.spawn(self._storms, fleet)]
        self._greenlets.append(gevent.spawn(self._seconds))
        defect = greenlet_exception_logger(_LOG)  # type: ignore[no-untyped-call]
        for greenlet in self._greenlets:
            greenlet.link_exception(defect)

    def finish(self) -> None:
        """The run ends: all clients leave, and what they still get is counted."""
        if self._finished:
            return
        self._finished = True
        fleet = self._fleet
        if fleet is not None:
            fleet.finish()
            self._wait(lambda: not fleet.pending)
        if self._is_master and not self._has_clients:
            self._runner.send_message("odin_finish")
            expected = len(self._runner.clients.all)
            self._wait(lambda: self._collector is None or self._collector.finals() >= expected)
        for greenlet in self._greenlets:
            greenlet.kill()
        self._greenlets = []
        if fleet is not None:
            self._watcher.stop()
            fleet.close()
            fleet.look(time.monotonic() + 60)  # nothing more comes into any hole
            self._report(fleet, final=True)
            self._fleet = None
        if self._collector is not None:
            self._collector.end()

    @staticmethod
    def _wait(is_done: Callable[[], bool]) -> None:
        until = time.monotonic() + _FINISH_SECONDS
        while not is_done() and time.monotonic() < until:
            gevent.sleep(_TICK_SECONDS)

    def quit(self) -> None:
        """The process ends: its exit status is 3 if the swarm was the limit and nothing else was wrong.

        It is that of Locust if anything failed, also if Locust's own reports of it have not come.
        """
        self.finish()
        runner, collector = self._runner, self._collector
        if collector is None:
            return
        if collector.failed:
            self._environment.process_exit_code = self._options.exit_code_on_error
        elif collector.limit and not runner.errors and not runner.exceptions:
            self._environment.process_exit_code = 3

    def settled_after(self) -> float:
        """Seconds after which each of the connections had been answered; infinite as long as one has not."""
        return math.inf if self._collector is None else self._collector.settled_after

    # -- users ---------------------------------------------------------------------------------------

    def join(self) -> Share:
        """A share for a user, which has to wait for it."""
        name = str(next(self._names))
        self._joining[name] = answer = AsyncResult()
        self._runner.send_message("odin_join", {"user": name})
        share = Share(**answer.get(timeout=_JOIN_SECONDS))
        self._shares.append(share)
        self._set_rates()
        return share

    def leave(self, share: Share) -> None:
        """A user ends, and its clients with it."""
        if self._fleet is None or self._finished or share not in self._shares:
            return
        self._shares.remove(share)
        self._set_rates()
        for client in share.clients:
            self._fleet.dismiss(client)
        self._runner.send_message("odin_leave", {"index": share.index})

    def _set_rates(self) -> None:
        part = sum(share.part for share in self._shares)
        if self._fleet is not None:
            self._fleet.churn = self._options.odin_churn * part
            self._fleet.probes = self._options.odin_probes * part

    def _joined(self, environment: Any, msg: Any) -> None:
        """A user asks for its share."""
        total = self._options.odin_connections
        share: dict[str, Any] = dict(self._deal.share(total, self._runner.target_user_count))
        share["part"] = share["count"] / max(1, total)
        # A shape ramps by its users, each of which connects within its second.
        shaped = environment.shape_class is not None
        share["ramp"] = float(share["count"]) if shaped else self._options.odin_ramp * share["part"]
        answer = {"user": msg.data["user"], "share": share}
        self._runner.send_message("odin_share", answer, client_id=msg.node_id)

    def _shared(self, environment: Any, msg: Any) -> None:
        if answer := self._joining.pop(msg.data["user"], None):
            answer.set(msg.data["share"])

    # -- time ----------------------------------------------------------------------------------------

    @staticmethod
    def _serve(fleet: Fleet) -> None:
        try:
            fleet.serve()
        except BaseException:
            log.unhandled_greenlet_exception = True  # a defect of the swarm: it ends with status 2
            raise

    def _tick(self, fleet: Fleet) -> None:
        due = time.monotonic()
        while True:
            due += _TICK_SECONDS
            gevent.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            self._own.late(now - due)
            due = max(due, now - _TICK_SECONDS)
            for share in self._shares:
                wanted = int((now - share.began) * share.ramp) + 1 if share.ramp else share.count
                missing = range(len(share.clients), min(wanted, share.count))
                share.clients += [fleet.add(share.first + number) for number in missing]
            fleet.tick(now)

    def _storms(self, fleet: Fleet) -> None:
        every = self._options.odin_storm_every
        while every:
            gevent.sleep(every)
            _LOG.info("storm: %d connections cut", fleet.storm(self._options.odin_storm_share))

    def _seconds(self) -> None:
        due = time.monotonic()
        while True:
            due += 1.0
            gevent.sleep(max(0.0, due - time.monotonic()))
            if self._fleet is not None:
                self._fleet.look(time.monotonic())
                self._report(self._fleet)
            if self._collector is not None:
                self._collector.second()

    def _report(self, fleet: Fleet, *, final: bool = False) -> None:
        """Tell Locust and the master what there is."""
        self._reporter.report(fleet.tally)
        cpu, stall = self._own.look()
        used = {"swarm_cpu_percent": cpu, "swarm_stall_ms": stall}
        snapshot = fleet.tally.snapshot() | used | {"connected": fleet.connected, "final": final}
        self._runner.send_message("odin_report", snapshot)

    def _reported(self, environment: Any, msg: Any) -> None:
        if self._collector is not None:
            self._collector.take(msg.node_id, msg.data)
