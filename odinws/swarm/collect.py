"""The sum over all processes of a run, second by second: its record, its table, its summary.

The record is a file of JSON lines, for whoever judges the server; docs/swarm.md says what is in them.
"""

from __future__ import annotations

import json
import logging
import math
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from odinws.swarm.locust_stats import FAILURES
from odinws.swarm.tally import BOUNDS_MS, COUNTS, TIMES, Histogram, merged

_LOG = logging.getLogger("odin")
_PRINT = logging.getLogger("locust.stats_logger")  # Locust's own way to its standard output
_HEALTH_SECONDS = 2.0
FULL_PERCENT = 90.0  # of one core; a process of the swarm has one thread
STALL_MS = 250.0
_FEW_SECONDS = 3  # so many may be bad in any run
_SHARE = 0.05  # of the seconds, in a longer one
_ROW = "{:<8}{:<10}{:<8}{:<8}{:<14}{}"

# What the predecessor's test printed, to stand beside ours. See docs/investigation.md.
_PREDECESSOR = "The predecessor (Go, 4 vCPU), 100 connections/s to 7000, 19.2 messages/s, 25 October 2025"
_PREDECESSOR_ROWS = (  # time, attempts, active, failed, success rate, server CPU
    ("10s", 990, 990, 0, "100.0%", "24.7%"),
    ("20s", 1990, 1990, 0, "100.0%", "47.5%"),
    ("30s", 3000, 2040, 950, "68.3%", "17.0%"),
    ("40s", 4000, 2490, 1500, "62.5%", "17.7%"),
    ("50s", 4990, 3490, 1500, "69.9%", "71.2%"),
    ("60s", 5990, 3540, 2450, "59.1%", "20.3%"),
    ("70s", 6981, 3980, 3000, "57.0%", "20.3%"),
    ("FINAL", 7000, 4000, 3000, "57.1%", "100.0% (peak)"),
)


def limit(seconds: Sequence[tuple[float, float]]) -> str:
    """Why the swarm itself, not the server, was the limit; empty: it was not.

    A process that fills its core, or whose loop stands still, reads late what the server sent in time. It is
    judged by what the busiest one used of its core in each second, in percent, and its longest stall in ms.
    """
    allowed = max(_FEW_SECONDS - 1, _SHARE * len(seconds))
    full = [percent for percent, _ in seconds if percent >= FULL_PERCENT]
    stalled = [ms for _, ms in seconds if ms >= STALL_MS]
    why = []
    if len(full) > allowed:
        used = f"a process of the swarm used {FULL_PERCENT:g} % of a core or more"
        why.append(f"{used} in {len(full)} of {len(seconds)} s (at most {max(full):.0f} %)")
    if len(stalled) > allowed:
        stood = f"its loop stood still for {STALL_MS:g} ms or more"
        why.append(f"{stood} in {len(stalled)} of {len(seconds)} s (at most {max(stalled):.0f} ms)")
    return "; ".join(why)


class Collector:
    """Of one run. Raises OSError when the record can't be written."""

    def __init__(self, environment: Any) -> None:
        options = environment.parsed_options
        self._environment = environment
        self._parts: dict[str, dict[str, Any]] = {}
        self._seconds: list[tuple[float, float]] = []
        self._record = Path(options.odin_record).open("w") if options.odin_record else None  # noqa: SIM115
        self._write({"bounds_ms": BOUNDS_MS, "names": TIMES, "seed": options.odin_seed})
        self._began = time.monotonic()
        self._every = options.odin_table
        self._next_row = self._every
        self._peak = 0.0
        self.settled_after = math.inf  # seconds until each connection was open, or had failed or been cut
        self.failed = False  # whether anything was, when the run has ended
        self.limit = ""  # why the swarm was the limit, when the run has ended; empty: it was not

    def take(self, node: str, snapshot: dict[str, Any]) -> None:
        """What a process has counted; msgpack has kept it as it was."""
        self._parts[node] = snapshot

    def finals(self) -> int:
        """How many processes have said their last."""
        return sum(part["final"] for part in self._parts.values())

    def second(self) -> None:
        totals = merged(self._parts.values())
        self._seconds.append((totals["swarm_cpu_percent"], totals["swarm_stall_ms"]))
        self._write({"t": round(time.time(), 3), **totals})
        passed = time.monotonic() - self._began
        settled = totals["connected"] + totals["failed"] + totals["cut"]
        if settled >= self._environment.parsed_options.odin_connections:
            self.settled_after = min(self.settled_after, passed)
        if self._every and passed >= self._next_row:
            if self._next_row == self._every:
                head = _ROW.format("Time", "Attempts", "Active", "Failed", "Success Rate", "Server CPU")
                _PRINT.info(f"{head}\n{'-' * 63}")
            self._row(f"{self._next_row:.0f}s", totals)
            self._next_row += self._every

    def end(self) -> None:
        """The run has ended: the last line, the summary."""
        totals = merged(self._parts.values())
        self.failed = any(totals[name] for name in FAILURES)
        self.limit = limit(self._seconds)
        judgement = {"final": True, "limited": bool(self.limit), "why": self.limit}
        self._write({"t": round(time.time(), 3), **totals, **judgement})
        if self._record is not None:
            self._record.close()
        if self._every:
            self._row("FINAL", totals)
            _PRINT.info("\n" + _PREDECESSOR)
            for row in _PREDECESSOR_ROWS:
                _PRINT.info(_ROW.format(*row))
        for line in summary(totals):
            _PRINT.info(line)
        if self.limit:
            _LOG.warning("the swarm itself was the limit, not the server: %s", self.limit)

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._record is not None:
            self._record.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._record.flush()

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
        admin = self._environment.parsed_options.odin_admin.rstrip("/")
        try:
            with urllib.request.urlopen(f"{admin}/health", timeout=_HEALTH_SECONDS) as response:  # noqa: S310
                health = json.load(response)
        except urllib.error.HTTPError as error:
            health = json.load(error)
        except (OSError, ValueError):
            return None
        return float(health["checks"]["cpu"]["percentage"]) if "checks" in health else None


def summary(totals: dict[str, Any]) -> list[str]:
    lines = ["", f"{'Times, ms':<12}{'count':>10}{'p50':>10}{'p95':>10}{'p99':>10}{'longest':>10}"]
    for name in TIMES:
        times = Histogram(totals["histograms"][name])
        if times.count:
            shown = "".join(f"{times.percentile_ms(p) or 0:>10.1f}" for p in (50, 95, 99, 100))
            lines.append(f"{name:<12}{times.count:>10}{shown}")
    lines += ["", "  ".join(f"{name} {totals[name]}" for name in COUNTS if name != "cut")]
    errors = sorted(totals["errors"].items(), key=lambda item: (-item[1], item[0]))
    lines += [f"  {count} times: {error}" for error, count in errors]
    return lines
