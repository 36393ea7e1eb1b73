"""What a view says, as tables on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_Answers = Sequence[dict[str, Any]]


def show(view: str, workers: _Answers) -> None:
    """Print the answer of all workers; those that gave none are named at the end."""
    console = Console()
    found = [worker for worker in workers if not worker.get("error")]
    _VIEWS[view](console, found)
    for worker in workers:
        if worker.get("error"):
            console.print(f"worker {worker['pid']}: {worker['error']}", style="red", highlight=False)


def table(title: str, heads: str, rows: Iterable[Sequence[object]]) -> Table:
    """A table.

    Args:
        heads: of the columns, with `|` between them; one that begins with `>` is of figures.
    """
    made = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for head in heads.split("|"):
        figures = head.startswith(">")
        made.add_column(head.removeprefix(">"), justify="right" if figures else "left", overflow="fold")
    for row in rows:
        made.add_row(*(text(cell) for cell in row))
    return made


def text(value: object) -> str:
    """A figure or a word for people."""
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


def milliseconds(seconds: float | None) -> str:
    """Seconds as milliseconds."""
    return "" if seconds is None else f"{1000 * seconds:,.3f}"


def _profile(console: Console, workers: _Answers) -> None:
    for worker in workers:
        result = worker["result"]
        whole = result["cpu_seconds"] or 1.0
        share = 100 * result["sampler_seconds"] / max(1e-9, result["seconds"])
        title = (
            f"worker {worker['pid']}: {result['cpu_seconds']:.3f} s of CPU in {result['seconds']:.1f} s, "
            f"{result['samples']} samples, which took {share:.3f} % of a core"
        )
        rows = [
            (
                f"{100 * place['self_seconds'] / whole:.1f}",
                f"{100 * place['total_seconds'] / whole:.1f}",
                place["place"],
            )
            for place in result["hottest"]
        ]
        console.print(title, highlight=False)
        console.print(table("", ">self %|>with callees %|function", rows))


def _heap(console: Console, workers: _Answers) -> None:
    for worker in workers:
        result, cost = worker["result"], worker["result"]["cost"]
        early = ", ended early" if result["ended_early"] else ""
        pause = milliseconds(cost["longest_pause_seconds"])
        console.print(
            f"worker {worker['pid']}: {result['traced_bytes']:,} bytes stay of {result['seconds']:.1f} s"
            f"{early}; it used {cost['cpu_cores']:.2f} cores, and the look {cost['tracer_bytes']:,} bytes "
            f"and two stops of up to {pause} ms",
            highlight=False,
        )
        for name, title in (("top", "what stays"), ("grown", "grown in the second half")):
            rows = [(place["bytes"], place["blocks"], place["place"]) for place in result[name]]
            console.print(table(title, ">bytes|>blocks|place", rows))


def _greenlets(console: Console, workers: _Answers) -> None:
    for worker in workers:
        result = worker["result"]
        rows = [(found["count"], found["place"]) for found in result["places"]]
        console.print(table(f"worker {worker['pid']}: {result['greenlets']} greenlets", ">count|where", rows))
        for found in result["stacks"]:
            console.print(f"\n{found['count']} at", *reversed(found["stack"]), sep="\n  ", highlight=False)


def _locks(console: Console, workers: _Answers) -> None:
    # Who was waited for most, then who was held most: the first line is the answer.
    found = sorted(
        ((worker, lock) for worker in workers for lock in worker["result"]["shards"]),
        key=lambda pair: (pair[1]["wait_seconds"], pair[1]["hold_seconds"]),
        reverse=True,
    )
    rows = [
        (
            str(worker["pid"]),
            str(lock["shard"]),
            lock["acquisitions"],
            lock["contended"],
            milliseconds(lock["wait_seconds"]),
            milliseconds(lock["longest_wait_seconds"]),
            milliseconds(lock["hold_seconds"]),
            milliseconds(lock["longest_hold_seconds"]),
            _spread(worker["result"]["bounds_seconds"], lock["holds"]),
            _spread(worker["result"]["bounds_seconds"], lock["waits"]),
            lock["longest_holder"],
        )
        for worker, lock in found
    ]
    heads = ">worker|>shard|>taken|>waited|>wait ms|>longest|>held ms|>longest|holds|waits|longest holder"
    console.print(
        table("locks, the most waited for first", heads, rows) if rows else "this strategy takes no locks"
    )


def _spread(bounds: Sequence[float], counts: Sequence[int]) -> str:
    """A histogram in words: the buckets that have anything."""
    names = [*(f"≤{1000 * bound:g}" for bound in bounds), f">{1000 * bounds[-1]:g}"]
    return " ".join(f"{name}:{count}" for name, count in zip(names, counts, strict=True) if count)


def _gc(console: Console, workers: _Answers) -> None:
    rows = [
        (
            str(worker["pid"]),
            " ".join(map(str, result["runs"])),
            " ".join(milliseconds(each) for each in result["seconds"]),
            f"{100 * result['share']:.3f}",
            milliseconds(result["pause_p99_seconds"]),
            milliseconds(result["longest_seconds"]),
            result["containers_per_second"],
            result["blocks"],
            result["frozen_objects"],
        )
        for worker in workers
        for result in (worker["result"],)
    ]
    heads = (
        ">worker|>runs of 0 1 2|>ms of 0 1 2|>% of time|>p99 ms|>longest ever ms|"
        ">containers/s|>blocks|>frozen"
    )
    console.print(table("garbage collector", heads, rows))
    latest = [
        (
            str(worker["pid"]),
            clock(pause["at"]),
            pause["generation"],
            milliseconds(pause["seconds"]),
            pause["collected"],
        )
        for worker in workers
        for pause in worker["result"]["latest"][-10:]
    ]
    console.print(table("latest", ">worker|at|>generation|>ms|>freed", latest))


def _connections(console: Console, workers: _Answers) -> None:
    rows = [
        (
            str(worker["pid"]),
            conn["client"],
            conn["peer"],
            conn["state"],
            f"{conn['age_seconds']:.0f}",
            conn["channel_count"],
            conn["outbox_frames"],
            conn["outbox_bytes"],
            conn["kernel_bytes"],
            milliseconds(conn["lag_seconds"]),
            milliseconds(conn["rtt_seconds"]),
        )
        for worker in workers
        for conn in worker["result"]["connections"]
    ]
    heads = ">worker|client|peer|state|>age s|>channels|>frames wait|>bytes wait|>in kernel|>lag ms|>rtt ms"
    total = sum(worker["result"]["count"] for worker in workers)
    console.print(table(f"{len(rows):,} of {total:,} connections", heads, rows))


def _shards(console: Console, workers: _Answers) -> None:
    rows = [
        (
            str(worker["pid"]),
            str(shard["index"]),
            shard["connections"],
            shard["channels"],
            shard["subscriptions"],
        )
        for worker in workers
        for shard in worker["result"]
    ]
    console.print(table("shards", ">worker|>shard|>connections|>channels|>subscriptions", rows))
    for worker in workers:
        counts = [shard["subscriptions"] for shard in worker["result"]]
        mean = sum(counts) / len(counts)
        if mean:
            console.print(
                f"worker {worker['pid']}: the fullest shard has {max(counts) / mean:.2f} times the mean, "
                f"{sum(not count for count in counts)} of {len(counts)} are empty",
                highlight=False,
            )


def _slow(console: Console, workers: _Answers) -> None:
    passes = sorted(
        ((worker, found) for worker in workers for found in worker["result"]),
        key=lambda pair: float(pair[1]["seconds"]),
        reverse=True,
    )
    rows = [
        (
            str(worker["pid"]),
            clock(found["at"]),
            milliseconds(found["seconds"]),
            milliseconds(found["away_seconds"]),
            milliseconds(found["gc_seconds"]),
            found["slices"],
            found["messages"],
            found["sends"],
            found["delivered"],
            found["size_bytes"],
            found["backlog"],
            f"{found['channel_count']}: {' '.join(found['channels'][:3])}",
        )
        for worker, found in passes
    ]
    heads = ">worker|at|>ms|>given away|>gc|>slices|>messages|>sends|>delivered|>bytes|>backlog|channels"
    console.print(table("the slowest passes of the last minutes", heads, rows))


def clock(at: float) -> str:
    """Unix seconds as a time of the day here."""
    return time.strftime("%H:%M:%S", time.localtime(at))


_VIEWS: dict[str, Callable[[Console, _Answers], None]] = {
    "profile": _profile,
    "heap": _heap,
    "greenlets": _greenlets,
    "locks": _locks,
    "gc": _gc,
    "connections": _connections,
    "shards": _shards,
    "slow": _slow,
}
