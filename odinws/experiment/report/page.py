"""The answer as one page that needs nothing else: no server, no other host."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate
from operator import add
from typing import Any

import jinja2
import msgspec
import tomlkit
from plotly.offline import get_plotlyjs

from odinws.experiment.kinds import Histogram, Records
from odinws.experiment.measures import MEASURES
from odinws.experiment.plan import Plan
from odinws.experiment.result import Result, Row, chance, figure, percent
from odinws.experiment.samples import samples
from odinws.experiment.statistics import ALPHA
from odinws.settings.checks import shown_of_unknown

FILE = "report.html"
_DIGITS = 5  # of a value in a picture


def page(records: Records, result: Result) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "percent": percent, "chance": chance}
    settings = {arm: _shown(each) for arm, each in records.run.settings.items()}
    return environment.get_template("page.html").render(
        result=result,
        records=records,
        run=records.run,
        plan=records.run.plan,
        settings=settings,
        setting_names=sorted({name for each in settings.values() for name in each}),
        measures=MEASURES,
        alpha=ALPHA,
        plan_text=_plan_text(records.run.plan),
        plotly=get_plotlyjs(),
        data=pictures(records, result),
    )


def pictures(records: Records, result: Result) -> dict[str, Any]:
    """What the pictures show.

    Returns:
        arms: their names, the baseline first.
        rows: what was tested: title, arm, and shift, low, high in percent.
        measures: those with values, the one that the plan asks for first, and the name of its histogram.
        trials: by measure and arm, [round, value].
        seconds: by measure and arm, for each round [the round, its seconds, their values].
        histograms: by name and arm, bounds in ms and the share of samples up to each.
    """
    plan = records.run.plan
    found = samples(records.trials, records.seconds)
    names = [name for name in MEASURES if any(found[name].values())]
    names.sort(key=lambda name: name != plan.primary)
    return {
        "arms": [plan.baseline.name, *(arm.name for arm in plan.others)],
        "rows": [_bar(row) for row in result.measures if row.interval is not None],
        "measures": [
            msgspec.to_builtins(MEASURES[name]) | {"histogram": name.partition("_")[0]} for name in names
        ],
        "trials": {
            name: {arm: [[n, _rounded(v)] for n, v in sorted(by.items())] for arm, by in found[name].items()}
            for name in names
        },
        "seconds": {name: _seconds(records, name) for name in names},
        "histograms": _histograms(records),
    }


def _bar(row: Row) -> dict[str, Any]:
    shift, low, high = (_rounded(100 * value) for value in (row.shift or 0.0, *(row.interval or ())))
    return {"shift": shift, "low": low, "high": high, "title": MEASURES[row.measure].title, "arm": row.arm}


def _seconds(records: Records, name: str) -> dict[str, list[list[Any]]]:
    found: dict[str, dict[int, list[Any]]] = defaultdict(dict)
    for second in records.seconds:
        if name in second.values:
            line = found[second.arm].setdefault(second.round, [second.round, [], []])
            line[1].append(second.second)
            line[2].append(_rounded(second.values[name]))
    return {arm: [by_round[number] for number in sorted(by_round)] for arm, by_round in found.items()}


def _histograms(records: Records) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Of all good trials of an arm together; what has other bounds than the first is left out."""
    summed: dict[str, dict[str, Histogram]] = defaultdict(dict)
    for trial in records.trials:
        for name, own in trial.histograms.items() if trial.status == "ok" else ():
            whole = summed[name].get(trial.arm)
            if whole is None or whole.bounds == own.bounds:
                counts = list(map(add, whole.counts, own.counts)) if whole else own.counts
                summed[name][trial.arm] = Histogram(own.bounds, counts)
    return {name: {arm: _cumulated(each) for arm, each in by.items()} for name, by in summed.items()}


def _cumulated(histogram: Histogram) -> dict[str, list[float]]:
    reached, total = list(accumulate(histogram.counts)), sum(histogram.counts) or 1
    shares = [_rounded(count / total) for count in reached[: len(histogram.bounds)]]
    return {"bounds": histogram.bounds, "shares": shares}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else 0.0


def _shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without secrets: a report is handed on."""
    return {
        name: shown_of_unknown(name, value) if isinstance(value, str) else value
        for name, value in settings.items()
    }


def _plan_text(plan: Plan) -> str:
    """The plan as a file, its defaults written out."""
    raw = msgspec.to_builtins(plan)
    for arm in raw["arm"]:
        arm["settings"] = _shown(arm["settings"])
        for part in ("feed", "load"):
            if arm[part] == raw[part]:
                del arm[part]
    return tomlkit.dumps(raw)
