"""The sum over all processes of a run, second by second: its record, its table, its summary."""

from __future__ import annotations

import json
import logging
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from odinws.swarm import predecessor
from odinws.swarm.histogram import Histogram
from odinws.swarm.limits import Limits, Verdict
from odinws.swarm.record import Record
from odinws.swarm.tally import TIMES, merged

_LOG = logging.getLogger("odin")
_PRINT = logging.getLogger("locust.stats_logger")  # Locust's own way to its standard output
_HEALTH_SECONDS = 2.0
_ROW = "{:<8}{:<10}{:<8}{:<8}{:<14}{}"


class Collector:
    """Of one run.

    Attributes:
        verdict: whether the swarm was the limit; when the run has ended.
    """

    def __init__(self, environment: Any) -> None:
        options = environment.parsed_options
        self._environment = environment
        self._parts: dict[str, dict[str, Any]] = {}
        self._limits = Limits()
        self._record = Record(Path(options.odin_record), options.odin_seed) if options.odin_record else None
        self._began = time.monotonic()
        self._every = options.odin_table
        self._next_row = self._every
        self._peak = 0.0
        self.verdict = Verdict(False, "")

    def take(self, node: str, snapshot: dict[str, Any]) -> None:
        """What a process has counted; msgpack has kept it as it was."""
        self._parts[node] = snapshot

    def finals(self) -> int:
        """How many processes have said their last."""
        return sum(part["final"] for part in self._parts.values())

    def second(self) -> None:
        """A second has passed."""
        totals = merged(self._parts.values())
        self._limits.add(totals["swarm_cpu_percent"], totals["swarm_stall_ms"])
        if self._record is not None:
            self._record.second(totals)
        passed = time.monotonic() - self._began
        if self._every and passed >= self._next_row:
            if self._next_row == self._every:
                _PRINT.info(
                    _ROW.format("Time", "Attempts", "Active", "Failed", "Success Rate", "Server CPU")
                    + "\n"
                    + "-" * 63
                )
            self._row(f"{self._next_row:.0f}s", totals)
            self._next_row += self._every

    def end(self) -> None:
        """The run has ended: the last line, the summary."""
        totals = merged(self._parts.values())
        self.verdict = self._limits.verdict()
        if self._record is not None:
            self._record.end(totals, self.verdict)
        if self._every:
            self._row("FINAL", totals)
            _PRINT.info("\n" + predecessor.TITLE)
            for row in predecessor.ROWS:
                _PRINT.info(_ROW.format(*row))
        for line in summary(totals):
            _PRINT.info(line)
        if self.verdict.limited:
            _LOG.warning("the swarm itself was the limit, not the server: %s", self.verdict.why)

    def _row(self, name: str, totals: dict[str, Any]) -> None:
        attempts, failed = totals["attempts"], totals["failed"]
        rate = 100 * (attempts - failed) / attempts if attempts else 0.0
        cpu = self._server_cpu()
        if name == "FINAL":
            shown, active = f"{self._peak:.1f}% (peak)", attempts - failed
        else:
            shown, active = ("?" if cpu is None else f"{cpu:.1f}%"), totals["connected"]
            self._peak = max(self._peak, cpu or 0.0)
        _PRINT.info(_ROW.format(name, attempts, active, failed, f"{rate:.1f}%", shown))

    def _server_cpu(self) -> float | None:
        """What `/health` says, in percent of the server's limit; None: it does not answer in time."""
        host = (self._environment.host or "").replace("ws", "http", 1).rstrip("/").removesuffix("/ws")
        try:
            with urllib.request.urlopen(f"{host}/health", timeout=_HEALTH_SECONDS) as response:  # noqa: S310
                health = json.load(response)
        except urllib.error.HTTPError as error:
            health = json.load(error)
        except (OSError, ValueError):
            return None
        return float(health["checks"]["cpu"]["percentage"])


def record_problem(options: Any) -> str:
    """What is wrong with the place of the record; empty: nothing."""
    path = Path(options.odin_record)
    if not options.odin_record or (path.parent.is_dir() and not path.is_dir()):
        return ""
    return f"--odin-record {str(path)!r} must be a file in a directory that exists"


def summary(totals: dict[str, Any]) -> list[str]:
    """The totals in lines."""
    lines = ["", f"{'Times, ms':<12}{'count':>10}{'p50':>10}{'p95':>10}{'p99':>10}{'longest':>10}"]
    for name in TIMES:
        times = Histogram(totals["histograms"][name])
        if times.count:
            shown = "".join(f"{times.percentile_ms(p) or 0:>10.1f}" for p in (50, 95, 99, 100))
            lines.append(f"{name:<12}{times.count:>10}{shown}")
    names = (
        "attempts",
        "failed",
        "refused",
        "delivered",
        "lost",
        "duplicated",
        "disordered",
        "gaps",
        "reconnects",
    )
    lines += ["", "  ".join(f"{name} {totals[name]}" for name in names)]
    lines += [f"  {count} times: {error}" for error, count in sorted(totals["errors"].items())]
    return lines
