"""`docs/metrics.md`, made of the catalogue. Pure."""

from __future__ import annotations

from odinws.metrics import catalogue
from odinws.shared.fields import Metric

_HEAD = """# Metrics

`/metrics` answers for the whole server, whichever worker is asked. This page is `python -m odinws metrics`.

Counters cover all workers since the server started, including those that have ended; a worker that is killed
loses only what it had not counted yet. Metrics with the label `worker` describe running workers and are at
most a second old; their counters continue when another worker takes over the slot. Histograms can be summed:
`histogram_quantile(0.99, sum by (le) (rate(ws_delivery_lag_seconds_bucket[1m])))`.
"""


def page() -> str:
    """All of it, in Markdown."""
    parts = [_HEAD]
    for title, metrics in catalogue.SECTIONS.items():
        rows = "\n".join(_row(metric) for metric in metrics)
        parts.append(f"## {title}\n\n| metric | kind | labels | what it says |\n|---|---|---|---|\n{rows}\n")
    rows = "\n".join(f"| `{name}` | {values} |" for name, values in catalogue.LABELS.items())
    parts.append(f"## Labels\n\n| label | values |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.shown_name}` | {metric.kind} | {labels} | {metric.text} |"
