"""Prometheus metrics of the whole server, read from the shared state when they are asked for.

prometheus-client's own multiprocess mode keeps one file per worker that ever lived and has no custom
collectors. The shared state is shared memory already and has the one true value of each, so its collector
reads that: nothing is counted twice, nothing is left on disk.

`catalogue` says what there is, `collector` reads it from the shared state, `text` writes it, `documentation`
makes `docs/metrics.md` of it.
"""

from odinws.metrics.collector import exposition

__all__ = ["exposition"]
