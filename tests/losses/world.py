"""Runs a history with all real parts of a worker, on a real stream."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import json
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from unittest import mock

import gevent
import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client as NatsClient

import strategies
from odinws.connections.commands import Commands
from odinws.connections.connection import Connection, State
from odinws.connections.limits import ConnectionLimits
from odinws.fanout.hub import Hub
from odinws.fanout.recovery import Recovery
from odinws.fanout.ring import Ring
from odinws.feed import session as session_module
from odinws.feed.nats import NatsFeed
from odinws.feed.servers import Servers
from odinws.messages.protocol import Welcome
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats
from tests.fakes import FORMATS, FakeConnection, welcome
from tests.losses.history import WANTED, History

SETTLE_SECONDS = 20.0  # in which all must be told at the end
NOWHERE = "nats://127.0.0.1:1"

T = TypeVar("T")


def hurried() -> Any:
    """The feed with shorter times, so that a history is one of seconds."""
    return mock.patch.multiple(
        session_module, _HEARTBEAT_SECONDS=0.15, _LOOK_SECONDS=0.4, _UNSURE_SECONDS=0.1
    )


def wildcard(channel: str) -> str:
    """The wildcard that has a channel."""
    kind, dot, _ = channel.partition(".")
    return f"{kind}.*" if dot else ""


class Admin:
    """Does things to NATS for histories in many threads, in one of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.client: NatsClient = self.wait(self._connect(), time.sleep)

    async def _connect(self) -> NatsClient:
        return await nats.connect(
            self._url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, allow_reconnect=True
        )

    def wait(self, work: Coroutine[Any, Any, T], sleep: Callable[[float], object] = gevent.sleep) -> T:
        """Wait for something in another greenlet's or thread's time."""
        done: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        while not done.done():
            sleep(0.001)
        return done.result()

    async def api(self, subject: str, request: Any) -> dict[str, Any]:
        """A request to JetStream, repeated until it is answered."""
        while True:
            try:
                answer = await self.client.request(f"$JS.API.{subject}", json.dumps(request).encode())
                found: dict[str, Any] = json.loads(answer.data)
            except nats.errors.Error:
                await asyncio.sleep(0.05)
                continue
            if found.get("error", {}).get("code") != 503:
                return found
            await asyncio.sleep(0.05)

    async def publish(self, subject: str, key: str, headers: dict[str, str]) -> int:
        """Publish until it is acknowledged; its sequence, 0 if the stream refuses it."""
        while True:
            try:
                answer = await self.client.request(
                    subject, b'{"n":1}', headers={"Nats-Msg-Id": key, **headers}, timeout=1
                )
                found: dict[str, Any] = json.loads(answer.data)
            except nats.errors.Error:
                await asyncio.sleep(0.05)
                continue
            if "error" not in found:
                return int(found["seq"])
            if found["error"]["code"] != 503 or "maximum" in found["error"]["description"]:
                return 0
            await asyncio.sleep(0.05)

    def close(self) -> None:
        """End it."""
        self.wait(self.client.close(), time.sleep)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)


class Client:
    """One client over all its connections, and what it knows of one subscription."""

    def __init__(self, name: str, channels: tuple[str, ...], since: int) -> None:
        self.name = name
        self.channels = channels
        self.start = since
        self.last = dict.fromkeys(channels, since)  # by subscription: up to here it has or was told all
        self.heard: dict[str, list[int]] = {channel: [] for channel in channels}
        self.told: dict[str, list[tuple[int, int, str]]] = {channel: [] for channel in channels}
        self.conn: FakeConnection | None = None
        self.faults: list[str] = []
        self._read = 0

    def read(self) -> None:
        """Take what came."""
        if self.conn is None:
            return
        messages = self.conn.messages
        for message in messages[self._read :]:
            self._take(message)
        self._read = len(messages)

    def connected(self, conn: FakeConnection | None) -> None:
        """Over this connection from now on."""
        self.read()
        self.conn, self._read = conn, 0

    def _take(self, message: dict[str, Any]) -> None:
        if "channel" not in message:
            return
        channel = message["channel"]
        name = channel if channel in self.last else wildcard(channel)
        last = self.last[name]
        if message["type"] == "gap":
            first, upto, reason = message["from"], message["to"], message["reason"]
            self.told[name].append((first, upto, reason))
            if first <= last and reason != "uncertain":
                self.faults.append(f"{message} came after {last}")
            self.last[name] = max(last, upto)
            if reason not in ("expired", "uncertain"):
                self.faults.append(f"{message}")
        elif "seq" in message:
            seq, prev = message["seq"], message["prev"]
            if not prev <= last < seq and name == channel:
                self.faults.append(f"{message} came after {last}")
            self.heard[name].append(seq)
            self.last[name] = seq

    def missing(self, truth: dict[int, str]) -> list[str]:
        """What was neither heard nor told."""
        found = []
        for name in self.channels:
            heard = set(self.heard[name])
            for seq, channel in truth.items():
                if seq <= self.start or not (channel == name or wildcard(channel) == name) or seq in heard:
                    continue
                if not any(first <= seq <= last for first, last, _ in self.told[name]):
                    found.append(
                        f"{self.name}, {name}: {seq}; told {self.told[name]}, heard {self.heard[name]}"
                    )
        return found


class World:
    """One stream, one worker at a time, and its clients. For one thread, which has gevent to itself."""

    def __init__(self, admin: Admin, url: str, number: int, history: History) -> None:
        self._admin = admin
        self._url = url
        self._history = history
        self._rng = random.Random(number)
        self._stream, self._origin, self._prefix = f"H{number}", f"O{number}", f"h{number}."
        self._other = f"x{number}."
        self._keys = itertools.count()
        self.truth: dict[int, str] = {}
        self._has_epoch = False
        self._clients: dict[int, Client] = {}
        environ = {
            "WS_SUBJECT_PREFIX": self._prefix,
            "WS_SUBJECTS": history.subjects,
            "JS_STREAM_NAME": self._stream,
            "WS_RING_MESSAGES": str(history.ring),
            "WS_COMMAND_RATE": "100000",
            "WS_REPLAY_RATE": "100000",
        }
        self._settings = Settings.from_environ(environ)
        self._greenlets: list[gevent.Greenlet] = []

    # -- the stream ------------------------------------------------------------------------------------

    def _create(self) -> None:
        config = dict(self._history.config)
        other, source, mirror = (config.pop(name, False) for name in ("other", "source", "mirror"))
        ours = [self._prefix + ">"]
        origin = {"name": self._origin, "storage": config["storage"]}
        if mirror:
            self._api(f"STREAM.CREATE.{self._origin}", {**origin, "subjects": ours})
            config |= {"mirror": {"name": self._origin}, "mirror_direct": config["allow_direct"]}
        else:
            config["subjects"] = [*ours, self._other + ">"] if other else ours
        if source:
            self._api(f"STREAM.CREATE.{self._origin}", {**origin, "subjects": [self._other + ">"]})
            config["sources"] = [{"name": self._origin}]
        self._config = {"name": self._stream, **config}
        self._api(f"STREAM.CREATE.{self._stream}", self._config)

    def _api(self, subject: str, request: Any, *, ok: bool = True) -> dict[str, Any]:
        found = self._admin.wait(self._admin.api(subject, request))
        assert not ok or "error" not in found, (subject, request, found["error"])
        return found

    def publish(self, channels: list[str], kind: str) -> None:
        """On these channels, all at once."""
        headers = {"ttl": {"Nats-TTL": "1s"}, "rollup": {"Nats-Rollup": "sub"}}.get(kind, {})

        async def work() -> list[int]:
            ones = [
                self._admin.publish(self._prefix + channel, f"{self._stream}-{next(self._keys)}", headers)
                for channel in channels
            ]
            return await asyncio.gather(*ones)

        for seq, channel in zip(self._admin.wait(work()), channels, strict=True):
            if seq:
                self.truth[seq] = channel

    def foreign(self, count: int) -> None:
        """Messages of others, if any are taken."""
        if "sources" not in self._config and self._other + ">" not in self._config["subjects"]:
            return
        for _ in range(count):
            key = f"{self._stream}-{next(self._keys)}"
            self._admin.wait(self._admin.publish(self._other + "token.A", key, {}))

    def delete(self, count: int, newest: int) -> None:
        """Some of the newest."""
        last = max(self.truth, default=0)
        for seq in self._rng.sample(range(max(1, last - newest + 1), last + 1), min(count, newest, last)):
            self._api(f"STREAM.MSG.DELETE.{self._stream}", {"seq": seq}, ok=False)

    def purge(self, channel: str, keep: int) -> None:
        """All, or of one channel."""
        request: dict[str, Any] = {"filter": self._prefix + channel} if channel else {}
        self._api(f"STREAM.PURGE.{self._stream}", request | ({"keep": keep} if keep else {}), ok=False)

    def update(self, what: str) -> None:
        """Other settings, if NATS takes them."""
        ours = [self._prefix + ">"]
        wanted: dict[str, dict[str, Any]] = {
            "other": {"subjects": [*ours, self._other + ">"]},
            "own": {"subjects": ours},
            "limit": {"max_msgs_per_subject": 1},
            "fewer": {"max_msgs": 3},
            "age": {"max_age": 500_000_000, "duplicate_window": 500_000_000},
            "new": {"discard": "new", "max_msgs": 10},
            "rollup": {"allow_rollup_hdrs": True},
            "direct": {"allow_direct": not self._config["allow_direct"]},
        }
        if what in ("other", "own") and ("subjects" not in self._config or "sources" in self._config):
            return
        config = self._config | wanted[what]
        if "error" not in self._api(f"STREAM.UPDATE.{self._stream}", config, ok=False):
            self._config = config

    # -- the worker ------------------------------------------------------------------------------------

    def _start(self) -> None:
        settings, stats = self._settings, WorkerStats()
        self._strategy: Any = strategies.create("sync-dict")
        ring = Ring(settings.ring_messages, settings.ring_bytes)
        self.hub = Hub(self._strategy, stats, 20_000, 0.0, FORMATS.default, self._welcome, ring)
        self.feed = NatsFeed(settings, [self._url], stats, self.hub.receive, lambda: self.hub.backlog)
        recovery = Recovery(settings, self._strategy, self.hub, self.feed, stats)
        limits = ConnectionLimits.of(settings)
        self._commands: Commands[Connection] = Commands(
            settings, limits, self._strategy, stats, lambda known, _: known, recovery, mock.Mock()
        )
        self._greenlets = [gevent.spawn(self.feed.run), gevent.spawn(self.hub.run)]

    def _welcome(self, conn: Connection) -> Welcome:
        return welcome(conn.id, self.hub.epoch)

    def restart(self) -> None:
        """Another worker in its place; the clients come back to it."""
        if not self._knows():
            return
        for number in list(self._clients):
            self.leave(number)
        self._stop()
        self._start()

    def _stop(self) -> None:
        while not all(greenlet.dead for greenlet in self._greenlets):  # asyncio may swallow the first attempt
            gevent.killall(self._greenlets, block=False)
            gevent.joinall(self._greenlets, timeout=3)

    def _knows(self) -> bool:
        """Wait until the feed has looked at what it has passed over; False: NATS is away.

        What may be lost of that is told to those who are there, within a second, and to nobody later.
        """
        while self.feed.intake.passed_over or self.hub.backlog:
            if self._is_away:
                return False
            gevent.sleep(0.005)
        return True

    @property
    def _is_away(self) -> bool:
        return self.feed._servers._given[0].url == NOWHERE

    def _cut(self) -> None:
        loop, session = self.feed._loop, self.feed._session
        if loop is not None and session is not None:
            loop.call_soon(session._end, OSError("cut by the test"))

    def lost(self) -> None:
        """The feed loses its connection, and comes back at once."""
        self._cut()

    def away(self) -> None:
        """The feed loses its connection, and does not find NATS until the next such step."""
        back = self._is_away
        self.feed._servers = Servers([self._url if back else NOWHERE])
        if not back:
            self._cut()

    # -- clients ---------------------------------------------------------------------------------------

    def connect(self, number: int) -> None:
        """A client comes, or comes back."""
        channels = tuple(channel for channel in WANTED[number] if self._settings.channels.carries(channel))
        if not channels:
            return
        client = self._clients.get(number)
        if client is None:
            last = max(self.truth, default=0)
            while self._history.config.get("mirror") and self._last_seq() < last:
                gevent.sleep(0.02)
            client = Client(f"client {number}", channels, last)
            self._clients[number] = client
        if client.conn is None:
            conn = FakeConnection(client.name)
            self._strategy.add(conn.real)
            client.connected(conn)
            self._command(conn, "subscribe", channels=channels, since=client.last)

    def _last_seq(self) -> int:
        state = self._api(f"STREAM.INFO.{self._stream}", None)["state"]
        return int(state["last_seq"])

    def leave(self, number: int) -> None:
        """A client goes."""
        client = self._clients.get(number)
        if client is not None and client.conn is not None and self._knows():
            client.conn.state = State.CLOSED
            self._strategy.discard(client.conn.real)
            client.connected(None)

    def _command(self, conn: FakeConnection, kind: str, **data: Any) -> gevent.Greenlet:
        conn.commands = deque([json.dumps({"type": kind, "data": data}).encode()])
        return gevent.spawn(self._commands.run, conn.real)

    def replay(self, channel: str, first: int) -> None:
        """A part of the past is complete, or it is told what is missing."""
        if not self._settings.channels.carries(channel) or not self.feed.status.ready:
            return
        conn = FakeConnection("replay")
        self._strategy.add(conn.real)
        self._command(conn, "replay", channel=channel, **{"from": first}).join(15)
        self._strategy.discard(conn.real)
        messages = conn.messages
        if messages[-1]["type"] == "error":
            return  # NATS is away
        covered = {message["seq"] for message in messages if "seq" in message}
        for message in messages:
            if message["type"] == "gap":
                covered.update(range(message["from"], message["to"] + 1))
        due = {s for s, c in self.truth.items() if c == channel and first <= s <= messages[-1]["to"]}
        assert due <= covered, (
            f"replay of {channel}: {sorted(due - covered)} neither sent nor told: {messages}"
        )

    # -- all of it -------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """What is wrong in the end, one line each."""
        self._create()
        self._start()
        try:
            for what, *arguments in self._history.steps:
                if what == "wait":
                    gevent.sleep(*arguments)
                else:
                    getattr(self, what)(*arguments)
                gevent.sleep(0)
            return self._judge()
        finally:
            self._stop()
            for name in (self._stream, self._origin):
                self._api(f"STREAM.DELETE.{name}", None, ok=False)

    def _judge(self) -> list[str]:
        if self._is_away:
            self.away()
        for number in list(self._clients):
            self.connect(number)
        clients = list(self._clients.values())
        until = time.monotonic() + SETTLE_SECONDS
        while True:
            gevent.sleep(0.02)
            for client in clients:
                client.read()
            missing = [text for client in clients for text in client.missing(self.truth)]
            if not missing or time.monotonic() > until:
                break
        for client in clients:
            for name in client.channels:
                if len(set(client.heard[name])) != len(client.heard[name]):
                    client.faults.append(f"twice: {name} {client.heard[name]}")
        return missing + [f"{client.name}: {text}" for client in clients for text in client.faults]
