"""`odinws.connections.commands` with a real strategy, a fake connection and a clock that the test moves."""

from __future__ import annotations

import itertools
import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from odinws.access.errors import unauthenticated
from odinws.access.permissions import Permissions
from odinws.access.tokens import Identity
from odinws.close_codes import CloseReason
from odinws.connections import commands as commands_module
from odinws.connections.commands import Commands
from odinws.connections.connection import Connection, State
from odinws.connections.limits import ConnectionLimits
from odinws.errors import FeedError
from odinws.messages.protocol import ReplayComplete
from odinws.monitoring.stats_broadcaster import StatsBroadcaster
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats
from strategies import Strategy
from tests.fakes import FakeConnection, in_greenlet, running, settle
from tests.strategies.support import cooperative_locks


class Clock:
    """Monotonic seconds that stand still."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeHistory:
    """Notes what is asked of it, and how many answers had been given by then; subscribes as the real one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[tuple[Any, ...]] = []
        self.error: FeedError | None = None

    def subscribe(self, conn: Connection, channel: str) -> bool:
        """Subscribe."""
        return self.world.strategy.subscribe(conn, channel)

    def resume(self, conn: Connection, since: Mapping[str, int], epoch: str | None) -> None:
        """Note it, and subscribe."""
        self.asked.append(("resume", since, epoch, len(self.world.conn.sent)))
        for channel in since:
            self.world.strategy.subscribe(conn, channel)

    def latest(self, conn: Connection, channels: Sequence[str]) -> None:
        """Note it, and subscribe."""
        self.asked.append(("latest", channels, len(self.world.conn.sent)))
        for channel in channels:
            self.world.strategy.subscribe(conn, channel)

    def replay(self, conn: Connection, channel: str, first: int, last: int | None) -> ReplayComplete:
        """Note it."""
        self.asked.append(("replay", channel, first, last))
        if self.error is not None:
            raise self.error
        return ReplayComplete(channel, first, last or 9, 0)


class World:
    """A worker's commands and one connection, which is a member."""

    def __init__(self, *, now: float = 12345.678, **settings: str) -> None:
        self.clock = Clock(now)
        self.identities: dict[str, Identity] = {}
        self.history = FakeHistory(self)
        self.watchers = StatsBroadcaster(lambda _: {})
        self.stats = WorkerStats()
        self.strategy: Strategy[Connection] = strategies.create("sync-dict")
        self.commands = self.made(Settings.from_environ(settings))
        self.conn = FakeConnection("c-1")
        assert self.strategy.add(self.conn.real)

    def made(self, settings: Settings) -> Commands[Connection]:
        """Commands of this worker."""
        limits = ConnectionLimits.of(settings)
        return Commands(
            settings,
            limits,
            self.strategy,
            self.stats,
            self.refresh,
            self.history,
            self.watchers,
            self.clock,
        )

    def refresh(self, old: Identity, token: str) -> Identity:
        """Tokens are names of identities here."""
        if token not in self.identities:
            raise unauthenticated("the token is not known here")
        return self.identities[token]

    def run(self, *texts: bytes) -> list[Any]:
        """Carry commands out, and return the answers to them."""
        before = len(self.conn.messages)
        self.conn.commands = deque(texts)
        self.commands.run(self.conn.real)
        return self.conn.messages[before:]

    def ask(self, kind: str, **data: Any) -> Any:
        """Carry one command out and return its one answer."""
        (answer,) = self.run(command(kind, **data))
        return answer

    def subscribers(self, channel: str) -> list[str]:
        """Who a message of this channel goes to."""
        return [conn.id for batch in self.strategy.batches(channel) for conn in batch]


def command(kind: str, **data: Any) -> bytes:
    """A command as a client writes it."""
    return json.dumps({"type": kind, "data": data}).encode()


HEARTBEAT = command("heartbeat")


# -- answers ---------------------------------------------------------------------------------------


def test_subscribe_and_unsubscribe() -> None:
    """The command is executed, and answered with the number of channels."""
    world = World()
    assert world.ask("subscribe", channels=["token.BTC", "global"]) == {
        "type": "subscription_ack",
        "subscribed": ["token.BTC", "global"],
        "count": 2,
        "rejected": [],
    }
    assert set(world.conn.channels) == {"token.BTC", "global"}
    assert world.subscribers("token.BTC") == ["c-1"]
    assert world.ask("unsubscribe", channels=["token.BTC"]) == {
        "type": "unsubscription_ack",
        "unsubscribed": ["token.BTC"],
        "count": 1,
    }
    assert world.subscribers("token.BTC") == []
    assert (world.stats.totals.commands, world.stats.totals.command_errors) == (2, 0)


def test_channels_named_twice_count_once() -> None:
    """Within a command and over commands: the answer has each once, and each is held once."""
    world = World()
    answer = world.ask("subscribe", channels=["global", "token.A", "global"])
    assert (answer["subscribed"], answer["count"]) == (["global", "token.A"], 2)
    answer = world.ask("subscribe", channels=["token.A", "token.B"])
    assert (answer["subscribed"], answer["count"]) == (["token.A", "token.B"], 3)
    assert world.subscribers("token.A") == ["c-1"]
    answer = world.ask("unsubscribe", channels=["token.A", "token.A", "token.A"])
    assert (answer["unsubscribed"], answer["count"]) == (["token.A"], 2)


def test_unsubscribe_of_what_is_not_held() -> None:
    """No error: what is not held is not among the unsubscribed, whether it is a channel or not."""
    world = World()
    answer = world.ask("unsubscribe", channels=["token.A", "no channel", "token.*"])
    assert answer == {"type": "unsubscription_ack", "unsubscribed": [], "count": 0}
    assert world.conn.errors == 0


def test_bad_channels_are_rejected_one_by_one() -> None:
    """The good ones of a command are subscribed all the same; the command counts as one error."""
    world = World()
    answer = world.ask("subscribe", channels=["token.A", "nope", "token*", "global", "user.ü"])
    assert answer["subscribed"] == ["token.A", "global"]
    assert [(r["channel"], r["code"]) for r in answer["rejected"]] == [
        ("nope", "INVALID_CHANNEL"),
        ("token*", "INVALID_CHANNEL"),
        ("user.ü", "INVALID_CHANNEL"),
    ]
    assert answer["count"] == 2
    assert (world.conn.errors, world.stats.totals.command_errors) == (1, 1)


@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe"])
def test_no_channels_at_all(kind: str) -> None:
    """An empty list is an error."""
    world = World()
    answer = world.ask(kind, channels=[])
    assert (answer["type"], answer["code"]) == ("error", "INVALID_FIELD")
    assert "at least one channel" in answer["message"]


def test_heartbeat_tells_the_time() -> None:
    """The pong carries the server's time in ms."""
    world = World()
    before = int(time.time() * 1000)
    answer = world.ask("heartbeat")
    assert answer["type"] == "pong"
    assert before <= answer["ts"] <= time.time() * 1000


def test_subscribe_with_since() -> None:
    """The acknowledgement counts all; then what has a `since` is resumed; what has none is live already."""
    world = World()
    answer = world.ask(
        "subscribe", channels=["token.A", "token.B", "global"], since={"token.B": 7, "token.C": 1}, epoch="e"
    )
    assert (answer["subscribed"], answer["count"]) == (["token.A", "token.B", "global"], 3)
    assert world.history.asked == [("resume", {"token.B": 7}, "e", 1)]
    assert set(world.conn.channels) == {"token.A", "token.B", "global"}
    assert world.stats.totals.returned == 1


def test_subscribe_with_last() -> None:
    """The newest of each, after the acknowledgement; `since` takes precedence."""
    world = World()
    answer = world.ask("subscribe", channels=["token.A", "token.*"], since={"token.A": 7}, last=True)
    assert answer["count"] == 2
    assert world.history.asked == [("resume", {"token.A": 7}, None, 1), ("latest", ["token.*"], 1)]


def test_what_is_held_already_is_not_resumed() -> None:
    """It has missed nothing."""
    world = World()
    world.ask("subscribe", channels=["token.A"])
    assert world.ask("subscribe", channels=["token.A"], since={"token.A": 0})["count"] == 1
    assert world.history.asked == []


def test_resumed_channels_count_against_the_limit() -> None:
    """Also while they are on their way."""
    world = World(WS_MAX_SUBSCRIPTIONS="2")
    answer = world.ask("subscribe", channels=["token.A", "token.B", "token.C"], last=True)
    assert answer["subscribed"] == ["token.A", "token.B"]
    assert [problem["code"] for problem in answer["rejected"]] == ["TOO_MANY_SUBSCRIPTIONS"]


@pytest.mark.parametrize(
    ("data", "first", "last"),
    [
        ({"since": 4}, 5, None),
        ({"since": 0}, 1, None),
        ({"from": 4, "to": 8}, 4, 8),
        ({"from": 0}, 1, None),
    ],
)
def test_replay(data: dict[str, int], first: int, last: int | None) -> None:
    """Behind a sequence, or from one to another."""
    world = World()
    answer = world.ask("replay", channel="token.A", **data)
    assert answer["type"] == "replay_complete"
    assert world.history.asked == [("replay", "token.A", first, last)]
    assert not world.conn.channels


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"channel": "token.A"}, "INVALID_FIELD"),
        ({"channel": "token.A", "since": 1, "from": 2}, "INVALID_FIELD"),
        ({"channel": "nope", "since": 1}, "INVALID_CHANNEL"),
        ({"channel": "user.7", "since": 1}, "FORBIDDEN"),
    ],
)
def test_replays_that_can_not_be(data: dict[str, Any], code: str) -> None:
    """Each has its error."""
    world = World()
    world.conn.real.identity = Identity("42", None, Permissions.of(("token.*",), "42"))
    answer = world.ask("replay", **data)
    assert (answer["type"], answer["code"]) == ("error", code)
    assert world.history.asked == []


def test_a_replay_without_nats() -> None:
    """The connection stays, and may ask again."""
    world = World()
    world.history.error = FeedError("NATS is away")
    answer = world.ask("replay", channel="token.A", since=1)
    assert (answer["code"], answer["message"]) == ("UNAVAILABLE", "NATS is away")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "INVALID_JSON"),
        (b"hello", "INVALID_JSON"),
        (b"[]", "INVALID_FIELD"),
        (b'{"type":"x"}', "UNKNOWN_TYPE"),
        (b'{"type":"subscribe","data":{"channels":1}}', "INVALID_FIELD"),
    ],
)
def test_each_bad_command_gets_one_error(text: bytes, code: str) -> None:
    """One error frame, one count, and the connection lives on."""
    world = World()
    (answer,) = world.run(text)
    assert (answer["type"], answer["code"]) == ("error", code)
    assert (world.conn.errors, world.stats.totals.commands, world.stats.totals.command_errors) == (1, 1, 1)
    assert world.ask("heartbeat")["type"] == "pong"


# -- limits ----------------------------------------------------------------------------------------


def test_no_more_subscriptions_than_allowed() -> None:
    """Beyond the limit channels are rejected; those held can be named again, and room can be made."""
    world = World(WS_MAX_SUBSCRIPTIONS="2")
    answer = world.ask("subscribe", channels=["token.A", "token.B", "token.C", "token.A"])
    assert answer["subscribed"] == ["token.A", "token.B"]
    assert answer["rejected"] == [
        {
            "channel": "token.C",
            "code": "TOO_MANY_SUBSCRIPTIONS",
            "message": "a connection may hold 2 subscriptions",
        }
    ]
    assert answer["count"] == 2
    assert world.subscribers("token.C") == []
    assert world.ask("subscribe", channels=["token.B"])["rejected"] == []
    world.ask("unsubscribe", channels=["token.A"])
    assert world.ask("subscribe", channels=["token.C"])["subscribed"] == ["token.C"]


@given(
    rate=st.floats(0.01, 1e5),
    burst=st.integers(1, 200),
    now=st.floats(0.0, 1e7),
)
def test_a_burst_is_exactly_as_large_as_it_says(rate: float, burst: int, now: float) -> None:
    """However large the clock is, rounding takes nothing from the burst and adds nothing to it."""
    world = World(now=now, WS_COMMAND_RATE=f"{rate:f}", WS_COMMAND_BURST=str(burst), WS_MAX_ERRORS="1000")
    answers = world.run(*[HEARTBEAT] * (burst + 3))
    assert [answer["type"] for answer in answers] == ["pong"] * burst + ["error"] * 3
    assert {answer.get("code") for answer in answers[burst:]} == {"RATE_LIMIT_EXCEEDED"}
    assert {answer["message"] for answer in answers[burst:]} == {
        f"more than {float(f'{rate:f}'):g} commands/s"
    }


@given(gaps=st.lists(st.floats(0, 5), min_size=1, max_size=50))
def test_the_rate_is_kept_over_any_stretch(gaps: list[float]) -> None:
    """Between any two instants, at most the burst plus the rate times the interval is executed."""
    rate, burst = 2.0, 3
    world = World(WS_COMMAND_RATE=str(rate), WS_COMMAND_BURST=str(burst), WS_MAX_ERRORS="1000")
    done: list[float] = []
    for gap in gaps:
        world.clock.now += gap
        answers = world.run(HEARTBEAT, HEARTBEAT)
        done += [world.clock.now for answer in answers if answer["type"] == "pong"]
    for first, start in enumerate(done):
        for last in range(first, len(done)):
            assert last - first + 1 <= burst + rate * (done[last] - start) + 0.5 + 1e-6


def test_a_refused_command_costs_nothing() -> None:
    """Commands above the rate do not push its end further away: the next interval brings one again."""
    world = World(WS_COMMAND_RATE="10", WS_COMMAND_BURST="1")
    assert [a["type"] for a in world.run(*[HEARTBEAT] * 20)] == ["pong"] + ["error"] * 19
    world.clock.now += 0.1
    assert [a["type"] for a in world.run(*[HEARTBEAT] * 2)] == ["pong", "error"]


def test_a_bad_command_uses_the_rate_too() -> None:
    """Nonsense is no cheaper than sense."""
    world = World(WS_COMMAND_RATE="1", WS_COMMAND_BURST="2")
    codes = [answer.get("code") for answer in world.run(b"x", b"x", b"x", HEARTBEAT)]
    assert codes == ["INVALID_JSON", "INVALID_JSON", "RATE_LIMIT_EXCEEDED", "RATE_LIMIT_EXCEEDED"]


def test_each_connection_has_its_own_rate() -> None:
    """One that exceeds it takes nothing from another."""
    world = World(WS_COMMAND_RATE="1", WS_COMMAND_BURST="1")
    world.run(HEARTBEAT, HEARTBEAT)
    other = FakeConnection("c-2")
    other.commands = deque([HEARTBEAT])
    world.commands.run(other.real)
    assert [message["type"] for message in other.messages] == ["pong"]


def test_the_error_budget_ends_with_1008() -> None:
    """The last error is answered, then the connection closes; commands that wait are not executed."""
    world = World(WS_MAX_ERRORS="3")
    answers = world.run(b"x", HEARTBEAT, b"x", command("subscribe", channels=["nope"]), HEARTBEAT)
    assert [answer["type"] for answer in answers] == ["error", "pong", "error", "subscription_ack"]
    assert world.conn.closed == (CloseReason.POLICY, "3 bad commands")
    assert world.stats.totals.commands == 4
    assert world.conn.commands is None


def test_the_budget_is_one_of_the_connection() -> None:
    """Good commands do not restore it."""
    world = World(WS_MAX_ERRORS="2", WS_COMMAND_BURST="10000")
    world.run(b"x", *[HEARTBEAT] * 200)
    assert world.conn.closed is None
    world.run(b"x")
    assert world.conn.closed is not None


# -- order and life --------------------------------------------------------------------------------


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["subscribe", "unsubscribe"]), st.sampled_from(["token.A", "token.B", "global"])
        ),
        max_size=30,
    )
)
def test_commands_are_carried_out_in_order(steps: list[tuple[str, str]]) -> None:
    """One answer per command, in order, each with the count as it was just then."""
    world = World()
    held: set[str] = set()
    answers = world.run(*[command(kind, channels=[channel]) for kind, channel in steps])
    assert len(answers) == len(steps)
    for (kind, channel), answer in zip(steps, answers, strict=True):
        if kind == "subscribe":
            held.add(channel)
            assert answer["subscribed"] == [channel]
        else:
            assert answer["unsubscribed"] == ([channel] if channel in held else [])
            held.discard(channel)
        assert answer["count"] == len(held)
    assert set(world.conn.channels) == held


def test_it_ends_when_none_waits() -> None:
    """The connection is told that its commands are done, even if there were none."""
    world = World()
    world.run(HEARTBEAT)
    assert (world.conn.commands, world.conn.done) == (None, 1)
    world.conn.commands = None
    world.commands.run(world.conn.real)
    assert world.conn.done == 2


def test_commands_that_come_meanwhile_are_carried_out_too() -> None:
    """A command that is queued while another one is at work needs no new greenlet."""
    world = World()
    conn = world.conn

    def send_frame(frame: bytes, real: Any = conn.send_frame) -> bool:
        if len(conn.sent) < 3:
            assert conn.commands is not None
            conn.commands.append(HEARTBEAT)
        return bool(real(frame))

    conn.send_frame = send_frame  # type: ignore[method-assign]
    assert len(world.run(HEARTBEAT)) == 4
    assert conn.done == 1


@pytest.mark.parametrize("state", [State.CLOSING, State.CLOSED])
def test_a_closing_connection_is_left_alone(state: State) -> None:
    """Nothing is executed for a closing connection."""
    world = World()
    world.conn.state = state
    assert world.run(command("subscribe", channels=["global"])) == []
    assert world.subscribers("global") == []
    assert world.stats.totals.commands == 0
    assert world.conn.done == 1


def test_it_stops_when_an_answer_ends_the_connection() -> None:
    """The peer may be gone, or too slow for the answer: what waits is dropped."""
    world = World()

    def send_frame(_: bytes) -> bool:
        world.conn.state = State.CLOSED
        return False

    world.conn.send_frame = send_frame  # type: ignore[method-assign,assignment]
    world.run(b"x", HEARTBEAT)
    assert world.stats.totals.commands == 1
    assert world.conn.closed is None


@in_greenlet
def test_many_commands_let_others_run() -> None:
    """A client that sends thousands at once does not hold the event loop for all of them."""
    world = World(WS_COMMAND_BURST="10000", WS_COMMAND_RATE="1000000")
    turns: list[int] = []

    def other() -> None:
        while True:
            turns.append(len(world.conn.sent))
            gevent.sleep(0)

    with running(other):
        world.run(*[HEARTBEAT] * 1000)
    assert max(b - a for a, b in itertools.pairwise(turns)) == commands_module._YIELD_EVERY


@in_greenlet
def test_only_the_asking_connection_waits_for_a_lock() -> None:
    """While a walk holds the shard's lock, its own command waits, and another connection's goes through."""
    world = World()
    with cooperative_locks():
        world.strategy = strategies.create("single-lock")
    world.commands = world.made(Settings.from_environ({}))
    world.strategy.add(world.conn.real)
    other = FakeConnection("c-2")
    world.strategy.add(other.real)
    world.strategy.subscribe(other.real, "global")
    walk = world.strategy.batches("global")
    assert len(next(walk)) == 1
    world.conn.commands = deque([command("subscribe", channels=["global"])])
    other.commands = deque([HEARTBEAT])
    waiting = gevent.spawn(world.commands.run, world.conn.real)
    gevent.spawn(world.commands.run, other.real)
    settle()
    assert [message["type"] for message in other.messages] == ["pong"]
    assert world.conn.messages == []
    walk.close()
    waiting.get()
    assert world.conn.messages[0]["subscribed"] == ["global"]


# -- who may ---------------------------------------------------------------------------------------


def test_only_what_the_identity_allows() -> None:
    """Other channels are rejected by name; what is allowed is subscribed all the same."""
    world = World()
    world.conn.real.identity = Identity("42", None, Permissions.of(("token.*", "user.42"), "42"))
    channels = ["token.A", "user.42", "user.43", "global"]
    [answer] = world.run(json.dumps({"type": "subscribe", "data": {"channels": channels}}).encode())
    assert answer["subscribed"] == ["token.A", "user.42"]
    assert [(r["channel"], r["code"]) for r in answer["rejected"]] == [
        ("user.43", "FORBIDDEN"),
        ("global", "FORBIDDEN"),
    ]
    assert set(world.conn.real.channels) == {"token.A", "user.42"}


def test_another_token() -> None:
    """It replaces the identity, and channels that it does not allow are given back and named."""
    world = World()
    world.run(b'{"type":"subscribe","data":{"channels":["token.A","token.B"]}}')
    world.identities["new"] = Identity("42", 2_000_000_000.5, Permissions.of(("token.A",), "42"))
    [answer] = world.run(b'{"type":"authenticate","data":{"token":"new"}}')
    assert answer == {
        "type": "authenticated",
        "subject": "42",
        "expires_at": 2_000_000_000_500,
        "unsubscribed": ["token.B"],
    }
    assert set(world.conn.real.channels) == {"token.A"}
    assert world.conn.real.identity is world.identities["new"]


def test_a_token_that_is_no_good_changes_nothing() -> None:
    """It is answered with an error that says nothing of the token."""
    world = World()
    before = world.conn.real.identity
    [answer] = world.run(b'{"type":"authenticate","data":{"token":"secret"}}')
    assert (answer["type"], answer["code"]) == ("error", "UNAUTHORISED")
    assert "secret" not in json.dumps(answer)
    assert world.conn.real.identity is before


def test_a_command_of_too_many_channels() -> None:
    """An answer names each channel, so there is a bound; below it each is judged by itself."""
    world = World(WS_MAX_SUBSCRIPTIONS="10")
    channels = [f"!{n}" for n in range(21)]
    for kind in ("subscribe", "unsubscribe"):
        [answer] = world.run(json.dumps({"type": kind, "data": {"channels": channels}}).encode())
        assert answer["code"] == "INVALID_FIELD"
        assert "at most 20 channels" in answer["message"]
    [answer] = world.run(json.dumps({"type": "subscribe", "data": {"channels": channels[:20]}}).encode())
    assert len(answer["rejected"]) == 20


def test_the_figures_are_for_those_who_may_inspect() -> None:
    """Others are refused by name, and it counts against them; the figures are no subscription."""
    world = World()
    answer = world.ask("subscribe", channels=["server.stats", "global"])
    [rejected] = answer["rejected"]
    assert (rejected["channel"], rejected["code"]) == ("server.stats", "FORBIDDEN")
    assert (answer["subscribed"], answer["count"], world.conn.errors) == (["global"], 1, 1)
    assert "WS_ADMIN_ADDR" in rejected["message"]
    world.conn.real.inspects = True
    answer = world.ask("subscribe", channels=["server.stats"])
    assert (answer["subscribed"], answer["count"], answer["rejected"]) == (["server.stats"], 1, [])
    assert set(world.conn.channels) == {"global"}
    assert world.subscribers("server.stats") == []
    assert world.ask("unsubscribe", channels=["server.stats"])["unsubscribed"] == ["server.stats"]
    assert world.ask("unsubscribe", channels=["server.stats"])["unsubscribed"] == []


def test_channels_that_are_named_are_work() -> None:
    """Whether or not they can be had."""
    world = World()
    world.ask("subscribe", channels=["token.A", "token.B", "nonsense"])
    world.ask("unsubscribe", channels=["token.A"])
    assert world.conn.spent == 4


def test_commands_wait_while_answers_do() -> None:
    """The first that finds no room is not executed, nor those behind it; later all of them are."""
    world = World()
    world.conn.has_room = False
    assert world.run(command("heartbeat"), command("heartbeat")) == []
    assert (world.conn.later, world.conn.done) == (1, 0)
    assert world.conn.commands is not None
    assert len(world.conn.commands) == 2
    world.conn.has_room = True
    world.commands.run(world.conn.real)
    assert (len(world.conn.messages), world.conn.done) == (2, 1)
