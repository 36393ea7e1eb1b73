"""A stand-in for prometheus-nats-exporter, which no package index that we use has.

The figures are those of a real nats-server, under the names that the exporter gives them.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

# As its collector/jsz.go names what is in /jsz.
JETSTREAM_SERVER = {
    "jetstream_server_max_storage": ("config", "max_storage"),
    "jetstream_server_total_message_bytes": ("bytes",),
    "jetstream_server_total_streams": ("streams",),
}
JETSTREAM_STREAM = {"jetstream_stream_total_bytes": ("state", "bytes")}
_SECONDS = 5.0


class _Figures(Collector):
    """Asks anew at each scrape.

    As there: of `/varz` a gauge of each number, which stays as it was while nats-server is away; of `/jsz`
    nothing then.
    """

    def __init__(self, monitoring: str) -> None:
        self._monitoring = monitoring
        self._varz: dict[str, Any] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            self._varz = self._ask("/varz")
            jsz = self._ask("/jsz?consumers=true&config=true")
        except OSError:
            jsz = None
        server = {"server_id": self._varz.get("server_id", "")}
        for name, value in self._varz.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield _gauge(f"gnatsd_varz_{name}", server, value)
        if jsz is None:
            return
        for name, path in JETSTREAM_SERVER.items():
            yield _gauge(name, server, _at(jsz, path))
        for account in jsz["account_details"]:
            for stream in account.get("stream_detail", ()):
                labels = {**server, "account": account["name"], "stream_name": stream["name"]}
                for name, path in JETSTREAM_STREAM.items():
                    yield _gauge(name, labels, _at(stream, path))

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(self._monitoring + path, timeout=_SECONDS) as answer:  # noqa: S310
            return json.load(answer)


class NatsExporter:
    """Serves them from `with` to its end.

    Args:
        monitoring: base address of nats-server's monitoring; nobody need be there yet.

    Attributes:
        target: where Prometheus finds it.
    """

    def __init__(self, monitoring: str) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Figures(monitoring))
        self._server, self._thread = start_http_server(0, "127.0.0.1", registry)
        self.target = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _at(figures: Any, path: tuple[str, ...]) -> float:
    for step in path:
        figures = figures[step]
    return float(figures)


def _gauge(name: str, labels: dict[str, str], value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, name, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family
