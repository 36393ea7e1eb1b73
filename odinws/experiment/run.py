"""A run: all trials of a plan, one block after another, each second written down as it passes.

Nothing is left running, however a run ends. What was measured until then is kept, and marked.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import platform
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

import odinws
from odinws.experiment import arms, load
from odinws.experiment.block import Block
from odinws.experiment.feed import Feed, FeedLostError
from odinws.experiment.kinds import End, Machine, Record, Run
from odinws.experiment.plan import Arm as ArmPlan
from odinws.experiment.plan import Plan, sequences
from odinws.experiment.progress import Progress
from odinws.experiment.record import writing
from odinws.feed.embedded import find_nats_server
from odinws.harness.machine import machine

LOGS = "logs"
_FAILURES = 2  # trials of an arm that may fail, before it is left out
_PACKAGES = ("gevent", "gunicorn", "msgspec", "nats-py", "locust", "scipy")
_ANSWER_SECONDS = 10.0


def changed(
    plan: Plan, rounds: int | None = None, seconds: float | None = None, connections: int | None = None
) -> Plan:
    """A plan with other rounds, seconds of measuring, or connections of each arm, where given."""
    plan = replace(plan, rounds=rounds or plan.rounds, measure_seconds=seconds or plan.measure_seconds)
    if connections is None:
        return plan
    each = [replace(arm, load=replace(arm.load, connections=connections)) for arm in plan.arms]
    return replace(plan, load=replace(plan.load, connections=connections), arms=tuple(each))


def run(plan: Plan, directory: Path) -> End:
    """Run a plan that has been checked, and show how far it is.

    Ctrl-C and SIGTERM end it in order; a second one hurries. Records go into the directory, and into its
    `logs` what servers and swarms said. The last record says whether all was done, and if not, why.

    Raises SwarmError without Locust, EmbeddedNatsError without NATS, and RecordError or OSError when the
    records can't be written.
    """
    load.check()
    with Progress(plan) as progress:
        return asyncio.run(_run(plan, directory, progress))


async def _run(plan: Plan, directory: Path, progress: Progress) -> End:
    with writing(directory) as write, tempfile.TemporaryDirectory(prefix="nats-", dir=directory) as data:
        (directory / LOGS).mkdir(exist_ok=True)
        work = asyncio.create_task(_Course(plan, directory, write, progress).follow(Path(data)))
        caught = _cancel_at_signals(work)
        try:
            end = await work
        except asyncio.CancelledError:
            end = End(status="partial", why=f"stopped by {caught[0].name}" if caught else "stopped")
        write(end)
        return end


@dataclass
class _Course:
    """The way through all blocks."""

    plan: Plan
    directory: Path
    write: Callable[[Record], object]
    progress: Progress
    failures: Counter[str] = field(default_factory=Counter)  # trials, by arm

    async def follow(self, data: Path) -> End:
        """Go all the way. Cancelled, it first ends what runs and writes down what there is."""
        plan = self.plan
        names = {arm.name: arm for arm in plan.arms}
        orders = sequences(list(names), plan.rounds, plan.seed)
        async with Feed.started(data) as feed:
            self.write(
                Run(
                    plan=plan,
                    started=datetime.now(UTC).isoformat(timespec="seconds"),
                    seed=plan.seed,
                    order=[(number, name) for number, order in enumerate(orders) for name in order],
                    machine=Machine(**machine()),
                    versions=_versions(),
                    settings={arm.name: arms.settings_of(arm, feed.url, 0) for arm in plan.arms},
                )
            )
            for number, order in enumerate(orders):
                each = [(position, names[name]) for position, name in enumerate(order)]
                for block in [each] if plan.mode == "together" else [[one] for one in each]:
                    if why := await self._run_block(number, block, feed):
                        return End(status="partial", why=why)
        if failed := self.failures.total():
            return End(status="partial", why=f"{failed} of {plan.rounds * len(plan.arms)} trials failed")
        return End(status="complete")

    async def _run_block(self, number: int, placed: list[tuple[int, ArmPlan]], feed: Feed) -> str:
        """One block, without the arms that have failed too often. Why the run can't go on, or ""."""
        placed = [(order, arm) for order, arm in placed if self.failures[arm.name] < _FAILURES]
        if not placed:
            return ""
        stage = self.progress.begin(number, [arm.name for _, arm in placed])
        block = Block(self.plan, number, placed, feed, self.directory / LOGS, self.write, stage)
        why = "the run was stopped"
        try:
            await block.run()
            why = ""
        except FeedLostError as error:
            why = str(error)
        finally:
            for trial in block.trials(why):
                self.write(trial)
                self.failures[trial.arm] += trial.status == "failed"
                self.progress.finish(trial)
        return why or self._hopeless()

    def _hopeless(self) -> str:
        """Why nothing can be compared any more; "" as long as it can."""
        out = [arm.name for arm in self.plan.arms if self.failures[arm.name] >= _FAILURES]
        if self.plan.baseline.name in out:
            return f"the baseline {self.plan.baseline.name} failed {_FAILURES} times"
        if len(self.plan.arms) - len(out) < 2:
            return f"too many arms failed {_FAILURES} times each: {', '.join(out)}"
        return ""


def _cancel_at_signals(work: asyncio.Task[End]) -> list[signal.Signals]:
    """Cancel at each signal that asks for an end, until the loop is closed; gives those that came."""
    caught: list[signal.Signals] = []

    def take(number: signal.Signals) -> None:
        caught.append(number)
        work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # what is ignored stays so: `nohup` means it
            asyncio.get_running_loop().add_signal_handler(number, take, number)
    return caught


def _versions() -> dict[str, str]:
    """By name; a package that is not installed is left out. Raises NatsServerNotFoundError."""
    found = {"python": platform.python_version(), "odinws": odinws.__version__}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    command = [find_nats_server(), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False)
    found["nats-server"] = said.stdout.strip().removeprefix("nats-server: ").removeprefix("v")
    return found
