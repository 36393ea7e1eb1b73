"""Roll a variant out step by step, watch what it does, and take it back when it hurts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from odinws.rollout import flags
from odinws.rollout.comparison import GroupStats, Judge, Window, between, total
from odinws.rollout.fleet import Fleet, FleetError
from odinws.rollout.members import Server, wanted
from odinws.rollout.record import Record, Step

STEPS = (5, 25, 50, 100)
_POLL_SECONDS = 0.5
_SILENT_SECONDS = 30.0  # a fleet that does not answer for so long is in trouble


@dataclass(frozen=True)
class Pace:
    """How long things take.

    Attributes:
        settle_seconds: after a roll, until it counts: clients come back, and catch up.
        window_seconds: of one comparison.
        windows: that must count before a step is good.
        patience_seconds: how long a step may wait for enough data.
        roll_seconds: how long one worker's replacement may take.
    """

    settle_seconds: float = 10.0
    window_seconds: float = 5.0
    windows: int = 4
    patience_seconds: float = 300.0
    roll_seconds: float = 60.0


@dataclass(frozen=True)
class _End:
    """How a watch ends.

    Attributes:
        verdict, reason: see `Record`.
        outcome: of the step under way; "": as the verdict.
        set_back: whether the flag is to be set back.
    """

    verdict: str
    reason: str
    outcome: str = ""
    set_back: bool = False


class Watch:
    """One rollout.

    Args:
        fleet: the servers.
        path: of their file of flags, which this process may write.
        variant: to be rolled out.
        pace: how long things take.
        tell: called with a line of what happens, and whether that is "good", "bad" or "".
        changed: called with the record whenever it has more in it.
    """

    def __init__(
        self,
        fleet: Fleet,
        path: str,
        variant: str,
        pace: Pace,
        tell: Callable[[str, str], None],
        changed: Callable[[Record], None] = lambda _: None,
    ) -> None:
        self._fleet = fleet
        self._path = path
        self._variant = variant
        self._pace = pace
        self._tell = tell
        self._changed = changed
        self._began = time.monotonic()
        self._reference: GroupStats | None = None

    def run(self, steps: Sequence[int] = STEPS) -> Record:
        """Do it all. Ctrl-C leaves the share as it is.

        Raises:
            FlagsError: the file can't be used from the start.
            FleetError: a server does not answer, or does not follow the file, from the start.
        """
        document = flags.read(self._path)
        percent = (flags.shares(document) or {}).get(self._variant, 0.0)
        servers = self._fleet.read()
        check(servers)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        urls = [server.url for server in servers]
        self.record = Record(self._path, self._variant, urls, now, percent, percent=percent)
        try:
            end = self._steps([step for step in steps if step > percent])
        except FleetError as error:
            end = _End("set back", f"The fleet is silent: {error}.", "failed", set_back=True)
        except flags.FlagsError as error:
            end = _End("failed", str(error))
        except KeyboardInterrupt:
            end = _End("interrupted", "It was interrupted.")
        self._ended(end)
        return self.record

    def _steps(self, steps: Sequence[int]) -> _End:
        for percent in steps:
            if (end := self._step(percent)) is not None:
                return end
        return _End("done", f"All steps to {self.record.percent:g} % were good.")

    # -- one step; each part says how the watch ends, None: it goes on ------------------------------

    def _step(self, percent: int) -> _End | None:
        servers = self._read()
        counts = wanted(servers, percent)
        step = Step(percent, counts)
        self.record.steps.append(step)
        if counts == wanted(servers, self.record.percent):
            step.outcome, step.text = "skipped", "changes no worker"
            self._tell(f"{percent} %: skipped, it changes no worker", "")
            return None
        if self._reference is None and sum(counts.values()) == sum(server.worker_count for server in servers):
            self._measure_reference()
        return self._set(percent) or self._roll(step) or self._judge(step)

    def _set(self, percent: int) -> _End | None:
        document = flags.read(self._path)
        if (end := self._check_share(document)) is not None:
            return end
        flags.write(self._path, flags.with_share(document, self._variant, percent))
        self.record.percent = float(percent)
        return None

    def _check_share(self, document: flags.Document) -> _End | None:
        """Whether the share is still what this watch has set."""
        found = (flags.shares(document) or {}).get(self._variant, 0.0)
        if found == self.record.percent:
            return None
        self.record.percent, ours = found, self.record.percent
        return _End("changed", f"Somebody else set the share from {ours:g} to {found:g} %.")

    def _roll(self, step: Step) -> _End | None:
        """Wait until the workers have what the flag says."""
        began = time.monotonic()
        servers = self._read()
        until = began + self._pace.roll_seconds * (max(server.worker_count for server in servers) + 1)
        self._tell(f"{step.percent} %: {sum(step.workers.values())} of {_worker_count(servers)} workers", "")
        while not all(server.has(self._variant, step.workers[server.url]) for server in servers):
            if problem := next((server.problem for server in servers if server.problem), ""):
                return _End("set back", f"A server can't use the flags: {problem}", "failed", set_back=True)
            if time.monotonic() > until:
                reason = f"The workers did not come up in {time.monotonic() - began:.0f} s."
                return _End("set back", reason, "failed", set_back=True)
            time.sleep(_POLL_SECONDS)
            if (end := self._check_share(flags.read(self._path))) is not None:
                return end
            servers = self._read()
        step.rolled_seconds = round(time.monotonic() - began, 1)
        self._tell(f"{step.percent} %: rolled in {step.rolled_seconds:g} s", "")
        self._changed(self.record)
        return None

    def _judge(self, step: Step) -> _End | None:
        judge = Judge(self._variant, self._pace.windows, self._reference)
        before = self._read()
        settled = time.monotonic() + self._pace.settle_seconds
        until = settled + self._pace.patience_seconds
        others: list[GroupStats] = []
        while True:
            few = "settling" if time.monotonic() < settled else ""
            time.sleep(self._pace.window_seconds)
            if (end := self._check_share(flags.read(self._path))) is not None:
                return end
            after = self._read()
            window = judge.add(*between(before, after, self._variant), few)
            before = after
            step.add(window)
            self._tell_window(step, window)
            if worse := judge.worse():
                return _End("set back", f"Set back at {step.percent} %: {worse}.", "worse", set_back=True)
            if not window.few and window.others is not self._reference:
                others.append(window.others)
            if judge.is_good():
                break
            if time.monotonic() > until:
                return _End("waiting", f"Too few data at {step.percent} %: {window.few or 'not steady'}.")
        self._reference = total(others) if others else self._reference
        step.outcome, step.text = "good", f"{len(judge.counted)} windows without a reason to go back"
        self._tell(f"{step.percent} %: good", "good")
        self._changed(self.record)
        return None

    def _measure_reference(self) -> None:
        """What the others do, before there are none left."""
        self._tell("measuring the workers as they are", "")
        before = self._read()
        time.sleep(self._pace.window_seconds * self._pace.windows)
        mine, others = between(before, self._read(), self._variant)
        self._reference = others if others.workers else mine

    # -- the end -----------------------------------------------------------------------------------

    def _ended(self, end: _End) -> None:
        step = self.record.steps[-1] if self.record.steps else None
        if step is not None and not step.outcome:
            step.outcome, step.text = end.outcome or end.verdict, end.reason
        if end.set_back:
            self._tell(end.reason, "bad")
            try:
                self._set_back()
            except flags.FlagsError as error:
                end = _End("failed", f"{end.reason} It could not be set back: {error}")
        self.record.verdict, self.record.reason = end.verdict, end.reason
        self.record.seconds = round(time.monotonic() - self._began, 1)
        self._changed(self.record)

    def _set_back(self) -> None:
        document = flags.read(self._path)
        flags.write(self._path, flags.with_share(document, self._variant, 0))
        self.record.percent = 0.0
        self._changed(self.record)
        until = time.monotonic() + self._pace.roll_seconds
        try:
            while not all(server.has(self._variant, 0) for server in self._fleet.read()):
                if time.monotonic() > until:
                    return self._tell("0 %: set; some workers are still to be replaced", "bad")
                time.sleep(_POLL_SECONDS)
        except (FleetError, KeyboardInterrupt):
            return self._tell("0 %: set; whether the workers follow is not known", "bad")
        return self._tell("0 %: no worker has it any more", "good")

    def _read(self) -> list[Server]:
        """The fleet; a server may be silent for a moment.

        Raises:
            FleetError: it is for longer.
        """
        until = time.monotonic() + _SILENT_SECONDS
        while True:
            try:
                return self._fleet.read()
            except FleetError:
                if time.monotonic() > until:
                    raise
                time.sleep(_POLL_SECONDS)

    def _tell_window(self, step: Step, window: Window) -> None:
        record = step.windows[-1]
        pairs = [
            f"{name} {record['variant'][name]:.4g}/{record['others'][name]:.4g}"
            for name in ("cpu_us_per_delivered", "lag_p99_ms", "long_turns_per_minute")
            if record["variant"][name] is not None and record["others"][name] is not None
        ]
        note = f"  ({window.few})" if window.few else ""
        self._tell(f"  {'  '.join(pairs) or 'nothing delivered'}{note}", "")


def check(servers: Sequence[Server]) -> None:
    """Whether all servers follow a file of flags.

    Raises:
        FleetError: one does not.
    """
    for server in servers:
        if not server.flags_file:
            raise FleetError(server.url, "it has no flags; start it with WS_FLAGS_FILE")
        if any(worker.reason == "explicit" for worker in server.workers):
            raise FleetError(server.url, "WS_SHARD_STRATEGY wins there; start it without")
        if server.problem:
            raise FleetError(server.url, f"it can't use its flags: {server.problem}")


def _worker_count(servers: Sequence[Server]) -> int:
    return sum(server.worker_count for server in servers)
