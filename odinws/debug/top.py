"""`python -m odinws debug top`: what each worker does, live on a terminal."""

from __future__ import annotations

import time
from operator import itemgetter
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from odinws.debug.http_client import RequestError, Server
from odinws.debug.tables import table

_EVENTS = 5
_SHARDS = 8


def run(server: Server, every_seconds: float, count: int | None) -> None:
    """Show figures until Ctrl-C, or so many times.

    Raises:
        RequestError: the server does not answer the first time; later, that is shown.
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
                except RequestError as error:
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
    events = now.get("events", [])[:_EVENTS]
    named = [event | {"worker": str(event["worker"] or "arbiter")} for event in events]
    return Group(*parts, table("events", "at=at|>worker=worker|what=text", named))


def _refused(stats: dict[str, Any]) -> int:
    return sum(stats["refused"].values())


def _workers(earlier: dict[int, dict[str, Any]], workers: list[dict[str, Any]], elapsed: float) -> Table:
    rows = []
    for worker in workers:
        old = earlier.get(worker["pid"], worker)
        rates = {
            name: (worker["fan_out"][name] - old["fan_out"][name]) / elapsed
            for name in ("delivered", "sends", "delivered_bytes")
        }
        rows.append(
            worker
            | {
                "pid": str(worker["pid"]),
                "delivered": f"{rates['delivered']:,.0f}",
                "sends": f"{rates['sends']:,.0f}",
                "megabytes": f"{rates['delivered_bytes'] / 1e6:,.2f}",
                "cpu": f"{100 * worker['cpu_cores']:.1f}",
                "memory": f"{worker['rss_bytes'] / (1 << 20):,.0f}",
                "lag": _lag(old, worker),
                "stall": worker.get("hub_stall_recent_seconds"),
                "backlog": worker["details"].get("backlog"),
            }
        )
    columns = (
        ">worker=pid|>connections=connections|>subscriptions=subscriptions|>delivered/s=delivered|>sends/s=sends|"
        ">MB/s=megabytes|>CPU %=cpu|>MB=memory|>greenlets=greenlets|>lag ms=lag|>stall ms=stall|"
        ">longest ms=hub_stall_seconds|>backlog=backlog"
    )
    return table("workers", columns, rows)


def _lag(before: dict[str, Any], now: dict[str, Any]) -> float | None:
    """Mean delivery lag between the two."""
    count = sum(now["lag"]["counts"]) - sum(before["lag"]["counts"])
    seconds: float = now["lag"]["sum_seconds"] - before["lag"]["sum_seconds"]
    return seconds / count if count > 0 else None


def _shards(earlier: dict[int, dict[str, Any]], workers: list[dict[str, Any]]) -> Table | None:
    """The shards whose locks were waited for most between the two, then those with most subscriptions."""
    rows = []
    for worker in workers:
        shards = earlier.get(worker["pid"], worker)["details"].get("shards", [])
        old = {shard["index"]: shard["lock"] for shard in shards}
        for shard in worker["details"].get("shards", []):
            lock = shard["lock"]
            before = old.get(shard["index"], lock)
            row = shard | {"pid": str(worker["pid"]), "taken": 0, "waited": 0.0, "longest": None}
            if lock and before:
                row["taken"] = lock["acquisitions"] - before["acquisitions"]
                row["waited"] = lock["wait_seconds"] - before["wait_seconds"]
                row["longest"] = lock["longest_hold_seconds"]
            rows.append(row)
    if len(rows) <= len(workers):
        return None
    rows.sort(reverse=True, key=itemgetter("waited", "subscriptions"))
    columns = (
        ">worker=pid|>shard=index|>connections=connections|>subscriptions=subscriptions|>taken=taken|"
        ">waited ms=waited|>longest hold ms=longest"
    )
    return table("shards", columns, rows[:_SHARDS])
