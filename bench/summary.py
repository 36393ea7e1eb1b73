"""From raw results to rows: per scenario and arm, over the rounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.stats import Ratio, Spread, paired_ratio, spread

Result = Mapping[str, Any]

FIGURES: tuple[str, ...] = (
    "cpu_us_per_message",
    "cpu_user_us_per_message",
    "cpu_system_us_per_message",
    "cpu_us_per_connection_second",
    "server_cores",
    "delivered_per_second",
    "delivered_share",
    "resident_kb_per_connection",
    "slab_kb_per_connection",
    "resident_growth_mb",
    "connections_per_second",
)
LATENCIES: tuple[str, ...] = ("p50_ms", "p95_ms", "p99_ms", "longest_ms")


def figure(result: Result, name: str) -> float | None:
    """One figure of one result; latencies lie in its window, `subscribe_` ones too."""
    if name in LATENCIES:
        value = result["window"]["latency"][name]
    elif name.startswith("subscribe_"):
        value = result["window"]["subscribe"][name.removeprefix("subscribe_")]
    else:
        value = result[name]
    return None if value is None else float(value)


@dataclass(frozen=True)
class Row:
    """One arm under one scenario."""

    scenario: str
    arm: str
    figures: Mapping[str, Spread | None]
    ratio: Ratio | None
    """CPU per message (idle: per connection) to that of the reference arm, in the same rounds."""
    counted: int
    """Rounds whose results count."""
    notes: Sequence[str] = field(default_factory=list)


def faults(result: Result) -> dict[str, int]:
    """What the checker found wrong, by kind, in the whole trial; stalled clients left out."""
    tally = result["final"]["tally"]
    tail = result["final"]["tail_missing"]
    found = {
        "missing": tally["missing"] + (tail if result["drained"] else 0),
        "undelivered when time was up": 0 if result["drained"] else tail,
        "duplicates": tally["duplicates"],
        "out of order": tally["disorder"],
        "stray": tally["stray"],
        "not connected": result["ready"]["failed"],
        "closed by server": result["final"]["closed"],
    }
    return {kind: count for kind, count in found.items() if count > 0}


def _stalled(result: Result) -> list[str]:
    """What became of clients that stopped reading; empty when there were none."""
    final = result["final"]
    tally = final["stalled_tally"]
    missed = tally["missing"] + final["stalled_tail_missing"]
    if not final["stalled_delivered"] + final["stalled_closed"] + missed:
        return []
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(final["closes"].items()))
    fate = f"{final['stalled_closed']} closed ({codes})" if codes else "none closed"
    return [f"stalled clients: {fate}, {missed:,} messages missed, {final['gap_notices']:,} gap notices"]


def _notes(results: Sequence[Result]) -> list[str]:
    notes: list[str] = []
    for result in results:
        if result["status"] != "ok":
            notes.append(f"{result['status']}: {'; '.join(result['reasons'])}")
            continue
        notes += [f"{count:,} {kind}" for kind, count in faults(result).items()]
        notes += _stalled(result)
        if result["delivered_share"] is not None and result["delivered_share"] < 0.98:
            notes.append(f"saturated: {result['delivered_share']:.0%} of what was due")
    counted = {note: notes.count(note) for note in dict.fromkeys(notes)}
    said = [note if count == 1 else f"{note} (x{count})" for note, count in counted.items()]
    return [*said, *_noise(results)]


def _noise(results: Sequence[Result]) -> list[str]:
    """One note for all rounds that the machine's other processes disturbed; empty when none was."""
    noisy = [result["foreign_cores"] for result in results if result["status"] == "ok" and result["noisy"]]
    if not noisy:
        return []
    return [f"noisy: others used up to {max(noisy):.1f} cores in {len(noisy)} of {len(results)} rounds"]


def _ratio(of: Mapping[int, float], to: Mapping[int, float]) -> Ratio | None:
    rounds = sorted(of.keys() & to.keys())
    pairs = [(of[each], to[each]) for each in rounds if of[each] > 0 and to[each] > 0]
    return paired_ratio([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def rows(results: Sequence[Result], reference: str) -> list[Row]:
    """A row for each scenario and arm. Results that are not ok are only in its notes."""
    table: list[Row] = []
    names = (*FIGURES, *LATENCIES, "subscribe_p50_ms", "subscribe_p99_ms")
    for scenario in dict.fromkeys(result["scenario"] for result in results):
        here = [result for result in results if result["scenario"] == scenario]
        costs = {
            arm: {
                result["round"]: cost
                for result in here
                if result["arm"] == arm and result["status"] == "ok" and (cost := _cost(result)) is not None
            }
            for arm in dict.fromkeys(result["arm"] for result in here)
        }
        for arm in sorted(costs):
            mine = [result for result in here if result["arm"] == arm]
            good = [result for result in mine if result["status"] == "ok"]
            table.append(
                Row(
                    scenario,
                    arm,
                    {
                        name: spread([x for each in good if (x := figure(each, name)) is not None])
                        for name in names
                    },
                    _ratio(costs[arm], costs.get(reference, {})),
                    len(good),
                    _notes(mine),
                )
            )
    return table


def _cost(result: Result) -> float | None:
    per_message = figure(result, "cpu_us_per_message")
    return per_message if per_message is not None else figure(result, "cpu_us_per_connection_second")
