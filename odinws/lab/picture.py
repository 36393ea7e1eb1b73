"""The picture of the redelivery experiment."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from odinws.lab.redelivery import Result


def draw(result: Result, path: Path) -> None:
    """Draw deliveries per second of each consumer; grey: the guard has paused the feed."""
    with mpl.rc_context({"svg.hashsalt": "odinws", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.axvspan(*result.pause, color="0.9")
        for count in result.counts:
            label = f"{count.arm.name}: {result.amplification(count):,.1f} per published message"
            heights = [float(number) if number else math.nan for number in count.by_second]
            axes.plot(range(len(heights)), heights, label=label, linewidth=1)
        axes.set(yscale="log", xlabel="seconds; grey: the feed is paused", ylabel="deliveries per second")
        axes.legend(loc="upper right")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
