"""`python -m odinws.simulation`: print what docs/investigation.md says, and draw its picture."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from odinws.simulation import scenarios
from odinws.simulation.model import LOOPING, Load, Predecessor, Trace, reproduces, rhythm, run, swing


def main() -> None:
    """Run all scenarios."""
    parser = argparse.ArgumentParser(prog="python -m odinws.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=scenarios.SEED, help="of the noise")
    parser.add_argument("--seeds", type=int, default=0, help="count how many seeds give the seven rows")
    parser.add_argument("--out", type=Path, help="where to draw the picture; .svg or .png, needs matplotlib")
    options = parser.parse_args()
    traces = {name: scenarios.play(name, options.seed) for name in scenarios.SCENARIOS}
    lines = [*_table(traces["predecessor"]), "", *(_summary(name, trace) for name, trace in traces.items())]
    if options.seeds:
        lines += ["", _share(options.seeds)]
    sys.stdout.write("\n".join(lines) + "\n")
    if options.out is not None:
        from odinws.simulation.picture import draw

        draw(traces, options.out)


def _table(trace: Trace) -> Iterator[str]:
    yield "predecessor   attempts  active  failed    CPU | observed  active  failed    CPU"
    for row, seen in zip(trace.rows(70), scenarios.OBSERVED, strict=True):
        ours = f"{row.attempts:8}{row.active:8}{row.failed:8}{row.cpu:6.1f}%"
        yield f"{row.seconds:9} s   {ours} | {seen.attempts:8}{seen.active:8}{seen.failed:8}{seen.cpu:6.1f}%"


def _summary(name: str, trace: Trace) -> str:
    last = trace.steps[-1]
    in_at = next(step.now for step in trace.steps if step.connections == last.connections)
    periods = sorted(set(rhythm(trace)))
    settled = scenarios.SETTLED_SECONDS
    return (
        f"{name}: {last.connections} connected, the last at {in_at:.1f} s, {last.refused} refusals, "
        f"{len(trace.changes())} changes of state, rhythm {periods or 'none'} s, "
        f"longest without entry {trace.longest_without_entry():.1f} s, "
        f"CPU swing from {settled} s on {swing(trace, settled):.1f} points"
    )


def _share(seeds: int) -> str:
    load = Load(LOOPING, seconds=71)
    failed = tuple(row.failed for row in scenarios.OBSERVED)
    traces = [run(Predecessor(), load, seed) for seed in range(seeds)]
    good = sum(reproduces(trace, failed) for trace in traces)
    ends = Counter(trace.steps[-1].connections for trace in traces).most_common()
    counts = ", ".join(f"{count} at {connections}" for connections, count in ends)
    return f"{good} of {seeds} seeds give the seven rows; connections at the end of the ramp: {counts}"


if __name__ == "__main__":
    main()
