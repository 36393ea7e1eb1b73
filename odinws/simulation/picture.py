"""The picture of `docs/investigation.md`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from odinws.simulation.model import STEPS_PER_SECOND, Trace

_SHOWN = {
    "predecessor": "predecessor",
    "predecessor, held 5 s": "predecessor, sample held 5 s instead of 15 s",
    "ours, looping feed": "odinws' guard on the very load of the first panel",
    "ours, hog": "odinws' guard, no redelivery loop, CPU hog from 20 s to 80 s",
}
_SECONDS = 250
_CPU, _CONNECTIONS = "#c44e52", "#4c72b0"


def draw(traces: Mapping[str, Trace], path: Path) -> None:
    """Draw CPU and connections over time; grey: newcomers may be refused for load."""
    # Without a date and with fixed names inside, the same numbers give the same file.
    with mpl.rc_context({"svg.hashsalt": "odinws", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 9), layout="constrained")
        panels = figure.subplots(len(_SHOWN), 1, sharex=True)
        for axes, (name, title) in zip(panels, _SHOWN.items(), strict=True):
            trace = traces[name]
            seconds = range(1, _SECONDS + 1)
            ends = [trace.steps[second * STEPS_PER_SECOND - 1] for second in seconds]
            restricted = [step.restricted for step in ends]
            axes.fill_between(seconds, 0, 105, where=restricted, color="0.9", linewidth=0, step="pre")
            axes.plot(seconds, [trace.cpu(second) for second in seconds], color=_CPU, linewidth=1)
            axes.set(title=title, ylim=(0, 105), xlim=(0, _SECONDS))
            axes.set_ylabel("CPU, % of the host", color=_CPU)
            other = axes.twinx()
            other.plot(seconds, [step.connections for step in ends], color=_CONNECTIONS, linewidth=1)
            other.set_ylim(0, 7350)
            other.set_ylabel("connections", color=_CONNECTIONS)
        panels[-1].set_xlabel("seconds; grey: newcomers may be refused for load")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
