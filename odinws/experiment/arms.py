"""An arm of an experiment: a real server, `gunicorn -c <config>`, on a port of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from odinws.errors import OdinError, SettingsError
from odinws.experiment import scrape
from odinws.experiment.child import ROOT, Child
from odinws.experiment.feed import STREAM
from odinws.experiment.plan import Arm as ArmPlan
from odinws.experiment.plan import Plan, PlanError
from odinws.experiment.scrape import Look, ScrapeError
from odinws.settings import Settings

START_SECONDS = 30.0
STOP_SECONDS = 8.0
_POLL_SECONDS = 0.1
_OURS = ("WS_", "JS_", "NATS_", "LOG_", "ENVIRONMENT", "SABOTAGE_")
_DEFAULTS = {
    # The load of an arm is what the plan says, not what a guard lets in while neighbours use the machine.
    "WS_ADMISSION_DRY_RUN": "true",
    "WS_DRAIN_SECONDS": "0",
    "WS_STOP_SECONDS": "0.5",
    "LOG_LEVEL": "warning",
}
_RESERVED = ("WS_SUBJECT_PREFIX", "NATS_TOKEN", "NATS_CREDS_FILE", "NATS_NKEY_FILE")
_SPARE_CONNECTIONS = 1000  # for probes, and for those that leave while others come


class ArmError(OdinError):
    """An arm does not start, does not answer, or ended."""


def settings_of(arm: ArmPlan, nats_url: str, port: int) -> dict[str, str]:
    """The variables of an arm's server."""
    room = max(10_000, arm.load.connections + _SPARE_CONNECTIONS)
    return {
        **_DEFAULTS,
        "WS_MAX_CONNECTIONS": str(room),
        "ENVIRONMENT": arm.name,
        **arm.environ,
        "WS_ADDR": f"127.0.0.1:{port}",
        "NATS_URL": nats_url,
        "WS_DEMO_FEED": "false",
        "JS_STREAM_NAME": STREAM,
    }


def check(plan: Plan, file: str) -> None:
    """What `plan` can't know by itself: whether servers would start with these settings.

    Args:
        file: how errors name the plan.

    Raises:
        PlanError: its text is one line.
    """
    for number, arm in enumerate(plan.arms):
        at = f"arm[{number}]"
        for name in _RESERVED:
            if name in arm.settings:
                raise PlanError(file, f"{at}.settings.{name}", "", "the feed is not yours to choose here")
        try:
            Settings.from_environ(settings_of(arm, "nats://127.0.0.1:4222", 0))
        except SettingsError as error:
            path, value = f"{at}.settings.{error.name}", repr(error.value)
            raise PlanError(file, path, value, f"in arm {arm.name}: {error.allowed}") from None
        if not (ROOT / arm.config).is_file():
            raise PlanError(file, f"{at}.config", repr(arm.config), "there is no such file")
        if plan.mode == "together" and arm.feed != plan.arms[0].feed:
            allowed = 'arms that run together hear one feed: take it out, or use mode = "in-turn"'
            raise PlanError(file, f"{at}.feed", "", allowed)


class Arm:
    """The server of one trial: `start` it, wait until it is `ready`, and `end` it.

    Attributes:
        port: where it listens.
        settings: its variables.
    """

    def __init__(self, plan: ArmPlan, nats_url: str, log: Path) -> None:
        self.port = _free_port()
        self.settings = settings_of(plan, nats_url, self.port)
        command = (sys.executable, "-m", "gunicorn", "-c", plan.config)
        self._child = Child(command, _environ(self.settings), log)
        self._workers: set[int] = set()

    def start(self) -> None:
        """Start it and wait for nothing."""
        self._child.start()

    @property
    def pid(self) -> int:
        """Of the arbiter; 0 before the start."""
        return self._child.pid

    async def ready(self) -> None:
        """Wait until clients are served.

        Raises:
            ArmError: it ended, or was not ready within `START_SECONDS`.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.check()
            try:
                await asyncio.to_thread(scrape.get, self.port, "/readyz")
                break
            except ScrapeError as error:
                if time.monotonic() > deadline:
                    raise ArmError(f"not ready within {START_SECONDS:g} s: {error}") from None
                await asyncio.sleep(_POLL_SECONDS)
        self._workers = {worker.pid for worker in (await self._look()).stats.workers}

    def check(self) -> None:
        """Raises ArmError when the server has ended."""
        if self._child.status is not None:
            raise ArmError(f"the server {self._child.epitaph()}")

    async def look(self) -> Look:
        """Look at it.

        Raises:
            ArmError: it or one of its workers ended, or it does not answer.
        """
        found = await self._look()
        now = {worker.pid for worker in found.stats.workers}
        if now != self._workers:
            gone = ", ".join(map(str, sorted(self._workers - now))) or "none"
            raise ArmError(f"its workers changed (gone: {gone}): {self._child.last_words()}")
        return found

    async def metrics(self) -> dict[str, float]:
        """Its /metrics, summed over labels. Raises ArmError."""
        try:
            return await asyncio.to_thread(scrape.metrics, self.port)
        except ScrapeError as error:
            self.check()
            raise ArmError(str(error)) from None

    async def end(self) -> None:
        """Stop the server and all its workers."""
        await self._child.end(signal.SIGTERM, STOP_SECONDS)

    async def _look(self) -> Look:
        try:
            return await asyncio.to_thread(scrape.look, self.port)
        except ScrapeError as error:
            self.check()
            raise ArmError(str(error)) from None


def _environ(settings: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**inherited, **settings}


def _free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
