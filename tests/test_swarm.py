"""The checkers of the integration tests, shown to find what they look for."""

from __future__ import annotations

import json
import socket

import pytest

from odinws.http.listener import _refusal
from odinws.swarm import frames
from odinws.swarm.engine import Phase
from tests import wire
from tests.ledger import Ledger
from tests.life import Life, State, Stretch
from tests.server import wait_for
from tests.swarm import Swarm

NOW = 1_000_000.0


def server_frame(payload: bytes, opcode: int = wire.TEXT) -> bytes:
    """A frame as the server sends it."""
    return wire.frame(opcode, payload, masked=False)


def message(**fields: object) -> bytes:
    """A message of the server that is no data."""
    return server_frame(json.dumps(fields).encode())


def data(seq: int, prev: int, channel: str = "token.BTC") -> bytes:
    """A data message of the server."""
    return server_frame(
        b'{"type":"a","channel":"%b","seq":%d,"prev":%d,"ts":%d,"data":{}}'
        % (channel.encode(), seq, prev, (NOW + seq) * 1000)
    )


ACK = message(type="subscription_ack", subscribed=["token.BTC"], count=1, rejected=[])
UNACK = message(type="unsubscription_ack", unsubscribed=["token.BTC"], count=0)


@pytest.fixture
def life() -> Life:
    """A connection behind its handshake that has asked for token.BTC."""
    life = Life(0)
    life.opened(NOW)
    life.read(message(type="welcome", client_id="c", epoch="e"), NOW)
    assert life.state is State.OPEN
    life.say("subscribe", ["token.BTC"], NOW)
    return life


def test_a_right_stream_has_no_problem_however_it_is_cut(life: Life) -> None:
    """Single bytes are read like whole frames."""
    for byte in data(5, 3) + ACK + data(7, 5) + data(9, 7):
        life.read(bytes((byte,)), NOW)
    [stretch] = life.stretches
    assert (stretch.first, stretch.last, stretch.count, stretch.acked_at) == (5, 9, 3, NOW)
    assert life.problems == []
    assert life.owed == 0


@pytest.mark.parametrize(
    ("stream", "problem"),
    [
        (data(5, 3) + data(5, 3), "twice or late"),
        (data(5, 3) + data(4, 3), "twice or late"),
        (data(5, 3) + data(9, 7), "follows a hole"),
        (data(5, 5), "follows a hole"),
        (data(5, 3, "token.ETH"), "without a subscription"),
        (server_frame(b"", wire.BINARY), "unexpected frame"),
    ],
)
def test_a_wrong_stream_is_found(life: Life, stream: bytes, problem: str) -> None:
    """Every kind of wrong message shows as one problem."""
    life.read(ACK + stream, NOW)
    assert len(life.problems) == 1, life.problems
    assert problem in life.problems[0]


def test_data_behind_the_end_of_a_subscription_is_found(life: Life) -> None:
    """Before the acknowledgement it may come, behind it not."""
    life.say("unsubscribe", ["token.BTC"], NOW + 1)
    life.read(ACK + data(5, 3) + UNACK, NOW + 2)
    assert life.problems == []
    assert life.stretches[0].asked_out_at == NOW + 1
    life.read(data(7, 5), NOW + 3)
    assert "without a subscription" in life.problems[0]


def test_a_hole_that_the_server_tells_of_is_no_problem(life: Life) -> None:
    """A gap message excuses exactly its hole."""
    gap = message(type="gap", channel="token.BTC", reason="overflow", **{"from": 6, "to": 8})
    life.read(ACK + data(5, 3) + gap + data(9, 8), NOW)
    assert life.problems == []
    life.read(data(20, 15), NOW)
    assert "follows a hole" in life.problems[0]


def test_a_new_epoch_begins_a_new_stretch(life: Life) -> None:
    """The numbers may start again behind a second welcome."""
    life.read(ACK + data(5, 3) + message(type="welcome", client_id="c", epoch="f") + data(1, 0), NOW)
    assert life.problems == []
    assert [(stretch.epoch, stretch.last) for stretch in life.stretches] == [("e", 5), ("f", 1)]


def stretch(first: int, last: int, count: int, acked: float, asked_out: float = 0.0) -> Stretch:
    """What a connection may have got; times are seconds after `NOW`."""
    made = Stretch("token.BTC", "e")
    made.first, made.last, made.count = first, last, count
    made.acked_at = NOW + acked
    made.asked_out_at = NOW + asked_out if asked_out else 0.0
    return made


@pytest.mark.parametrize(
    ("got", "fault"),
    [
        (stretch(3, 10, 8, acked=2.5), ""),
        (stretch(2, 10, 9, acked=2.5), ""),  # one before the acknowledgement
        (stretch(4, 10, 7, acked=2.5), "lost before the first"),
        (stretch(3, 9, 7, acked=2.5), "lost behind the last"),
        (stretch(3, 10, 7, acked=2.5), "7 came of 8"),
        (stretch(0, 0, 0, acked=2.5), "none came of 8"),
        (stretch(0, 0, 0, acked=10.5), ""),  # all was before its time
        (stretch(3, 6, 4, acked=2.5, asked_out=8.5), ""),  # the last two seconds are not asked for
        (stretch(3, 5, 3, acked=2.5, asked_out=8.5), "lost behind the last"),
    ],
)
def test_the_ledger_finds_what_is_missing(got: Stretch, fault: str) -> None:
    """Messages 1 to 10 were taken at the seconds 1 to 10."""
    ledger = Ledger()
    for seq in range(1, 11):
        ledger.add("token.BTC", seq, int((NOW + seq) * 1000))
    faults = ledger.faults([got])
    assert len(faults) == bool(fault)
    assert fault in "".join(faults)


def test_who_is_refused_in_an_overload_comes_again() -> None:
    """With all that it has asked for; it is one connection to the test, which was never refused."""
    command = wire.command("subscribe", channels=["token.BTC"])
    accepted = b"HTTP/1.1 101 Switching Protocols\r\n" + frames._ACCEPT + b"\r\n\r\n"
    answers = (_refusal(1), accepted + message(type="welcome", client_id="c", epoch="e") + ACK)
    with socket.create_server(("127.0.0.1", 0)) as server, Swarm(server.getsockname()[1]) as swarm:
        swarm.connect(0)
        swarm.subscribe(0, ["token.BTC"])
        for answer in answers:
            client, _ = server.accept()
            with client, client.makefile("rb") as stream:
                while stream.readline() != b"\r\n":
                    pass
                assert len(stream.read(len(command))) == len(command)
                client.sendall(answer)
                if answer is answers[-1]:
                    swarm.settle()
                    [life] = swarm.open()
        assert swarm.lives == [life]
        assert (life.refused, life.owed, life.problems) == (0, 0, [])


def test_who_is_to_come_again_may_leave() -> None:
    """Without waiting for it."""
    with socket.create_server(("127.0.0.1", 0)) as server, Swarm(server.getsockname()[1]) as swarm:
        swarm.connect(0)
        client, _ = server.accept()
        with client, client.makefile("rb") as stream:
            while stream.readline() != b"\r\n":
                pass
            client.sendall(_refusal(10))
        wait_for(lambda: swarm.now[0].phase is Phase.NONE, 60, "the refusal")
        swarm.disconnect(0)
        swarm.settle()
        assert swarm.now[0].state is State.ENDED
