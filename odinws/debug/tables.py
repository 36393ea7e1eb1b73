"""What a view says, as tables on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from rich.console import Console, JustifyMethod
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


def table(title: str, columns: str, rows: Iterable[Mapping[str, Any]]) -> Table:
    """A table.

    Args:
        columns: `head=key of a row`, with `|` between them. A head that begins with `>` is of numbers, one
            that ends with ` ms` of seconds, `at` of Unix seconds.
    """
    made = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    pairs = [column.split("=") for column in columns.split("|")]
    for head, _ in pairs:
        justify: JustifyMethod = "right" if head.startswith(">") else "left"
        made.add_column(head.removeprefix(">"), justify=justify, overflow="fold")
    for row in rows:
        made.add_row(*(_cell(head, row[key]) for head, key in pairs))
    return made


def _cell(head: str, value: Any) -> str:
    if value is None:
        return ""
    if head.endswith(" ms"):
        return f"{1000 * value:,.3f}"
    if head == "at":
        return time.strftime("%H:%M:%S", time.localtime(value))
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _rows(workers: _Answers, select: Callable[[Any], Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """What is selected of each answer, each with the worker it is of."""
    return [{**row, "pid": str(worker["pid"])} for worker in workers for row in select(worker["result"])]


def _profile(console: Console, workers: _Answers) -> None:
    for worker in workers:
        result = worker["result"]
        percent = 100 / (result["cpu_seconds"] or 1.0)
        share = 100 * result["sampler_seconds"] / max(1e-9, result["seconds"])
        console.print(
            f"worker {worker['pid']}: {result['cpu_seconds']:.3f} s of CPU in {result['seconds']:.1f} s, "
            f"{result['samples']} samples, which took {share:.3f} % of a core",
            highlight=False,
        )
        rows = [
            {
                "place": found["place"],
                "self": f"{percent * found['self_seconds']:.1f}",
                "total": f"{percent * found['total_seconds']:.1f}",
            }
            for found in result["hottest"]
        ]
        console.print(table("", ">self %=self|>with callees %=total|function=place", rows))


def _heap(console: Console, workers: _Answers) -> None:
    for worker in workers:
        result, cost = worker["result"], worker["result"]["cost"]
        early = ", ended early" if result["ended_early"] else ""
        console.print(
            f"worker {worker['pid']}: {result['traced_bytes']:,} bytes stay of {result['seconds']:.1f} s"
            f"{early}; it used {cost['cpu_cores']:.2f} cores, and the look {cost['tracer_bytes']:,} bytes "
            f"and two stops of up to {1000 * cost['longest_pause_seconds']:,.3f} ms",
            highlight=False,
        )
        for name, title in (("top", "what stays"), ("grown", "grown in the second half")):
            console.print(table(title, ">bytes=bytes|>blocks=blocks|place=place", result[name]))


def _greenlets(console: Console, workers: _Answers) -> None:
    for worker in workers:
        result = worker["result"]
        title = f"worker {worker['pid']}: {result['greenlets']} greenlets"
        console.print(table(title, ">count=count|where=place", result["places"]))
        for found in result["stacks"]:
            console.print(f"\n{found['count']} at", *reversed(found["stack"]), sep="\n  ", highlight=False)


def _locks(console: Console, workers: _Answers) -> None:
    def locks(result: dict[str, Any]) -> Iterable[dict[str, Any]]:
        for lock in result["shards"]:
            yield lock | {name: _spread(result["bounds_seconds"], lock[name]) for name in ("holds", "waits")}

    # Who was waited for most, then who was held most: the first line is the answer.
    rows = sorted(_rows(workers, locks), key=itemgetter("wait_seconds", "hold_seconds"), reverse=True)
    columns = (
        ">worker=pid|>shard=shard|>taken=acquisitions|>waited=contended|>wait ms=wait_seconds|"
        ">longest ms=longest_wait_seconds|>held ms=hold_seconds|>longest ms=longest_hold_seconds|"
        "holds=holds|waits=waits|longest holder=longest_holder"
    )
    title = "locks, the most waited for first"
    console.print(table(title, columns, rows) if rows else "this strategy takes no locks")


def _spread(bounds: Sequence[float], counts: Sequence[int]) -> str:
    """A histogram in words: the buckets that have anything."""
    names = [*(f"≤{1000 * bound:g}" for bound in bounds), f">{1000 * bounds[-1]:g}"]
    return " ".join(f"{name}:{count}" for name, count in zip(names, counts, strict=True) if count)


def _gc(console: Console, workers: _Answers) -> None:
    def collector(result: dict[str, Any]) -> Iterable[dict[str, Any]]:
        yield result | {
            "runs": " ".join(map(str, result["runs"])),
            "seconds": " ".join(f"{1000 * seconds:,.3f}" for seconds in result["seconds"]),
            "percent": f"{100 * result['share']:.3f}",
        }

    columns = (
        ">worker=pid|>runs of 0 1 2=runs|>ms of 0 1 2=seconds|>% of time=percent|>p99 ms=pause_p99_seconds|"
        ">longest ever ms=longest_seconds|>containers/s=containers_per_second|>blocks=blocks|"
        ">frozen=frozen_objects"
    )
    console.print(table("garbage collector", columns, _rows(workers, collector)))
    columns = ">worker=pid|at=at|>generation=generation|>took ms=seconds|>freed=collected"
    console.print(table("latest", columns, _rows(workers, lambda result: result["latest"][-10:])))


def _connections(console: Console, workers: _Answers) -> None:
    rows = _rows(workers, itemgetter("connections"))
    columns = (
        ">worker=pid|client=client|peer=peer|state=state|>age s=age_seconds|>channels=channel_count|"
        ">frames wait=outbox_frames|>bytes wait=outbox_bytes|>in kernel=kernel_bytes|>lag ms=lag_seconds|"
        ">rtt ms=rtt_seconds"
    )
    total = sum(worker["result"]["count"] for worker in workers)
    console.print(table(f"{len(rows):,} of {total:,} connections", columns, rows))


def _shards(console: Console, workers: _Answers) -> None:
    columns = (
        ">worker=pid|>shard=index|>connections=connections|>channels=channels|>subscriptions=subscriptions"
    )
    console.print(table("shards", columns, _rows(workers, iter)))
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
    def passes(result: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        for found in result:
            yield found | {"channels": f"{found['channel_count']}: {' '.join(found['channels'][:3])}"}

    rows = sorted(_rows(workers, passes), key=itemgetter("seconds"), reverse=True)
    columns = (
        ">worker=pid|at=at|>took ms=seconds|>given away ms=away_seconds|>gc ms=gc_seconds|>slices=slices|"
        ">messages=messages|>sends=sends|>delivered=delivered|>bytes=size_bytes|>backlog=backlog|"
        "channels=channels"
    )
    console.print(table("the slowest passes of the last minutes", columns, rows))


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
