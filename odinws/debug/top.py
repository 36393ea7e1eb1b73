"""`python -m odinws debug top`: what each worker does, live on a terminal."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from odinws.debug.asking import AskError, Server
from odinws.debug.tables import clock, milliseconds, table

_EVENTS = 5
_SHARDS = 8


def run(server: Server, every_seconds: float, count: int | None) -> None:
    """Show figures until Ctrl-C, or so many times.

    Raises:
        AskError: the server does not answer the first time; later, that is shown.
    """
    console = Console()
    before, then = server.json("/stats"), time.monotonic()
    done = 0
    with Live(Text("a moment"), console=console, auto_refresh=False, transient=False) as live:
        try:
            while count is None or done < count:
                time.sleep(every_seconds)
                try:
                    now = server.json("/stats")
                except AskError as error:
                    live.update(Text(str(error), style="red"), refresh=True)
                    continue
                elapsed, then = time.monotonic() - then, time.monotonic()
                live.update(view(before, now, elapsed), refresh=True)
                before = now
                done += 1
        except KeyboardInterrupt:
            pass


def view(before: dict[str, Any], now: dict[str, Any], elapsed: float) -> RenderableType:
    """Two answers of `/stats`, as what happened between them.

    Args:
        elapsed: seconds between the two.
    """
    earlier = {worker["pid"]: worker for worker in before["workers"]}
    strategy = now["strategy"]
    head = Text(
        f"{now['connections']:,} of {now['max_connections']:,} connections, "
        f"{now['subscriptions']:,} subscriptions, {strategy['name']} with {strategy['shards']} shards, "
        f"up {now['uptime_seconds']:,.0f} s, "
        f"refused {_refused(now) - _refused(before):,} now, {_refused(now):,} in all",
        style="bold",
    )
    parts: list[RenderableType] = [head, _workers(earlier, now["workers"], elapsed)]
    shards = _shards(earlier, now["workers"])
    if shards is not None:
        parts.append(shards)
    events = [
        (
            clock(event["at"]),
            str(event["worker"] or "arbiter"),
            event["text"],
        )
        for event in now.get("events", [])[:_EVENTS]
    ]
    parts.append(table("events", "at|>worker|what", events))
    return Group(*parts)


def _refused(stats: dict[str, Any]) -> int:
    return sum(stats["refused"].values())


def _workers(earlier: dict[int, dict[str, Any]], workers: list[dict[str, Any]], elapsed: float) -> Table:
    rows = []
    for worker in workers:
        old = earlier.get(worker["pid"], worker)
        fan, fan_before = worker["fan_out"], old["fan_out"]
        rows.append(
            (
                str(worker["pid"]),
                worker["connections"],
                worker["subscriptions"],
                f"{(fan['delivered'] - fan_before['delivered']) / elapsed:,.0f}",
                f"{(fan['sends'] - fan_before['sends']) / elapsed:,.0f}",
                f"{(fan['delivered_bytes'] - fan_before['delivered_bytes']) / elapsed / 1e6:,.2f}",
                f"{100 * worker['cpu_cores']:.1f}",
                f"{worker['rss_bytes'] / (1 << 20):,.0f}",
                worker["greenlets"],
                milliseconds(_lag(old, worker)),
                milliseconds(worker.get("hub_lag_seconds")),
                milliseconds(worker["hub_stall_seconds"]),
                worker["details"].get("backlog"),
            )
        )
    heads = (
        ">worker|>connections|>subscriptions|>delivered/s|>sends/s|>MB/s|>CPU %|>MB|"
        ">greenlets|>lag ms|>stall ms|>longest ms|>backlog"
    )
    return table("workers", heads, rows)


def _lag(before: dict[str, Any], now: dict[str, Any]) -> float | None:
    """Mean delivery lag between the two."""
    count = sum(now["lag"]["counts"]) - sum(before["lag"]["counts"])
    seconds: float = now["lag"]["sum_seconds"] - before["lag"]["sum_seconds"]
    return seconds / count if count > 0 else None


def _shards(earlier: dict[int, dict[str, Any]], workers: list[dict[str, Any]]) -> Table | None:
    """The shards whose locks were waited for most between the two, then those with most subscriptions."""
    rows = []
    for worker in workers:
        old = {
            shard["index"]: shard for shard in earlier.get(worker["pid"], worker)["details"].get("shards", [])
        }
        for shard in worker["details"].get("shards", []):
            lock = shard["lock"]
            before = old.get(shard["index"], shard)["lock"]
            if lock and before:
                waited = lock["wait_seconds"] - before["wait_seconds"]
                taken = lock["acquisitions"] - before["acquisitions"]
                longest = milliseconds(lock["longest_hold_seconds"])
            else:
                waited, taken, longest = 0.0, 0, ""
            rows.append(
                (
                    waited,
                    shard["subscriptions"],
                    worker["pid"],
                    shard["index"],
                    shard["connections"],
                    taken,
                    longest,
                )
            )
    if len(rows) <= len(workers):
        return None
    rows.sort(reverse=True, key=lambda row: row[:2])
    shown = [
        (str(pid), str(index), connections, subscriptions, taken, milliseconds(waited), longest)
        for waited, subscriptions, pid, index, connections, taken, longest in rows[:_SHARDS]
    ]
    heads = ">worker|>shard|>connections|>subscriptions|>taken|>waited ms|>longest hold ms"
    return table("shards", heads, shown)
