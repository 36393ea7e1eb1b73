"""The measuring client against a server that loses, doubles and reorders: the checker is checked."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.client.driver import Clients, Wire, has_tls
from bench.feed import Composer
from bench.scenarios import Scenario
from odinws.harness.process import ProcessError
from tests.bench.scripted_server import SECONDS, Peer, ScriptedServer, text_frame
from tests.certificate import self_signed
from tests.programs import miss
from tests.server import wait_for

ACK = '{"type":"subscription_ack"}'
PING, CLOSE = 9, 8


def messages(channels: int, count: int) -> list[bytes]:
    """The texts that the feed would send: `count` of them, walking the channels."""
    scenario = Scenario("test", "", channels=channels, subscribed=channels)
    return [message.text for message in Composer(scenario).burst(count, sent_ns=1, wall_ms=1)]


def load_of(connections: int = 1, channels: int = 1, subscribed: int = 1, **other: Any) -> Scenario:
    """What clients are to do."""
    return Scenario("test", "", connections=connections, channels=channels, subscribed=subscribed, **other)


@contextlib.contextmanager
def talk_to(
    script: Callable[[Peer], None],
    scenario: Scenario,
    directory: Path,
    wire: Wire | None = None,
    seed: int = 0,
    *,
    upgrade: bool = True,
) -> Iterator[Clients]:
    """Clients of a server that follows the script."""
    with (
        ScriptedServer(script, upgrade) as server,
        Clients(server.port, [wire or Wire()], scenario, seed, directory) as clients,
    ):
        yield clients


class Conversation:
    """A server that acknowledges, waits for a word, sends the given frames, and waits again."""

    def __init__(self, frames: Sequence[bytes], ack: str = ACK) -> None:
        self.commands: list[bytes] = []
        self.go = threading.Event()
        self.answers: list[tuple[int, bytes]] = []
        self.answered = threading.Event()
        self._frames = frames
        self._ack = ack

    def __call__(self, peer: Peer) -> None:
        """Talk to one client."""
        self.commands.append(peer.read()[1])
        if self._ack:
            peer.text(self._ack)
        assert self.go.wait(SECONDS)
        for frame in self._frames:
            peer.send(frame)
        while True:
            self.answers.append(peer.read())
            self.answered.set()


def observe(
    directory: Path,
    talk: Conversation,
    published: int,
    scenario: Scenario | None = None,
    wire: Wire | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Run a conversation to its end; returns the client's verdict."""
    scenario = scenario or load_of()
    with talk_to(talk, scenario, directory, wire, seed) as clients:
        assert clients.wait_ready(SECONDS)["ready"] == scenario.connections
        clients.begin()
        talk.go.set()
        assert clients.wait_drained(still_seconds=0.3, timeout_seconds=SECONDS)
        window = clients.end()
        clients.quiet()
        return {**clients.finish(published), "window": window}


def faults(final: dict[str, Any]) -> dict[str, int]:
    """What the checker found, zeros left out."""
    found = {**final["tally"], "tail": final["tail_missing"]}
    return {kind: count for kind, count in found.items() if count}


def frames_of(order: Sequence[int], texts: Sequence[bytes]) -> list[bytes]:
    """Frames of the texts with the given numbers, counted from 1."""
    return [text_frame(texts[number - 1]) for number in order]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        pytest.param([1, 2, 3, 4, 5], {}, id="nothing wrong"),
        pytest.param([1, 2, 5], {"gaps": 1, "missing": 2}, id="lost in the middle"),
        pytest.param([3, 4, 5], {"gaps": 1, "missing": 2}, id="lost at the beginning"),
        pytest.param([1, 2, 3], {"tail": 2}, id="lost at the end"),
        pytest.param([], {"tail": 5}, id="all lost"),
        pytest.param([1, 2, 2, 3, 4, 5], {"duplicates": 1}, id="doubled"),
        pytest.param([1, 2, 3, 4, 5, 1], {"duplicates": 1}, id="doubled late"),
        pytest.param([1, 3, 2, 4, 5], {"gaps": 1, "disorder": 1}, id="out of order"),
        pytest.param([1, 3, 3, 5], {"gaps": 2, "missing": 2, "duplicates": 1}, id="lost and doubled"),
    ],
)
def test_faults_are_found(tmp_path: Path, order: list[int], expected: dict[str, int]) -> None:
    """Each kind of fault is counted as what it is, and nothing else is."""
    talk = Conversation(frames_of(order, messages(1, 5)))
    final = observe(tmp_path, talk, published=5)
    assert faults(final) == expected
    assert final["delivered"] == len(order)


def test_channels_are_judged_apart(tmp_path: Path) -> None:
    """A message missing on one channel is not hidden by those of another."""
    texts = messages(3, 9)
    talk = Conversation(frames_of([1, 2, 3, 4, 6, 7, 8, 9], texts))
    final = observe(tmp_path, talk, 9, load_of(1, 3, 3))
    assert faults(final) == {"gaps": 1, "missing": 1}


def test_what_nobody_asked_for_is_stray(tmp_path: Path) -> None:
    """Messages of a channel that the client did not subscribe to are counted."""
    texts = messages(10, 10)
    talk = Conversation([text_frame(text) for text in texts])
    final = observe(tmp_path, talk, 10, load_of(1, 10, 4))
    assert faults(final) == {"stray": 6}


def test_frames_cut_anywhere_are_read(tmp_path: Path) -> None:
    """Bytes may come one by one, and several frames at once."""
    whole = b"".join(frames_of([1, 2, 3, 4], messages(1, 4)))
    pieces = [whole[at : at + 7] for at in range(0, len(whole), 7)]
    final = observe(tmp_path, Conversation(pieces), 4)
    assert faults(final) == {}
    assert final["delivered"] == 4


def test_several_messages_in_one_frame(tmp_path: Path) -> None:
    """A server that packs messages into one frame, as nats-server does, has each of them counted."""
    texts = messages(1, 3)
    final = observe(tmp_path, Conversation([text_frame(b"\r\n".join(texts))]), 3)
    assert faults(final) == {}
    assert (final["delivered"], final["window"]["frames"]) == (3, 1)


def test_the_window_counts_bytes_and_frames(tmp_path: Path) -> None:
    """Bytes are those of the wire, headers included; latency is measured from the mark."""
    frames = frames_of([1, 2], messages(1, 2))
    window = observe(tmp_path, Conversation(frames), 2)["window"]
    assert window["bytes"] == sum(len(frame) for frame in frames)
    assert window["latency"]["count"] == 2
    assert window["latency"]["longest_ms"] > 1.0, "the mark says that it was sent at the boot of the machine"
    assert 0 <= window["busiest_core_share"] < 1


def test_the_subscribe_command(tmp_path: Path) -> None:
    """The command names the chosen channels, each once, in odinws's form."""
    names = [f"token.T{index}" for index in range(6)]
    talk = Conversation([])
    observe(tmp_path, talk, 0, load_of(20, 6, 4), seed=3)
    asked = [json.loads(command)["data"]["channels"] for command in talk.commands]
    assert all(len(set(channels)) == 4 and set(channels) <= set(names) for channels in asked)
    assert len({tuple(sorted(channels)) for channels in asked}) > 1


def test_the_same_seed_chooses_the_same(tmp_path: Path) -> None:
    """Subscriptions are the seed's and no accident."""
    chosen = []
    for seed in (3, 3, 4):
        talk = Conversation([])
        observe(tmp_path, talk, 0, load_of(20, 6, 2), seed=seed)
        chosen.append(sorted(talk.commands))
    assert chosen[0] == chosen[1] != chosen[2]


def test_pings_are_answered(tmp_path: Path) -> None:
    """A ping brings a pong with the same bytes."""
    talk = Conversation([text_frame(b"abc", PING)])
    final = observe(tmp_path, talk, 0)
    assert talk.answered.wait(SECONDS)
    assert talk.answers == [(10, b"abc")]
    assert final["pings"] == 1


def test_pings_of_the_application_are_answered(tmp_path: Path) -> None:
    """A protocol that pings in text, as Engine.IO does, is answered in text."""
    talk = Conversation([text_frame("2")])
    observe(tmp_path, talk, 0, wire=Wire(ask="2", reply="3"))
    assert talk.answered.wait(SECONDS)
    assert talk.answers == [(1, b"3")]


def test_hello_and_items(tmp_path: Path) -> None:
    """The hello is a frame of its own; items take name and index; binary means binary frames."""
    seen: list[tuple[int, bytes]] = []
    wire = Wire(
        hello="CONNECT\r\n", prefix="", item="SUB %c %i", separator="\r\n", suffix="\r\nPING", binary=True
    )

    def script(peer: Peer) -> None:
        seen.extend((peer.read(), peer.read()))
        peer.text(ACK)
        peer.read()

    scenario = load_of(1, 2, 2)
    with talk_to(script, scenario, tmp_path, wire) as clients:
        clients.wait_ready(SECONDS)
    assert seen[0] == (2, b"CONNECT\r\n")
    assert seen[1][0] == 2
    assert sorted(re.findall(rb"SUB (\S+) (\d)\r\n", seen[1][1])) == [
        (b"token.T0", b"0"),
        (b"token.T1", b"1"),
    ]
    assert seen[1][1].endswith(b"\r\nPING")


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (text_frame(struct.pack("!H", 4008), CLOSE), "4008"),
        (text_frame(b"", CLOSE), "1005"),
        (b"\xf1\x00", "1002"),
    ],
)
def test_closes_are_counted_by_code(tmp_path: Path, last: bytes, code: str) -> None:
    """The server's code is kept; a frame that breaks the protocol ends the connection with 1002."""
    final = observe(tmp_path, Conversation([last]), 0)
    assert final["closes"] == {code: 1}
    assert (final["ready"], final["closed"]) == (0, 1)


def test_an_end_without_a_close_frame_is_1006(tmp_path: Path) -> None:
    """A socket that just ends has no code of its own."""

    def script(peer: Peer) -> None:
        peer.read()
        peer.text(ACK)
        peer.close()

    with talk_to(script, load_of(1), tmp_path) as clients:
        clients.wait_ready(SECONDS)
        clients.wait_drained(0.3, SECONDS)
        assert clients.finish(0)["closes"] == {"1006": 1}


def test_refusals_are_counted_by_status(tmp_path: Path) -> None:
    """A server that refuses the upgrade is quoted."""

    def script(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        peer.close()

    scenario = load_of(3)
    with talk_to(script, scenario, tmp_path, upgrade=False) as clients:
        ready = clients.wait_ready(SECONDS)
    assert (ready["ready"], ready["failed"], ready["refused"]) == (0, 3, {"403": 3})


def test_nobody_listens(tmp_path: Path) -> None:
    """Connections that cannot be made are failures, not a hang."""
    with ScriptedServer(lambda _: None) as server:
        port = server.port
    with Clients(port, [Wire()], load_of(2), 0, tmp_path) as clients:
        ready = clients.wait_ready(SECONDS)
    assert (ready["failed"], ready["refused"]) == (2, {"0": 2})


AGREED = b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"


def deflated(text: bytes) -> bytes:
    """A compressed frame, as by RFC 7692."""
    compressor = zlib.compressobj(wbits=-15)
    payload = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return text_frame(payload.removesuffix(b"\x00\x00\xff\xff"), deflated=True)


def compressed(
    frames: Sequence[bytes], answer: bytes, directory: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a client that insists on compression says once connected, and in the end."""
    done = threading.Event()

    def script(peer: Peer) -> None:
        assert b"permessage-deflate; client_no_context_takeover; server_no_context_takeover" in peer.request
        peer.accept(answer)
        peer.read()
        peer.text(ACK)
        for frame in frames:
            peer.send(frame)
        done.wait(SECONDS)

    scenario = load_of(1, deflate=True)
    with talk_to(script, scenario, directory, upgrade=False) as clients:
        ready = clients.wait_ready(SECONDS)
        clients.wait_drained(0.3, SECONDS)
        final = clients.finish(3)
        done.set()
    return ready, final


def test_compressed_messages_are_inflated(tmp_path: Path) -> None:
    """Each message stands for itself; a short one may come as it is."""
    texts = messages(1, 3)
    _, final = compressed([deflated(texts[0]), text_frame(texts[1]), deflated(texts[2])], AGREED, tmp_path)
    assert (final["delivered"], final["closes"]) == (3, {})
    assert faults(final) == {}


def test_a_server_that_does_not_compress_is_refused(tmp_path: Path) -> None:
    """Without the agreement nothing would be measured: the connection counts as refused."""
    ready, _ = compressed([], b"", tmp_path)
    assert (ready["ready"], ready["failed"], ready["refused"]) == (0, 1, {"101": 1})


def test_what_cannot_be_inflated_ends_the_connection(tmp_path: Path) -> None:
    """Bytes that are no deflate stream are an error of the server."""
    _, final = compressed([text_frame(b"\xff\xff\xff", deflated=True)], AGREED, tmp_path)
    assert final["closes"] == {"1002": 1}


def test_joiners_come_in_the_window(tmp_path: Path) -> None:
    """Connections that join are begun once the window is, and what came before them is no loss."""
    texts = messages(1, 5)

    def script(peer: Peer) -> None:
        peer.read()
        peer.text(ACK)
        peer.text(texts[4])
        peer.read()

    scenario = load_of(2, joins=6, join_rate=200)
    with talk_to(script, scenario, tmp_path) as clients:
        assert clients.wait_ready(SECONDS)["ready"] == 2
        clients.begin()
        while (window := clients.end())["joined"] < 6:
            pass
        clients.wait_drained(0.3, SECONDS)
        final = clients.finish(5)
    assert 0.02 < window["join_seconds"] < SECONDS
    assert (final["ready"], final["delivered"]) == (8, 8)
    assert faults(final) == {"gaps": 2, "missing": 8}, "of the two that were there from the start"


def _until_closed(frame: bytes) -> Callable[[Peer], None]:
    """Acknowledge, then send a frame over and over until the client is gone or does not take any more."""

    def script(peer: Peer) -> None:
        peer.read()
        peer.text(ACK)
        while True:
            peer.send(frame)

    return script


def test_stalled_clients_stop_reading(tmp_path: Path) -> None:
    """A stalled client takes no bytes within the window, and is counted apart."""
    scenario = load_of(4, stall_permille=1000)
    frame = text_frame(messages(1, 1)[0])
    with talk_to(_until_closed(frame), scenario, tmp_path) as clients:
        clients.wait_ready(SECONDS)
        clients.begin()
        assert clients.wait_drained(0.5, SECONDS), "nobody reads, so nothing may be counted"
        assert clients.end()["bytes"] == 0
        clients.quiet()
        while not clients.end()["stalled_delivered"]:
            pass
        assert clients.end()["delivered"] == 0


def test_churn_reconnects(tmp_path: Path) -> None:
    """Clients leave with a close frame, come back and subscribe; what they miss meanwhile is no fault."""
    left: list[bytes] = []
    enough = threading.Event()
    texts = messages(1, 50)

    def script(peer: Peer) -> None:
        peer.read()
        peer.text(ACK)
        peer.text(texts[len(left)])
        opcode, payload = peer.read()
        if opcode == CLOSE:
            left.append(payload)
        if len(left) >= 5:
            enough.set()

    scenario = load_of(2, churn_per_second=50)
    with talk_to(script, scenario, tmp_path) as clients:
        clients.wait_ready(SECONDS)
        clients.begin()
        assert enough.wait(SECONDS)
        wait_for(lambda: clients.end()["subscribe"]["count"] >= 4, SECONDS, "those who came back")
        window = clients.end()
        clients.quiet()
        final = clients.finish(0)
    assert left[0] == struct.pack("!H", 1000)
    assert window["churned"] >= 5
    assert final["closed"] == 0


def test_connections_are_split_over_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More connections than one process may have are spread, each with an identity of its own."""
    monkeypatch.setattr("bench.client.driver.open_files_limit", lambda: 107)
    talk = Conversation([text_frame(messages(1, 1)[0])])
    final = observe(tmp_path, talk, 1, load_of(20))
    assert (final["ready"], final["delivered"]) == (20, 20)
    assert faults(final) == {}


def test_last_words(tmp_path: Path) -> None:
    """A client that cannot run says why."""
    with (
        Clients(1, [Wire()], load_of(1, 1, 2), 0, tmp_path) as clients,
        pytest.raises(ProcessError, match="subscribed must lie"),
    ):
        clients.wait_ready(SECONDS)


def _mute(peer: Peer) -> None:
    """Take the command and say nothing."""
    peer.read()
    peer.read()


def test_silence_is_an_error(tmp_path: Path) -> None:
    """A server that never acknowledges keeps no one waiting for ever."""
    with (
        talk_to(_mute, load_of(1), tmp_path) as clients,
        pytest.raises(ProcessError, match="no 'ready'"),
    ):
        clients.wait_ready(0.3)


def _numbers(commands: Sequence[bytes]) -> list[dict[str, int] | None]:
    """What clients that subscribed say that they have."""
    return [json.loads(command)["data"].get("since") for command in commands]


def test_who_vanishes_comes_back_with_what_it_has(tmp_path: Path) -> None:
    """Without a close frame; the second command names its last messages, and judging goes on."""
    wire = Wire(since='],"since":{', since_item='"%c":%s', since_suffix="}}}")
    texts = messages(2, 8)
    commands: list[bytes] = []
    ends: list[str] = []
    go, again = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        commands.append(peer.read()[1])
        first = len(commands) <= 2
        peer.text(ACK)
        assert (go if first else again).wait(SECONDS)
        for text in texts[:5] if first else texts[5:]:
            peer.text(text)
        try:
            opcode, _ = peer.read()
            ends.append(f"frame {opcode}")
        except ConnectionError as error:
            ends.append(str(error))

    load = load_of(2, 2, 2, vanishing=1, away_seconds=0.05)
    with talk_to(script, load, tmp_path, wire) as clients:
        clients.wait_ready(SECONDS)
        clients.begin()
        go.set()
        while clients.end()["delivered"] < 10:
            pass
        clients.vanish()
        while clients.end()["returned"] < 1:
            pass
        again.set()
        while clients.end()["delivered"] < 13:
            pass
        window = clients.end()
        clients.quiet()
        final = clients.finish(8)
        clients.leave()
        assert clients.end()["ready"] == 0
    since = {"token.T0": 5, "token.T1": 4}
    assert sorted(_numbers(commands), key=bool) == [None, None, since]
    assert ends[0] == "closed"
    assert window["latency"]["count"] == 10, "of those who vanish only until then"
    assert final["tally"]["missing"] == 0
    assert final["tail_missing"] == 3, "of the one that stayed"
    assert final["caught_up"] == 0, "nothing that was published since its return"


def test_who_vanishes_from_a_server_without_resume(tmp_path: Path) -> None:
    """What it missed is no loss."""
    texts = messages(1, 9)
    served: list[Peer] = []

    def script(peer: Peer) -> None:
        peer.read()
        served.append(peer)
        numbers = (1, 2) if len(served) == 1 else (8, 9)
        peer.text(ACK)
        for number in numbers:
            peer.text(texts[number - 1])
        peer.read()

    with talk_to(script, load_of(1, vanishing=1, away_seconds=0.01), tmp_path) as clients:
        clients.wait_ready(SECONDS)
        clients.begin()
        while clients.end()["delivered"] < 2:
            pass
        clients.vanish()
        while clients.end()["delivered"] < 4:
            pass
        clients.quiet()
        final = clients.finish(9)
    assert (final["ready"], final["tally"]["missing"], final["tail_missing"]) == (1, 0, 0)


def test_who_is_refused_comes_again(tmp_path: Path) -> None:
    """After a second, until it is let in."""
    served: list[int] = []

    def script(peer: Peer) -> None:
        served.append(len(served))
        if len(served) == 2:
            peer.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            return
        peer.accept()
        peer.read()
        peer.text(ACK)
        with contextlib.suppress(ConnectionError):
            peer.read()

    load = load_of(1, vanishing=1, away_seconds=0.01)
    with talk_to(script, load, tmp_path, upgrade=False) as clients:
        clients.wait_ready(SECONDS)
        clients.begin()
        clients.vanish()
        while clients.end()["returned"] < 1:
            pass
        final = clients.finish(0)
    assert final["refused"] == {"503": 1}
    assert final["ready"] == 1


def test_subscribing_by_the_path(tmp_path: Path) -> None:
    """The names are in the request, with headers of our own, and no command follows."""
    talked = threading.Event()
    requests: list[bytes] = []
    text = messages(2, 1)[0]

    def script(peer: Peer) -> None:
        requests.append(peer.request)
        assert talked.wait(SECONDS)
        peer.text(text)
        peer.read()

    wire = Wire(
        path="/sub?c=", in_path=True, prefix="", item="%c", suffix="", ack="", headers="X-Bench: yes\r\n"
    )
    with talk_to(script, load_of(1, 2, 2), tmp_path, wire) as clients:
        assert clients.wait_ready(SECONDS)["ready"] == 1
        clients.begin()
        talked.set()
        while clients.end()["delivered"] < 1:
            pass
        assert faults(clients.finish(2)) == {"tail": 1}
    line, *headers = requests[0].split(b"\r\n")
    assert line in (b"GET /sub?c=token.T0,token.T1 HTTP/1.1", b"GET /sub?c=token.T1,token.T0 HTTP/1.1")
    assert b"X-Bench: yes" in headers


def test_a_greeting_is_awaited(tmp_path: Path) -> None:
    """The command follows the server's answer to the hello."""
    order: list[bytes] = []

    def script(peer: Peer) -> None:
        order.append(peer.read()[1])
        peer.text("0{}")
        peer.text('40{"sid":"x"}')
        order.append(peer.read()[1])
        peer.text(ACK)
        peer.read()

    with talk_to(script, load_of(), tmp_path, Wire(hello="40", greeting="40")) as clients:
        assert clients.wait_ready(SECONDS)["ready"] == 1
    assert order == [b"40", b'{"type":"subscribe","data":{"channels":["token.T0"]}}']


def test_mqtt(tmp_path: Path) -> None:
    """CONNECT, SUBSCRIBE and PUBLISH of MQTT 3.1.1, in binary frames."""
    packets: list[tuple[int, bytes]] = []
    text = messages(1, 1)[0]
    talked = threading.Event()

    def script(peer: Peer) -> None:
        packets.append(peer.read())
        peer.send(text_frame(b"\x20\x02\x00\x00", opcode=2))
        packets.append(peer.read())
        peer.send(text_frame(b"\x90\x03\x00\x01\x00", opcode=2))
        assert talked.wait(SECONDS)
        body = b"\x00\x08token.T0" + text
        length = bytes((0x80 | len(body) & 0x7F, len(body) >> 7))
        peer.send(text_frame(b"\x30" + length + body, opcode=2))
        peer.read()

    with talk_to(script, load_of(), tmp_path, Wire(item="%c", mqtt=True)) as clients:
        assert clients.wait_ready(SECONDS)["ready"] == 1
        clients.begin()
        talked.set()
        while clients.end()["delivered"] < 1:
            pass
        assert faults(clients.finish(1)) == {}
    assert packets == [
        (2, b"\x10\x8e\x80\x00\x00\x04MQTT\x04\x02\x00\x00\x00\x02c0"),
        (2, b"\x82\x8d\x80\x00\x00\x01\x00\x08token.T0\x00"),
    ]


def test_centrifugo(tmp_path: Path) -> None:
    """connect, subscribe, a publication and a ping of Centrifugo's protocol in Protobuf."""
    frames: list[tuple[int, bytes]] = []
    text = messages(2, 1)[0]
    talked = threading.Event()

    def script(peer: Peer) -> None:
        frames.append(peer.read())
        peer.send(text_frame(b"\x08\x08\x01\x2a\x04\x0a\x02me", opcode=2))
        frames.append(peer.read())
        peer.send(text_frame(b"\x05\x08\x80\x01\x32\x00\x05\x08\x81\x01\x32\x00", opcode=2))
        assert talked.wait(SECONDS)
        peer.send(text_frame(b"\0", opcode=2))
        frames.append(peer.read())
        peer.send(
            text_frame(b"\xff\x01\x22\xfc\x01\x12\x08token.T0\x22\xef\x01\x22\xec\x01" + text, opcode=2)
        )
        peer.read()

    with talk_to(script, load_of(1, 2, 2), tmp_path, Wire(item="%c", protobuf=True, binary=True)) as clients:
        assert clients.wait_ready(SECONDS)["ready"] == 1
        clients.begin()
        talked.set()
        while (window := clients.end())["delivered"] < 1:
            pass
        assert faults(clients.finish(2)) == {"tail": 1}
    assert window["pings"] == 1
    one, two = (b"\x0f\x08" + number + b"\x01\x2a\x0a\x0a\x08token.T" for number in (b"\x80", b"\x81"))
    assert frames[0] == (2, b"\x04\x08\x01\x22\x00")
    assert frames[1] in ((2, one + b"0" + two + b"1"), (2, one + b"1" + two + b"0"))
    assert frames[2] == (2, b"\0")


def test_server_sent_events(tmp_path: Path) -> None:
    """A plain request; events are messages, gaps or comments, and their numbers are checked."""
    talked = threading.Event()
    requests: list[bytes] = []
    texts = messages(1, 5)

    def event(text: bytes, kind: bytes = b"") -> bytes:
        return kind + b"id: e:7\ndata: " + text + b"\n\n"

    def script(peer: Peer) -> None:
        requests.append(peer.request)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 2000\nevent: welc")
        peer.send(b"ome\nid: e:0\ndata: {}\n\n")
        assert talked.wait(SECONDS)
        gap = b'{"type":"gap","channel":"token.T0","from":2,"to":3,"reason":"slow"}'
        peer.send(event(texts[0]) + b":\n\n" + event(gap, b"event: gap\n") + event(texts[4]))
        peer.read()

    wire = Wire(
        path="/sse?",
        in_path=True,
        prefix="",
        item="channel=%c",
        separator="&",
        suffix="",
        ack="event: welcome",
        ask=":",
        sse=True,
        numbered=True,
    )
    with talk_to(script, load_of(), tmp_path, wire, upgrade=False) as clients:
        assert clients.wait_ready(SECONDS)["ready"] == 1
        clients.begin()
        talked.set()
        while (window := clients.end())["delivered"] < 2:
            pass
        final = clients.finish(5)
    assert faults(final) == {"gaps": 1, "missing": 1, "told": 2}
    assert window["pings"] == 1
    assert requests[0].startswith(b"GET /sse?channel=token.T0 HTTP/1.1\r\n")
    assert b"Upgrade" not in requests[0]


def test_clients_take_turns_with_wires(tmp_path: Path) -> None:
    """Half of them say one thing, half another."""
    said: list[bytes] = []

    def script(peer: Peer) -> None:
        said.append(peer.read()[1])
        peer.text(ACK)
        peer.read()

    wires = [Wire(prefix="one ", item="", suffix=""), Wire(prefix="two ", item="", suffix="")]
    with ScriptedServer(script) as server, Clients(server.port, wires, load_of(5), 0, tmp_path) as clients:
        assert clients.wait_ready(SECONDS)["ready"] == 5
    assert sorted(said) == [b"one "] * 2 + [b"two "] * 3


def test_tls(tmp_path: Path) -> None:
    """A client speaks it without looking at the certificate."""
    if not has_tls():
        miss("no headers of OpenSSL: install the Debian package libssl-dev")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path))
    text = messages(1, 1)[0]
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True) as secure:
            peer = Peer(secure)
            peer.accept()
            peer.read()
            peer.text(ACK)
            peer.send(text_frame(text))
            with contextlib.suppress(OSError):
                peer.read()

    thread = threading.Thread(target=serve)
    thread.start()
    port = listener.getsockname()[1]
    with listener, Clients(port, [Wire(tls=True)], load_of(), 0, tmp_path) as clients:
        assert clients.wait_ready(SECONDS)["ready"] == 1
        assert clients.wait_drained(0.3, SECONDS)
        assert faults(clients.finish(1)) == {}
    thread.join(SECONDS)
