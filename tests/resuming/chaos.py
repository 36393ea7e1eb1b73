"""Clients resume while workers, nats-servers and hosts die, drain and reload."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import nats
from nats.js.api import StreamConfig, StreamSource

from odinws.shared.counters import RECOVERIES
from tests.ledger import STREAM, Ledger, Publisher, read
from tests.protection.proof import Proof
from tests.resuming.crowd import Client, Crowd
from tests.resuming.sites import OneHost, Site, TwoHosts
from tests.server import wait_for

CHANNELS = [f"token.T{n}" for n in range(10)]
_MIRROR = "MIRROR"


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        kill_seconds: between two kills of a worker.
        stay_seconds: mean time of a connection.
        hosts: 1, or 2 on a cluster of three nats-servers, behind haproxy.
        stream_messages: what the stream keeps; 0: all. A small one can't bridge every absence.
        last_value: whether the stream keeps only the newest message of each channel.
        settings: further ones of the servers.
    """

    clients: int = 1000
    seconds: float = 180.0
    rate: float = 200.0
    kill_seconds: float = 10.0
    stay_seconds: float = 20.0
    strategy: str = "sync-dict"
    seed: int = 1
    hosts: int = 1
    stream_messages: int = 0
    last_value: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def forgets(self) -> bool:
        """Whether the stream can't bridge every absence."""
        return bool(self.stream_messages) or self.last_value

    @property
    def mirror_forgets(self) -> bool:
        """Whether the stream forgets so soon that its mirror loses some too, while nats-server is away."""
        return self.last_value or 0 < self.stream_messages < self.rate / 2


class Guests(Protocol):
    """Other clients beside the crowd."""

    def arrive(self) -> None:
        """Wait until all are subscribed. Raises AssertionError: some are not."""

    def behind(self, truth: Ledger) -> int:
        """How many still want messages."""

    def judge(self, proof: Proof, truth: Ledger, plan: Plan) -> None:
        """Hold what they heard against what was published."""


def run(
    plan: Plan,
    tell: Callable[[str], None] = lambda _: None,
    invite: Callable[[int, Path], AbstractContextManager[Guests]] | None = None,
) -> Proof:
    """Do all of it, and compare.

    Args:
        invite: makes the guests of a port, if there are any; a directory takes what they say.
    """
    title = f"{plan.clients:,} resuming clients, {plan.seconds:g} s, {plan.strategy}, seed {plan.seed}"
    title += ", two hosts" if plan.hosts == 2 else ""
    title += f", a stream of {plan.stream_messages:,} messages" if plan.stream_messages else ""
    title += ", a last-value stream" if plan.last_value else ""
    proof = Proof(title)
    settings = {
        "WS_SHARD_STRATEGY": plan.strategy,
        "WS_DRAIN_SECONDS": "3",
        "WS_MAX_CONNECTIONS": str(2 * plan.clients),
        **plan.settings,
    }
    if plan.stream_messages:
        settings["JS_STREAM_MAX_MSGS"] = str(plan.stream_messages)
    if plan.forgets:
        settings["WS_RING_MESSAGES"] = "50"
    with (
        tempfile.TemporaryDirectory() as directory,
        (TwoHosts if plan.hosts == 2 else OneHost)(Path(directory), settings) as site,
        _mirrored(site.nats_url, plan) as truth_of,
        Publisher(site.nats_url, CHANNELS, plan.rate) as publisher,
        Crowd(site.port, plan.clients, CHANNELS, plan.seed, stay_seconds=plan.stay_seconds) as crowd,
        invite(site.port, Path(directory)) if invite else nullcontext() as guests,
    ):
        wait_for(lambda: all(client.heard for client in crowd.clients), 60, "the first messages")
        if guests is not None:
            guests.arrive()
        kills = _harm(plan, site, crowd, tell)
        crowd.stay()
        publisher.stop()
        truth = truth_of()
        began = time.monotonic()
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not _behind(crowd, truth) and not (guests and guests.behind(truth)), 60, "all")
        proof.fact("caught up in", f"{time.monotonic() - began:.1f} s")
        _judge(plan, proof, site, crowd, truth)
        if guests is not None:
            guests.judge(proof, truth, plan)
        proof.fact("workers killed", str(kills))
    return proof


def _harm(plan: Plan, site: Site, crowd: Crowd, tell: Callable[[str], None]) -> int:
    """Kill a worker every `kill_seconds`, and do the site's deeds at their time."""
    rng = random.Random(plan.seed)
    due = list(site.deeds)
    began, kills = time.monotonic(), 0
    while (now := time.monotonic() - began) < plan.seconds or due:
        time.sleep(min(plan.kill_seconds, max(0.5, plan.seconds - now)))
        workers = [worker["pid"] for stats in site.stats() for worker in stats["workers"]]
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                kills += 1
        tell(f"{now:.0f} s: {crowd.live:,} live, {crowd.messages:,} messages; a worker killed")
        if due and time.monotonic() - began >= due[0][0] * plan.seconds:
            _, what, deed = due.pop(0)
            tell(f"{now:.0f} s: {what}")
            deed()
    return kills


def _behind(crowd: Crowd, truth: Ledger) -> int:
    return sum(client.last < truth.seqs[client.channel][-1] for client in crowd.clients)


def _judge(plan: Plan, proof: Proof, site: Site, crowd: Crowd, truth: Ledger) -> None:
    stats = site.stats()
    resumed = {how: sum(s["recovery"]["resumed"][how] for s in stats) for how in RECOVERIES}
    received, published = (sum(s["feed"][name] for s in stats) for name in ("received", "published"))
    gaps = [gap for client in crowd.clients for gap in client.gaps]
    wrong = [text for client in crowd.clients for text in _wrong(client, truth, plan)]
    proof.fact("connections", f"{crowd.connects:,}, refused {crowd.refused:,}")
    proof.fact("messages heard", f"{crowd.messages:,}; {len(truth):,} published")
    proof.fact("resumed from", str(resumed))
    proof.fact("gaps told", f"{len(gaps):,}")
    proof.fact("received per published", f"{received / max(1, published):.6f}")
    proof.check("the crowd lives", crowd.failure is None, repr(crowd.failure))
    proof.check("all clients have caught up", not _behind(crowd, truth), _behind(crowd, truth))
    proof.check("no message twice or out of order", not crowd.faults(), crowd.faults()[:3])
    proof.check("all was heard, or named in a gap", not wrong, wrong[:3])
    if plan.forgets:  # what expired before a worker saw it counts as published
        proof.check("some gaps", bool(gaps), len(gaps))
    else:
        proof.check("received = published", received == published > 0, (received, published))
        proof.check("no gaps", not gaps, gaps[:3])


def _wrong(client: Client, truth: Ledger, plan: Plan) -> Iterator[str]:
    """What a client neither heard nor was told, from its first message on, or what it was told and heard."""
    due = {seq for seq in truth.seqs[client.channel] if client.heard[0] <= seq <= client.last}
    told = {seq for seq in due if any(first <= seq <= last for first, last, _ in client.gaps)}
    heard = set(client.heard)
    wrong = sorted(due ^ told ^ (heard & due if plan.mirror_forgets else heard))
    if wrong:
        yield f"client {client.number} on {client.channel}: {wrong[:5]}, gaps {client.gaps[-3:]}"


@contextmanager
def _mirrored(nats_url: str, plan: Plan) -> Iterator[Callable[[], Ledger]]:
    """Keep the whole truth also where the stream forgets: a mirror has the same sequences."""
    servers = nats_url.split(",")

    async def begin() -> None:
        client = await nats.connect(servers, connect_timeout=60)
        js = client.jetstream()
        if plan.last_value:
            config = (await js.stream_info(STREAM)).config
            await js.update_stream(config.evolve(max_msgs_per_subject=1))
        await js.add_stream(StreamConfig(name=_MIRROR, mirror=StreamSource(name=STREAM)))
        await client.close()

    async def caught_up() -> bool:
        client = await nats.connect(servers, connect_timeout=60)
        js = client.jetstream()
        last = [(await js.stream_info(name)).state.last_seq for name in (STREAM, _MIRROR)]
        await client.close()
        return last[0] == last[1]

    def truth() -> Ledger:
        if not plan.forgets:
            return read(servers[0])
        wait_for(lambda: asyncio.run(caught_up()), 20, "the mirror")
        return read(servers[0], _MIRROR)

    if plan.forgets:
        asyncio.run(begin())
    yield truth
