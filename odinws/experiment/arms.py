"""An arm of an experiment: a real server, `gunicorn -c <config>`, on a port of its own."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

from odinws.errors import OdinError, SettingsError
from odinws.experiment import scrape
from odinws.experiment.feed import STREAM
from odinws.experiment.plan import Arm as ArmPlan
from odinws.experiment.plan import Plan, PlanError
from odinws.experiment.scrape import Look
from odinws.harness import prometheus
from odinws.harness.ports import free_port
from odinws.harness.process import ProcessError
from odinws.harness.server import START_SECONDS, Server, gunicorn
from odinws.settings import Settings

_DEFAULTS = {
    # The load of an arm is what the plan says, not what a guard lets in while neighbours use the machine.
    "WS_ADMISSION_DRY_RUN": "true",
    "WS_DRAIN_SECONDS": "0",
    "WS_STOP_SECONDS": "0.5",
    "LOG_LEVEL": "warning",
}
_SPARE_CONNECTIONS = 1000  # for probes, and for those that leave while others come

T = TypeVar("T")


class ArmError(OdinError):
    """An arm does not start, does not answer, or ended."""


def settings_of(arm: ArmPlan, nats_url: str, port: int) -> dict[str, str]:
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
    """What a plan can't know by itself: whether servers would start with these settings. Raises PlanError."""
    for number, arm in enumerate(plan.arms):
        at = f"arm[{number}]"
        try:
            Settings.from_environ(settings_of(arm, "nats://127.0.0.1:4222", 0))
        except SettingsError as error:
            path = f"{at}.settings.{error.name}"
            raise PlanError(file, path, repr(error.value), error.allowed) from None
        if not _is_there(arm.config):
            raise PlanError(file, f"{at}.config", repr(arm.config), "there is no such file")
        if plan.mode == "together" and arm.feed != plan.arms[0].feed:
            allowed = 'arms that run together hear one feed: take it out, or use mode = "in-turn"'
            raise PlanError(file, f"{at}.feed", "", allowed)


class Arm(Server):
    """The server of one trial: `start` it, wait until it is `served`, and `end_async` it."""

    def __init__(self, plan: ArmPlan, nats_url: str, log: Path) -> None:
        port = free_port()
        super().__init__(settings_of(plan, nats_url, port), log, port=port, command=gunicorn(plan.config))
        self._workers: set[int] = set()

    async def served(self) -> None:
        """Wait until clients are served. Raises ArmError: it ended, or was not ready in time."""
        try:
            await asyncio.to_thread(self.wait_ready)
        except ProcessError:
            self.check_alive()
            raise ArmError(f"not ready within {START_SECONDS:g} s: {self.last_words()}") from None
        self._workers = (await self._ask(scrape.look)).pids

    def check_alive(self) -> None:
        """Raises ArmError when the server has ended."""
        if self.status is not None:
            raise ArmError(f"the server {self.exit_summary()}")

    async def look(self) -> Look:
        """Look at it. Raises ArmError: it or one of its workers ended, or it does not answer."""
        found = await self._ask(scrape.look)
        if found.pids != self._workers:
            gone = ", ".join(map(str, sorted(self._workers - found.pids))) or "none"
            raise ArmError(f"its workers changed (gone: {gone}): {self.last_words()}")
        return found

    async def totals(self) -> dict[str, float]:
        """Its /metrics, summed over labels. Raises ArmError."""
        return (await self._ask(prometheus.scrape)).totals()

    async def _ask(self, question: Callable[[int], T]) -> T:
        try:
            return await asyncio.to_thread(question, self.admin_port)
        except (OSError, msgspec.MsgspecError, LookupError, TypeError, psutil.Error) as error:
            self.check_alive()
            raise ArmError(f"it does not answer, or not as it should: {error}") from None


def _is_there(config: str) -> bool:
    """Whether gunicorn would find a configuration."""
    if not config.startswith("python:"):
        return Path(config).is_file()
    try:
        return importlib.util.find_spec(config.removeprefix("python:")) is not None
    except ModuleNotFoundError:  # of a package above it
        return False
