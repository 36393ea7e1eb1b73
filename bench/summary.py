"""From raw results to rows: per scenario and arm, over the rounds. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bench.scenarios import BY_NAME
from odinws.harness.statistics import CONFIDENCE, paired_shift

Result = Mapping[str, Any]


class Column(NamedTuple):
    """A figure in a table.

    Attributes:
        digits: behind the point.
    """

    title: str
    figure: str
    digits: int


IDLE = Column("CPU µs/conn/s", "cpu_us_per_connection_second", 2)
"""Where no message is delivered."""
USUAL = (
    Column("CPU µs/msg", "cpu_us_per_message", 2),
    Column("user", "cpu_user_us_per_message", 2),
    Column("system", "cpu_system_us_per_message", 2),
    Column("cores", "server_cores", 2),
    Column("msg/s", "delivered_per_second", 0),
    Column("p50 ms", "p50_ms", 1),
    Column("p95", "p95_ms", 1),
    Column("p99", "p99_ms", 1),
    Column("longest", "longest_ms", 1),
    Column("RSS KB/conn", "resident_kb_per_connection", 1),
    Column("slab KB/conn", "slab_kb_per_connection", 1),
    Column("conn/s", "connections_per_second", 0),
    Column("open µs", "open_us", 0),
    Column("close µs", "close_us", 0),
)
ON_REQUEST = (
    Column("cores, median of 5 s", "cores_median", 2),
    Column("highest", "cores_highest", 2),
    Column("to kernel p99 ms ≤", "lag_p99_ms", 0),
    Column("wire B/msg", "wire_bytes_per_message", 0),
    Column("return µs", "return_us", 0),
    Column("returns/s", "returns_per_second", 0),
    Column("caught up after s", "caught_up_seconds", 1),
    Column("p99 ms before", "calm_p99_ms", 1),
    Column("join/s", "joins_per_second", 0),
    Column("join p99 ms", "subscribe_p99_ms", 1),
    Column("published/s", "published_per_second", 0),
    Column("stall p99 ms ≤", "stall_p99_ms", 0),
    Column("p99.9 ≤", "stall_p999_ms", 0),
    Column("longest stall", "stall_longest_ms", 0),
    Column("RSS MB before", "resident_before_mb", 0),
    Column("peak", "resident_peak_mb", 0),
    Column("after", "resident_after_mb", 0),
    Column("RSS growth MB", "resident_growth_mb", 0),
)
"""Those that a scenario may ask for (`Scenario.shows`)."""
FIGURES = (*(column.figure for column in (IDLE, *USUAL, *ON_REQUEST)), "delivered_share", "subscribe_p50_ms")


def figure(result: Result, name: str) -> float | None:
    """One figure of one result; latencies lie in its window, `subscribe_` ones too.

    `cost` is the CPU per message, or per connection and second where there are no messages.
    """
    if name == "cost":
        name = IDLE.figure if result["cpu_us_per_message"] is None else "cpu_us_per_message"
    if name in ("p50_ms", "p95_ms", "p99_ms", "longest_ms"):
        value = result["window"]["latency"][name]
    elif name.startswith("subscribe_"):
        value = result["window"]["subscribe"][name.removeprefix("subscribe_")]
    else:
        value = result.get(name)  # None: recorded before there was such a figure
    return None if value is None else float(value)


@dataclass(frozen=True)
class Spread:
    """The middle of some values, and how far they lie apart."""

    median: float
    lowest: float
    highest: float
    count: int


def spread(values: Sequence[float]) -> Spread | None:
    """Median and range; None when there are no values."""
    return Spread(statistics.median(values), min(values), max(values), len(values)) if values else None


@dataclass(frozen=True)
class Ratio:
    """A ratio and its interval.

    `confidence` is what the interval really has: exact, and under 0.95 for fewer than six pairs.
    """

    estimate: float
    lower: float
    upper: float
    confidence: float
    pairs: int

    @property
    def differs(self) -> bool:
        """True when the interval leaves out 1 and has the confidence asked for."""
        return self.confidence >= CONFIDENCE and not self.lower <= 1.0 <= self.upper


def paired_ratio(values: Sequence[float], references: Sequence[float]) -> Ratio | None:
    """The ratio of values to references, pair by pair, by Hodges and Lehmann on logarithms.

    A pair is one round of two arms. The interval is Wilcoxon's: exact whatever the distribution, given
    that log ratios lie symmetric about their middle. None when there are no pairs. Raises ValueError for
    values that are not above 0 and for lists of different length.
    """
    logs = [math.log(value / reference) for value, reference in zip(values, references, strict=True)]
    if not logs:
        return None
    found = paired_shift(logs)
    estimate, lower, upper = (math.exp(each) for each in found[:3])
    return Ratio(estimate, lower, upper, found.confidence, len(logs))


@dataclass(frozen=True)
class Against:
    """An arm under a scenario, set against itself under another, in the same rounds."""

    baseline: str
    cost: Ratio | None
    """CPU per message."""
    p99: Ratio | None
    """Delivery p99."""


@dataclass(frozen=True)
class Row:
    """One arm under one scenario."""

    scenario: str
    arm: str
    figures: Mapping[str, Spread | None]
    ratio: Ratio | None
    """CPU per message (idle: per connection) to that of the reference arm, in the same rounds."""
    against: Sequence[Against]
    """One for each baseline that is in the run."""
    counted: int
    """Rounds whose results count."""
    notes: Sequence[str] = field(default_factory=list)


def faults(result: Result) -> dict[str, int]:
    """What the checker found wrong, by kind, in the whole trial; stalled clients left out."""
    final, drained = result["final"], result["drained"]
    tally, tail = final["tally"], final["tail_missing"]
    found = {
        "missing": tally["missing"] + (tail if drained else 0),
        "undelivered when time was up": 0 if drained else tail,
        "duplicates": tally["duplicates"],
        "out of order": tally["disorder"],
        "stray": tally["stray"],
        "misnumbered": tally.get("misnumbered", 0),
        "clients whose delivered + told is not what was published": (
            final.get("unequal", 0) if drained else 0
        ),
        "not connected": result["ready"]["failed"],
        "closed by server": final["closed"],
    }
    return {kind: count for kind, count in found.items() if count > 0}


def _feed(result: Result) -> list[str]:
    """How an overloaded server took its feed."""
    if not BY_NAME[result["scenario"]].overload:
        return []
    said = f"feed held back for {result['feed_held_seconds'] * 1000:.0f} ms at most"
    if result.get("feed_messages") is not None:
        said += (
            f"; {result['feed_messages']:,.0f} messages taken, {result['feed_overflow']:,.0f} overflowed"
            f"; {result['feed_gaps']:,.0f} gaps in the stream"
        )
    return [said, *(f"limit of the bench: {limit}" for limit in result["limits"])]


def _comings(result: Result) -> list[str]:
    """What became of those who joined or came back, where any should."""
    scenario, final = BY_NAME[result["scenario"]], result["final"]
    said = []
    if scenario.joins:
        said.append(f"{final['joined']:,} joined")
    if scenario.away_seconds:
        how = "with what they have" if result["resumes"] else "without what they missed (no resume here)"
        said.append(f"{final['returned']:,} came back {how}")
    if final["refused"]:
        codes = ", ".join(f"{code}: {count:,}" for code, count in sorted(final["refused"].items()))
        said.append(f"attempts that failed, by HTTP status (0: no answer): {codes}")
    return ["; ".join(said)] if said else []


def _stalled(result: Result) -> list[str]:
    """What became of clients that stopped reading; empty when there were none."""
    final = result["final"]
    tally = final["stalled_tally"]
    missed = tally["missing"] + final["stalled_tail_missing"]
    told, after_close = tally.get("told", 0), final.get("after_close", 0)
    if not final["stalled_delivered"] + final["stalled_closed"] + missed + told:
        return []
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(final["closes"].items()))
    fate = f"{final['stalled_closed']} closed ({codes})" if codes else "none closed"
    said = (
        f"stalled clients: {fate}, {missed:,} messages missed, {told:,} told, {after_close:,} after a close"
    )
    unequal = final.get("stalled_unequal", 0)
    return [f"{said}, {unequal:,} clients whose sum is not what was published" if unequal else said]


def _notes(results: Sequence[Result]) -> list[str]:
    """What is to be said of the rounds, each note once."""
    notes: list[str] = []
    noisy: list[float] = []
    for result in results:
        if result["status"] != "ok":
            notes.append(f"{result['status']}: {'; '.join(result['reasons'])}")
            continue
        notes += [f"{count:,} {kind}" for kind, count in faults(result).items()]
        notes += _comings(result)
        notes += _stalled(result)
        if told := result["final"]["tally"].get("told", 0):
            delivered = f"{result['final']['delivered']:,} delivered since the window began"
            notes.append(f"{told:,} messages left out and told, {delivered}")
        notes += _feed(result)
        if result["delivered_share"] is not None and result["delivered_share"] < 0.98:
            notes.append(f"saturated: {result['delivered_share']:.0%} of what was due")
        if result["noisy"]:
            noisy.append(result["foreign_cores"])
    counted = {note: notes.count(note) for note in dict.fromkeys(notes)}
    said = [note if count == 1 else f"{note} (x{count})" for note, count in counted.items()]
    if noisy:
        said.append(
            f"noisy: others used up to {max(noisy):.1f} cores in {len(noisy)} of {len(results)} rounds"
        )
    return said


def _ratio(of: Sequence[Result], to: Sequence[Result], name: str = "cost") -> Ratio | None:
    """The ratio of two arms or two scenarios, paired by round. Results that are not ok take no part."""
    ours, theirs = (
        {each["round"]: found for each in side if each["status"] == "ok" and (found := figure(each, name))}
        for side in (of, to)
    )
    rounds = sorted(ours.keys() & theirs.keys())
    return paired_ratio([ours[each] for each in rounds], [theirs[each] for each in rounds])


def rows(results: Sequence[Result], reference: str) -> list[Row]:
    """A row for each scenario and arm. Results that are not ok are only in its notes."""
    by_place: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        by_place.setdefault(result["scenario"], {}).setdefault(result["arm"], []).append(result)

    def row(scenario: str, arm: str) -> Row:
        mine = by_place[scenario][arm]
        good = [result for result in mine if result["status"] == "ok"]
        baselines = {
            name: by_place[name].get(arm, ()) for name in BY_NAME[scenario].baselines if name in by_place
        }
        return Row(
            scenario,
            arm,
            {name: spread([x for each in good if (x := figure(each, name)) is not None]) for name in FIGURES},
            _ratio(mine, by_place[scenario].get(reference, ())),
            [Against(name, _ratio(mine, to), _ratio(mine, to, "p99_ms")) for name, to in baselines.items()],
            len(good),
            _notes(mine),
        )

    return [row(scenario, arm) for scenario, arms in by_place.items() for arm in sorted(arms)]
