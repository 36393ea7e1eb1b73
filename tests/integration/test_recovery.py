"""Clients that were away: what they get when they come back, joined over all their connections."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable

import pytest
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

import strategies
from tests.integration.conftest import Serve
from tests.integration.test_nats_outages import manage
from tests.ledger import STREAM, Ledger, Publisher, publish, read
from tests.nats import NatsServer
from tests.server import PATIENCE_SECONDS, Server, wait_for
from tests.wire import CLOSE, END, TEXT, Peer, command

CHANNELS = [f"token.T{n}" for n in range(10)]


class Reader:
    """One client through all its connections: it resumes after what it has, and keeps everything it got.

    Attributes:
        got: sequences by channel, in the order they came.
        gaps: (channel, from, to, reason), in order.
        epoch: of the last welcome.
    """

    def __init__(self, channels: list[str]) -> None:
        self.channels = channels
        self.got: dict[str, list[int]] = defaultdict(list)
        self.gaps: list[tuple[str, int, int, str]] = []
        self.epoch = ""
        self.connects = 0
        self.faults: list[str] = []
        self._last: dict[str, int] = {}

    def visit(self, port: int, until: Callable[[], bool]) -> None:
        """Connect, resume, and read until `until`, or the server ends it."""
        with Peer(port) as peer:
            self.epoch = peer.upgrade()["epoch"]
            self.connects += 1
            since = {channel: self._last[channel] for channel in self.channels if channel in self._last}
            ack = peer.ask("subscribe", channels=self.channels, since=since)
            assert ack["count"] == len(self.channels), ack
            while not until():
                try:
                    frame = peer.next(0.05)
                except TimeoutError:
                    continue
                if frame is END or frame.opcode == CLOSE:
                    return
                if frame.opcode == TEXT:
                    self._take(frame.json)

    def _take(self, message: dict[str, object]) -> None:
        channel = str(message.get("channel", ""))
        if message["type"] == "gap":
            first, last = int(str(message["from"])), int(str(message["to"]))
            self.gaps.append((channel, first, last, str(message["reason"])))
            self._last[channel] = max(self._last.get(channel, 0), last)
        elif "seq" in message:
            seq, prev = int(str(message["seq"])), int(str(message["prev"]))
            before = self._last.get(channel)
            if before is not None and not prev <= before < seq:
                self.faults.append(f"{channel}: {seq} behind {prev} came after {before}")
            self.got[channel].append(seq)
            self._last[channel] = seq

    def missing(self, truth: Ledger, upto: int) -> list[str]:
        """The differences from all that NATS stored up to a sequence, gaps included."""
        found = list(self.faults)
        for channel in self.channels:
            got = self.got[channel]
            if not got:
                found.append(f"{channel}: nothing")
                continue
            told = [(first, last) for name, first, last, _ in self.gaps if name == channel]
            due = [
                seq
                for seq in truth.seqs[channel]
                if got[0] <= seq <= upto and not any(first <= seq <= last for first, last in told)
            ]
            have = [seq for seq in got if seq <= upto]
            if have != due:
                wrong = sorted(set(due) ^ set(have))[:5]
                found.append(f"{channel}: {len(have)} came of {len(due)}, first wrong {wrong}")
        return found


class Over:
    """Whether some seconds have passed, or all is to stop."""

    def __init__(self, seconds: float, stopping: threading.Event) -> None:
        self._until = time.monotonic() + seconds
        self._stopping = stopping

    def __call__(self) -> bool:
        return time.monotonic() > self._until or self._stopping.is_set()


def fed(server: Server, seq: int) -> None:
    """Wait until all workers have received up to a sequence."""

    def heard() -> bool:
        return all(
            worker["details"]["feed"]["last_seq"] == seq for worker in server.json("/stats")["workers"]
        )

    wait_for(heard, 10, f"the feed at {seq}")


def settled(reader: Reader, server: Server, nats: NatsServer) -> list[str]:
    """What is wrong after a last visit in which everything could come."""
    truth = read(nats.url)
    upto = max(seqs[-1] for seqs in truth.seqs.values())

    def all_came() -> bool:
        return all(
            reader.got[channel] and reader.got[channel][-1] >= truth.seqs[channel][-1]
            for channel in reader.channels
        )

    until = time.monotonic() + PATIENCE_SECONDS
    reader.visit(server.port, lambda: all_came() or time.monotonic() > until)
    return reader.missing(truth, upto)


@pytest.mark.parametrize("arm", [name for name in strategies.NAMES if name != "hybrid"])  # a subset of others
def test_resuming_clients_miss_nothing(serve: Serve, nats: NatsServer, arm: str) -> None:
    """They come and go at random, some for longer than the ring reaches, while a worker dies: seed 5."""
    server = serve(NATS_URL=nats.url, WS_SHARD_STRATEGY=arm, WS_RING_MESSAGES="200")
    rng = random.Random(5)
    readers = [Reader(rng.sample(CHANNELS, 5)) for _ in range(12)]
    stopping = threading.Event()

    def live(reader: Reader, seed: int) -> None:
        own = random.Random(seed)
        while not stopping.is_set():
            end = Over(own.uniform(0.05, 0.8), stopping)
            try:
                reader.visit(server.port, end)
            except (OSError, AssertionError):  # the worker died amid the handshake
                time.sleep(0.05)
            time.sleep(own.choice((0.0, 0.05, 0.3, 1.5)))

    threads = [threading.Thread(target=live, args=(reader, n)) for n, reader in enumerate(readers)]
    with Publisher(nats.url, CHANNELS, 400):
        for thread in threads:
            thread.start()
        time.sleep(3)
        os.kill(server.workers()[0], signal.SIGKILL)
        time.sleep(3)
        stopping.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    assert [settled(reader, server, nats) for reader in readers] == [[]] * len(readers)
    assert all(reader.gaps == [] for reader in readers)
    assert sum(reader.connects for reader in readers) > 30
    resumed = server.json("/stats")["recovery"]["resumed"]
    assert resumed["ring"] > 0
    assert resumed["stream"] > 0
    assert resumed["expired"] == resumed["epoch"] == 0


def test_over_a_restart_of_nats(serve: Serve, nats: NatsServer) -> None:
    """What NATS takes while the server is away from it is resumed like all else."""
    server = serve(NATS_URL=nats.url)
    reader = Reader(CHANNELS)
    with Publisher(nats.url, CHANNELS, 300):
        until = time.monotonic() + 1
        reader.visit(server.port, lambda: time.monotonic() > until)
        nats.restart()
        time.sleep(1)
        wait_for(lambda: server.get("/readyz")[0] == 200, 15, "readiness")
        later = time.monotonic() + 1
        reader.visit(server.port, lambda: time.monotonic() > later)
    assert settled(reader, server, nats) == []
    assert reader.gaps == []


def test_a_new_worker_while_nats_is_away(serve: Serve, nats: NatsServer) -> None:
    """A client that resumes there waits for NATS, then misses nothing, and sees no new epoch."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    reader = Reader(CHANNELS)
    with Publisher(nats.url, CHANNELS, 200):
        reader.visit(server.port, lambda: all(len(reader.got[c]) > 3 for c in CHANNELS))
    epoch = reader.epoch
    nats.kill()
    [pid] = server.workers()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: server.workers() not in ([pid], []), 15, "another worker")
    with Peer(server.port) as peer:
        assert peer.upgrade()["epoch"] == "none"
        peer.send(command("subscribe", channels=CHANNELS, since=reader._last, epoch=epoch))
        assert peer.next().json["type"] == "subscription_ack"
        nats.start()
        publish(nats.url, [(channel, b"{}") for channel in CHANNELS])
        assert (welcome := peer.next().json)["type"] == "welcome"
        assert welcome["epoch"] == epoch
        while any(reader.got[c][-1] < read(nats.url).seqs[c][-1] for c in CHANNELS):
            reader._take(peer.next().json)
    assert settled(reader, server, nats) == []
    assert reader.gaps == []


def test_what_the_stream_has_forgotten_is_named(serve: Serve, nats: NatsServer) -> None:
    """A stream too small to bridge: gap and messages together are all that was published."""

    async def small(js: JetStreamContext) -> None:
        await js.add_stream(
            StreamConfig(name=STREAM, subjects=["odin.>"], max_msgs=100, allow_direct=True, max_age=3600.0)
        )

    manage(nats.url, small)
    server = serve(NATS_URL=nats.url, WS_RING_MESSAGES="50")
    reader = Reader(CHANNELS[:2])
    publish(nats.url, [(channel, b"{}") for channel in CHANNELS * 3])
    fed(server, 30)
    reader._last = dict.fromkeys(reader.channels, 0)
    reader.visit(server.port, lambda: all(len(reader.got[c]) == 3 for c in reader.channels))
    assert reader.gaps == []
    publish(nats.url, [(channel, b"{}") for channel in CHANNELS * 50])
    fed(server, 530)
    until = time.monotonic() + PATIENCE_SECONDS
    reader.visit(
        server.port,
        lambda: (
            all(reader.got[c] and reader.got[c][-1] > 520 for c in reader.channels)
            or time.monotonic() > until
        ),
    )
    assert reader.faults == []
    for channel, own in zip(reader.channels, (1, 2), strict=True):
        [(_, first, last, reason)] = [gap for gap in reader.gaps if gap[0] == channel]
        assert reason == "expired"
        assert (first, last) == (20 + own + 1, 430)
        assert reader.got[channel] == [own, 10 + own, 20 + own, *range(430 + own, 531, 10)]


def test_partial_interest(serve: Serve, nats: NatsServer) -> None:
    """A server that carries some channels gets nothing else from NATS, says so, and resumes the same way."""
    server = serve(NATS_URL=nats.url, WS_SUBJECTS="token.T1,odin.token.T2,user.*", WS_WORKERS="1")
    publish(nats.url, [(channel, b"{}") for channel in CHANNELS * 2])
    fed(server, 13)  # T2, the second time
    with Peer(server.port) as peer:
        peer.upgrade()
        ack = peer.ask("subscribe", channels=["token.T1", "token.T3", "token.*"], since={"token.T1": 2})
        assert ack["subscribed"] == ["token.T1"]
        assert [(r["channel"], r["code"]) for r in ack["rejected"]] == [
            ("token.T3", "NOT_CARRIED"),
            ("token.*", "NOT_CARRIED"),
        ]
        assert peer.next().json["seq"] == 12
        assert peer.ask("replay", channel="token.T3", since=0)["code"] == "NOT_CARRIED"
        publish(nats.url, [("user.new", b"{}"), *((channel, b"{}") for channel in CHANNELS)])
        assert (message := peer.next().json)["seq"] == 23
        assert message["prev"] == 12
        feed = server.json("/stats")["feed"]
        assert (feed["messages"], feed["ignored"], feed["gaps"]) == (7, 0, 0)
        nats.restart()
        publish(nats.url, [(channel, b"{}") for channel in CHANNELS])
        assert peer.next().json["prev"] == 23


def test_the_newest_value_at_once(serve: Serve, nats: NatsServer) -> None:
    """`last` gives it from the ring or from the stream; a channel that never had one gives nothing."""
    server = serve(NATS_URL=nats.url, WS_RING_MESSAGES="5")
    publish(nats.url, [(channel, b'{"n":1}') for channel in CHANNELS])
    fed(server, len(CHANNELS))
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=[*CHANNELS, "token.never"], last=True)
        assert [peer.next().json["seq"] for _ in CHANNELS] == list(range(1, 11))
        publish(nats.url, [("token.never", b"{}")])
        assert peer.next().json["seq"] == 11


def test_large_messages(serve: Serve, nats: NatsServer) -> None:
    """Whoever reads what it missed is not taken to be slow, whether it comes from stream or ring."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    payload = b'"%s"' % (b"x" * 500_000)
    publish(nats.url, [(channel, payload) for channel in CHANNELS * 4])
    fed(server, 4 * len(CHANNELS))
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=["token.*"], since={"token.*": 0})
        assert [peer.next(20).json["seq"] for _ in range(40)] == list(range(1, 41))
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=CHANNELS, last=True)
        assert sorted(peer.next(20).json["seq"] for _ in CHANNELS) == list(range(31, 41))


def test_replay(serve: Serve, nats: NatsServer) -> None:
    """A part of the past, in order, with its end said; nothing is subscribed."""
    server = serve(NATS_URL=nats.url, WS_RING_MESSAGES="100", WS_REPLAY_MESSAGES="300", WS_REPLAY_RATE="1000")
    publish(nats.url, [(channel, b"{}") for channel in CHANNELS * 500])
    fed(server, 5000)

    def replay(peer: Peer, **data: int) -> tuple[list[int], dict[str, object]]:
        peer.send(command("replay", channel="token.T3", **data))
        seqs: list[int] = []
        while True:
            message = peer.next().json
            if "seq" not in message:
                return seqs, message
            seqs.append(message["seq"])

    with Peer(server.port) as peer:
        peer.upgrade()
        seqs, end = replay(peer, **{"from": 1000, "to": 2000})
        assert seqs == list(range(1004, 2001, 10))
        assert end == {
            "type": "replay_complete",
            "channel": "token.T3",
            "from": 1000,
            "to": 2000,
            "count": 100,
        }
        seqs, end = replay(peer, since=4950)
        assert seqs == list(range(4954, 5001, 10))
        assert (end["type"], end["count"]) == ("replay_complete", 5)
        seqs, end = replay(peer, since=0)
        assert seqs == list(range(4, 3000, 10))
        assert (end["type"], end["reason"], end["count"]) == ("replay_incomplete", "too_many", 300)
        seqs, end = replay(peer, since=int(str(end["to"])))
        assert seqs == list(range(3004, 5001, 10))
        seqs, end = replay(peer, since=6000)  # beyond its end
        assert (seqs, end["type"], end["count"]) == ([], "replay_complete", 0)
        publish(nats.url, [("token.T3", b"{}")])
        assert peer.ask("heartbeat")["type"] == "pong"


def test_numbers_of_another_life(serve: Serve, nats: NatsServer) -> None:
    """Another epoch, or a sequence that the stream has not reached: a gap says so, and the newest follows."""
    server = serve(NATS_URL=nats.url)
    publish(nats.url, [(channel, b"{}") for channel in CHANNELS])
    with Publisher(nats.url, CHANNELS, 50):
        for data in ({"since": {"token.T1": 3}, "epoch": "another"}, {"since": {"token.T1": 10**9}}):
            with Peer(server.port) as peer:
                peer.upgrade()
                assert peer.ask("subscribe", channels=["token.T1"], **data)["count"] == 1
                gap = peer.next().json
                assert (gap["type"], gap["from"], gap["reason"]) == ("gap", 1, "epoch")
                newest = peer.next().json
                assert newest["seq"] > gap["to"]
                assert peer.next().json["prev"] == newest["seq"]


def test_wildcards(serve: Serve, nats: NatsServer) -> None:
    """All of a kind in the order of the stream, live and resumed, without a gap or a message twice."""
    server = serve(NATS_URL=nats.url, WS_RING_MESSAGES="100")
    with Publisher(nats.url, [*CHANNELS, "global"], 550), Peer(server.port) as peer:
        peer.upgrade()
        assert peer.ask("subscribe", channels=["token.*", "token.T1"])["count"] == 2
        live = [peer.next().json for _ in range(100)]
        assert {message["channel"] for message in live} == set(CHANNELS)
        time.sleep(1)
        with Peer(server.port) as other:
            other.upgrade()
            last = live[-1]["seq"]
            other.ask("subscribe", channels=["token.*"], since={"token.*": last})
            seqs = [message["seq"] for message in live]
            seqs += [other.next().json["seq"] for _ in range(900)]
    truth = read(nats.url)
    tokens = sorted(seq for channel in CHANNELS for seq in truth.seqs[channel])
    assert seqs == [seq for seq in tokens if seqs[0] <= seq <= seqs[-1]]
