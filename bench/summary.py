"""From raw results to rows: per scenario and arm, over the rounds. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.columns import FIGURES, figure
from bench.ratios import Ratio, Spread, paired_ratio, spread
from bench.scenarios import BY_NAME

Result = Mapping[str, Any]


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
    final = result["final"]
    tally = final["tally"]
    tail = final["tail_missing"]
    found = {
        "missing": tally["missing"] + (tail if result["drained"] else 0),
        "undelivered when time was up": 0 if result["drained"] else tail,
        "duplicates": tally["duplicates"],
        "out of order": tally["disorder"],
        "stray": tally["stray"],
        "misnumbered": tally.get("misnumbered", 0),
        "clients whose delivered + told is not what was published": (
            final.get("unequal", 0) if result["drained"] else 0
        ),
        "not connected": result["ready"]["failed"],
        "closed by server": final["closed"],
    }
    return {kind: count for kind, count in found.items() if count > 0}


def _told(result: Result) -> list[str]:
    """What the server left out and told; empty when it did not."""
    told = result["final"]["tally"].get("told", 0)
    if not told:
        return []
    delivered = result["final"]["delivered"]
    return [f"{told:,} messages left out and told, {delivered:,} delivered since the window began"]


def _feed(result: Result) -> list[str]:
    """How an overloaded server took its feed."""
    if not BY_NAME[result["scenario"]].overload:
        return []
    said = [f"feed held back for {result['feed_held_seconds'] * 1000:.0f} ms at most"]
    if result.get("feed_messages") is not None:
        said.append(
            f"{result['feed_messages']:,.0f} messages taken, {result['feed_overflow']:,.0f} overflowed"
        )
        said.append(f"{result['feed_gaps']:,.0f} gaps in the stream")
    return ["; ".join(said), *(f"limit of the bench: {limit}" for limit in result["limits"])]


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
    notes: list[str] = []
    for result in results:
        if result["status"] != "ok":
            notes.append(f"{result['status']}: {'; '.join(result['reasons'])}")
            continue
        notes += [f"{count:,} {kind}" for kind, count in faults(result).items()]
        notes += [*_stalled(result), *_told(result), *_feed(result)]
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


Cell = Callable[[Result], float | None]


def _ratio(of: Sequence[Result], to: Sequence[Result], value: Cell) -> Ratio | None:
    """The ratio of two arms or two scenarios, paired by round. Results that are not ok take no part."""
    sides = [
        {each["round"]: found for each in side if each["status"] == "ok" and (found := value(each))}
        for side in (of, to)
    ]
    rounds = sorted(sides[0].keys() & sides[1].keys())
    return paired_ratio([sides[0][each] for each in rounds], [sides[1][each] for each in rounds])


def rows(results: Sequence[Result], reference: str) -> list[Row]:
    """A row for each scenario and arm. Results that are not ok are only in its notes."""
    by_place: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        by_place.setdefault(result["scenario"], {}).setdefault(result["arm"], []).append(result)
    return [
        _row(by_place, scenario, arm, reference)
        for scenario, arms in by_place.items()
        for arm in sorted(arms)
    ]


def _row(
    by_place: Mapping[str, Mapping[str, Sequence[Result]]], scenario: str, arm: str, reference: str
) -> Row:
    mine = by_place[scenario][arm]
    good = [result for result in mine if result["status"] == "ok"]
    baselines = [name for name in BY_NAME[scenario].baselines if name in by_place]
    return Row(
        scenario,
        arm,
        {name: spread([x for each in good if (x := figure(each, name)) is not None]) for name in FIGURES},
        _ratio(mine, by_place[scenario].get(reference, ()), _cost),
        [
            Against(
                name,
                _ratio(mine, by_place[name].get(arm, ()), _cost),
                _ratio(mine, by_place[name].get(arm, ()), _p99),
            )
            for name in baselines
        ],
        len(good),
        _notes(mine),
    )


def _cost(result: Result) -> float | None:
    per_message = figure(result, "cpu_us_per_message")
    return per_message if per_message is not None else figure(result, "cpu_us_per_connection_second")


def _p99(result: Result) -> float | None:
    return figure(result, "p99_ms")
