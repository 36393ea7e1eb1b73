"""What a server tells at `/metrics`, read with the library of Prometheus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from odinws.harness import fetch

Buckets = Mapping[float, float]
"""Observations up to each bound; the last bound is infinity."""


class Metrics:
    """The samples of one look, from the exposition format. What is not in it is 0 or empty."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples[sample.name].append(sample)

    def __contains__(self, name: str) -> bool:
        return name in self._samples

    def total(self, name: str) -> float:
        """The sum over all labels."""
        return sum(sample.value for sample in self._samples.get(name, ()))

    def totals(self) -> dict[str, float]:
        """The sum over all labels of every metric, by the name of its samples."""
        return {name: self.total(name) for name in self._samples}

    def most(self, name: str) -> float:
        """The largest over all labels."""
        return max((sample.value for sample in self._samples.get(name, ())), default=0.0)

    def buckets(self, name: str) -> dict[float, float]:
        """Of the histogram `name`, summed over all other labels."""
        found: dict[float, float] = defaultdict(float)
        for sample in self._samples.get(f"{name}_bucket", ()):
            found[float(sample.labels["le"])] += sample.value
        return dict(found)


def scrape(port: int, path: str = "/metrics") -> Metrics:
    """Look at a server; blocks. Raises OSError when it does not answer, or not with 200."""
    return Metrics(fetch.body(port, path).decode())


def within(before: Buckets, after: Buckets) -> dict[float, float]:
    """What was observed between two looks."""
    return {bound: count - before.get(bound, 0.0) for bound, count in after.items()}
