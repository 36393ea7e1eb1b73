"""Streams that have lost messages between others: every client is told what it can't get any more."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.api import StreamConfig, StreamSource

from tests.integration.conftest import Serve
from tests.integration.test_nats_outages import manage
from tests.integration.test_recovery import fed
from tests.ledger import STREAM, publish
from tests.nats import NatsServer
from tests.server import Server, wait_for
from tests.wire import Peer, command

RARE, BTC = "token.RARE", "token.BTC"
PAYLOAD = b'{"n":1}'


def make(nats: NatsServer, **config: Any) -> None:
    """A stream with these settings."""
    whole = {"name": STREAM, "subjects": ["odin.>"], "allow_direct": True, **config}
    manage(nats.url, lambda js: js.add_stream(StreamConfig(**whole)))


def send(nats: NatsServer, *channels: str) -> None:
    """A message on each channel."""
    publish(nats.url, [(channel, PAYLOAD) for channel in channels])


def told(peer: Peer, upto: int) -> list[tuple[str, int, int]]:
    """What a client gets, up to a sequence: ("", seq, prev) of messages, (reason, from, to) of gaps."""
    found: list[tuple[str, int, int]] = []
    last = 0
    while last < upto:
        message = peer.next().json
        if message["type"] == "gap":
            last = message["to"]
            found.append((message["reason"], message["from"], last))
        elif "seq" in message:
            last = message["seq"]
            found.append(("", last, message["prev"]))
    return found


def grown_to(nats: NatsServer, last: int) -> None:
    """Wait until the stream has a sequence."""
    wait_for(lambda: manage(nats.url, lambda js: js.stream_info(STREAM)).state.last_seq == last, 5, f"{last}")


def purge(nats: NatsServer, subject: str) -> None:
    """All of a subject."""
    manage(nats.url, lambda js: js.purge_stream(STREAM, subject=subject))


def delete(nats: NatsServer, *seqs: int) -> None:
    """Single messages."""

    async def work(js: JetStreamContext) -> None:
        for seq in seqs:
            await js.delete_msg(STREAM, seq)

    manage(nats.url, work)


HARM: dict[str, tuple[dict[str, Any], Callable[[NatsServer], None], list[tuple[str, int, int]]]] = {
    "a limit per subject": ({"max_msgs_per_subject": 1}, lambda _: None, [("expired", 4, 11), ("", 12, 11)]),
    "a purge of the subject": (
        {},
        lambda nats: purge(nats, "odin.token.BTC"),
        [("expired", 4, 12)],
    ),
    "deleted messages": (
        {},
        lambda nats: delete(nats, 5, 6, 9, 12),
        [
            ("", 4, 3),
            ("expired", 5, 6),
            ("", 7, 6),
            ("", 8, 7),
            ("expired", 9, 9),
            ("", 10, 9),
            ("", 11, 10),
            ("expired", 12, 12),
        ],
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_client_that_resumes(serve: Serve, nats: NatsServer, harm: str) -> None:
    """By a worker that has not seen it itself: what was published is delivered or named."""
    config, work, wanted = HARM[harm]
    make(nats, **config)
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    send(nats, RARE, BTC)
    fed(server, 2)
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=[BTC])
        send(nats, BTC)
        assert told(peer, 3) == [("", 3, 2)]
    server.stop()
    send(nats, *[BTC] * 9)
    work(nats)
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.send(command("replay", channel=BTC, **{"from": 4, "to": 12}))
        assert told(peer, 12) == wanted
        end = peer.next().json
        assert (end["type"], end["reason"], end["to"]) == ("replay_incomplete", "expired", 12)
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=[BTC], since={BTC: 3})
        assert told(peer, 12) == wanted
        send(nats, BTC)
        [(reason, seq, prev)] = told(peer, 13)
        assert (reason, seq) == ("", 13)
        assert prev <= 12


@pytest.mark.parametrize("subjects", ["", "token.BTC"])
def test_a_feed_that_was_away(serve: Serve, nats: NatsServer, subjects: str) -> None:
    """Whether it carries all or some: clients that stayed are told before the next message."""
    make(nats, max_msgs_per_subject=1)
    server = serve(NATS_URL=nats.url, WS_WORKERS="1", WS_SUBJECTS=subjects)
    send(nats, RARE, *[BTC] * 13)
    fed(server, 14)
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=[BTC])
        away(nats, server, lambda: send(nats, *[BTC] * 10))
        assert told(peer, 24) == [("expired", 15, 23), ("", 24, 23)]


def away(nats: NatsServer, server: Server, work: Callable[[], None]) -> None:
    """Do something while the worker is stopped and its connection to NATS closed."""
    [pid] = server.workers()
    os.kill(pid, signal.SIGSTOP)
    try:
        nats.restart()
        work()
    finally:
        os.kill(pid, signal.SIGCONT)


def test_what_is_gone_at_the_end(serve: Serve, nats: NatsServer) -> None:
    """It is told though nothing comes behind it."""
    make(nats)
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    send(nats, RARE, BTC)
    fed(server, 2)
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=[BTC])

        def work() -> None:
            send(nats, *[BTC] * 10)
            purge(nats, "odin.token.BTC")

        away(nats, server, work)
        assert told(peer, 12) == [("expired", 3, 12)]


@pytest.fixture
def part(serve: Serve, nats: NatsServer) -> Server:
    """One worker that carries a part of a stream, which has others' messages too."""
    make(nats, subjects=["odin.>", "other.>"])
    return serve(NATS_URL=nats.url, WS_WORKERS="1", WS_SUBJECTS=f"{BTC},{RARE}")


def test_a_purge_of_what_was_delivered(nats: NatsServer, part: Server) -> None:
    """Nobody is told that it may be missing; of others' messages it is not known whose they were."""
    with Peer(part.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=[BTC])
        for last in (4, 8):
            send(nats, BTC)
            publish(nats.url, [("token.X", PAYLOAD)] * 2, prefix="other.")
            send(nats, BTC)
            purge(nats, ">")
            assert told(peer, last)[-1][:2] == ("", last)
        time.sleep(2.5)  # until the stream was looked at
        send(nats, BTC)
        assert all(
            (reason, first, last) in {("uncertain", 2, 3), ("uncertain", 6, 7)}
            for reason, first, last in told(peer, 9)
            if reason
        )


def test_what_is_deleted_before_it_comes(nats: NatsServer, part: Server) -> None:
    """It may have been of others: all are told, also who comes back later to a channel that is quiet."""
    [pid] = part.workers()
    with Peer(part.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=[RARE])
        os.kill(pid, signal.SIGSTOP)
        try:
            publish(nats.url, [(BTC, b'{"n":"%s"}' % (b"x" * 1000))] * 8000)
            grown_to(nats, 8000)
            delete(nats, 7998, 8000)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert told(peer, 8000) == [("uncertain", seq, seq) for seq in (7998, 8000)]
    with Peer(part.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=[RARE], since={RARE: 7000})
        assert told(peer, 8000) == [("expired", 7998, 8000)]


@pytest.mark.parametrize("way", ["sources", "another subject"])
def test_messages_of_others_are_no_loss(serve: Serve, nats: NatsServer, way: str) -> None:
    """They take sequences, and nobody hears of a gap."""
    if way == "sources":
        manage(nats.url, lambda js: js.add_stream(StreamConfig(name="OTHER", subjects=["other.>"])))
        make(nats, sources=[StreamSource(name="OTHER")])
    else:
        make(nats)
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=[BTC, RARE])
        send(nats, BTC)
        assert told(peer, 1) == [("", 1, 0)]
        if way == "another subject":
            both = StreamConfig(name=STREAM, subjects=["odin.>", "other.>"], allow_direct=True)
            manage(nats.url, lambda js: js.update_stream(both))
        for count in range(3):
            publish(nats.url, [("token.X", PAYLOAD)] * 5, prefix="other.")
            last = 6 * count + 6
            grown_to(nats, last)
            send(nats, BTC)
            assert told(peer, last + 1) == [("", last + 1, last - 5)]
    assert server.metric("ws_feed_gaps_total") == 0


def test_a_mirror_that_stands_still(serve: Serve, nats: NatsServer) -> None:
    """It is full, then its origin is gone: the feed gets all it has, and `/health` says what is wrong."""
    manage(nats.url, lambda js: js.add_stream(StreamConfig(name="ORIGIN", subjects=["odin.>"])))
    mirror = StreamSource(name="ORIGIN")
    make(nats, subjects=None, mirror=mirror, discard="new", max_msgs=5, mirror_direct=True)
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    send(nats, *[BTC] * 9)

    def warned(words: str) -> bool:
        return any(words in warning for warning in server.json("/health")["warnings"])

    wait_for(lambda: warned("does not go on, and ORIGIN has more"), 30, "that it is full")
    manage(nats.url, lambda js: js.delete_stream("ORIGIN"))
    wait_for(lambda: warned("gets nothing of ORIGIN: stream not found"), 60, "that its origin is gone")


def test_headers_of_nats_in_a_message(serve: Serve, nats: NatsServer) -> None:
    """A publisher may use the names of the server's own: the message is delivered, and what follows it."""
    make(nats)
    odd = {
        "Status": "404",
        "Description": "No Messages",
        "Nats-Sequence": "77",
        "Nats-Subject": "odin.token.RARE",
        "Nats-Time-Stamp": "never",
        "Nats-Num-Pending": "0",
        "Nats-Stream": "ANOTHER",
        "Nats-Last-Consumer": "0",
        "Nats-Last-Stream": "900",
        "Nats-Consumer-Stalled": "odin.token.RARE",
    }

    async def odd_ones(js: JetStreamContext) -> None:
        for _ in range(3):
            await js.publish("odin.token.BTC", PAYLOAD, headers=dict(odd))

    manage(nats.url, odd_ones)
    server = serve(NATS_URL=nats.url, WS_WORKERS="1", WS_RING_MESSAGES="1")
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=[BTC, RARE], since={BTC: 1})
        assert told(peer, 3) == [("", 2, 1), ("", 3, 2)]
        manage(nats.url, odd_ones)
        assert told(peer, 6) == [("", 4, 3), ("", 5, 4), ("", 6, 5)]
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=[BTC], last=True)
        assert told(peer, 6)[0][:2] == ("", 6)
