"""`odinws.client.subscriptions`: what is heard once, what is asked for anew, and the holes between."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.client.subscriptions import Gap, Message, ProtocolError, Rejected, SubscriptionState

DEEP = 1_000_000  # for every Python


def data(channel: str, seq: int, prev: int) -> str:
    """A data frame."""
    return json.dumps(
        {"type": "t", "channel": channel, "seq": seq, "prev": prev, "ts": 5, "data": {"n": seq}}
    )


def gap(channel: str, first: int, last: int, reason: str = "slow") -> str:
    """A gap frame."""
    return json.dumps({"type": "gap", "channel": channel, "from": first, "to": last, "reason": reason})


def greeted(state: SubscriptionState, epoch: str = "one") -> SubscriptionState:
    """The state behind a welcome and an acknowledgement."""
    state.connected()
    assert state.read(json.dumps({"type": "welcome", "epoch": epoch})) == []
    assert state.read(json.dumps({"type": "subscription_ack", "rejected": []})) == []
    return state


def asked(state: SubscriptionState) -> dict[str, Any]:
    """What it would subscribe to."""
    command = json.loads(state.subscription())
    assert command["type"] == "subscribe"
    found: dict[str, Any] = command["data"]
    return found


def test_the_first_subscription_has_no_past() -> None:
    """Channels, and nothing else; the newest if that is wanted."""
    assert asked(SubscriptionState(["token.A"], last=False)) == {"channels": ["token.A"]}
    assert asked(SubscriptionState(["token.A"], last=True)) == {"channels": ["token.A"], "last": True}


def test_it_resumes_behind_what_it_heard() -> None:
    """By channel, and by wildcard; in the epoch of the numbers."""
    state = greeted(SubscriptionState(["token.A", "token.*", "global"], last=False))
    assert state.read(data("token.A", 5, 0)) == [Message("token.A", 5, "t", 5, {"n": 5})]
    state.read(data("token.B", 6, 0))
    assert asked(state) == {
        "channels": ["token.A", "token.*", "global"],
        "since": {"token.A": 5, "token.*": 6},
        "epoch": "one",
    }


def test_what_comes_twice_is_dropped() -> None:
    """And a hole that nobody told of is told."""
    state = greeted(SubscriptionState(["token.A"], last=False))
    state.read(data("token.A", 5, 4))
    assert state.read(data("token.A", 5, 4)) == []
    assert state.read(data("token.A", 4, 3)) == []
    hole, message = state.read(data("token.A", 9, 7))
    assert hole == Gap("token.A", 6, 7, "unknown")
    assert isinstance(message, Message)


def test_a_gap_that_was_told_is_none() -> None:
    """It is an event of its own, and what follows it fits."""
    state = greeted(SubscriptionState(["token.A"], last=False))
    state.read(data("token.A", 5, 4))
    assert state.read(gap("token.A", 6, 8)) == [Gap("token.A", 6, 8, "slow")]
    assert len(state.read(data("token.A", 9, 7))) == 1
    assert asked(state)["since"] == {"token.A": 9}


def test_another_epoch_on_another_connection() -> None:
    """The old numbers are asked for by their own name, until the server says that they are worth nothing."""
    state = greeted(SubscriptionState(["token.A"], last=False))
    state.read(data("token.A", 500, 499))
    state.connected()
    state.read(json.dumps({"type": "welcome", "epoch": "two"}))
    assert asked(state) == {"channels": ["token.A"], "since": {"token.A": 500}, "epoch": "one"}
    state.read(json.dumps({"type": "subscription_ack", "rejected": []}))
    assert state.read(gap("token.A", 1, 6, "epoch")) == [Gap("token.A", 1, 6, "epoch")]
    assert len(state.read(data("token.A", 7, 3))) == 1
    assert asked(state) == {"channels": ["token.A"], "since": {"token.A": 7}, "epoch": "two"}


def test_an_epoch_that_is_not_known_yet() -> None:
    """A worker that has not heard from NATS: what the client has stays good until a gap says otherwise."""
    state = greeted(SubscriptionState(["token.A"], last=False))
    state.read(data("token.A", 500, 490))
    state.connected()
    state.read(json.dumps({"type": "welcome", "epoch": "none"}))
    state.read(
        json.dumps({"type": "subscription_ack", "subscribed": ["token.A"], "count": 1, "rejected": []})
    )
    resumed = {"channels": ["token.A"], "since": {"token.A": 500}, "epoch": "one"}
    assert asked(state) == resumed
    assert state.read(json.dumps({"type": "welcome", "epoch": "one"})) == []
    assert asked(state) == resumed
    assert len(state.read(data("token.A", 510, 500))) == 1


def test_another_epoch_amid_a_connection() -> None:
    """All channels begin anew, and each says so."""
    state = greeted(SubscriptionState(["token.A", "global"], last=False))
    state.read(data("token.A", 500, 499))
    found = state.read(json.dumps({"type": "welcome", "epoch": "two"}))
    assert found == [Gap("token.A", 0, 0, "epoch"), Gap("global", 0, 0, "epoch")]
    assert len(state.read(data("token.A", 1, 0))) == 1
    assert asked(state)["since"] == {"token.A": 1}


def test_json_that_python_does_not_read() -> None:
    """Numbers of any length are taken; what is nested too deeply is told, and followed."""
    state = greeted(SubscriptionState(["token.A"], last=False))
    number = data("token.A", 5, 0).replace('{"n": 5}', "9" * 5000)
    assert state.read(number) == [Message("token.A", 5, "t", 5, float("inf"))]
    odd = data("token.A", 6, 5).replace('{"n": 6}', '[1e400, "\\ud800"]')
    assert state.read(odd) == [Message("token.A", 6, "t", 5, [float("inf"), "\ud800"])]
    deep = (
        '{"type":"a\\"b","channel":"token.A","seq":9,"prev":8,"ts":5,"data":' + "[" * DEEP + "]" * DEEP + "}"
    )
    assert state.read(deep) == [Gap("token.A", 7, 8, "unknown"), Gap("token.A", 9, 9, "unreadable")]
    assert state.read(deep) == []
    assert asked(state)["since"] == {"token.A": 9}
    with pytest.raises(ProtocolError):
        state.read("[" * DEEP)


def test_errors_and_rejections_are_events() -> None:
    """The user shall know."""
    state = greeted(SubscriptionState(["nope"], last=False))
    rejected = {"channel": "nope", "code": "INVALID_CHANNEL", "message": "no"}
    ack = {"type": "subscription_ack", "rejected": [rejected]}
    assert state.read(json.dumps(ack)) == [Rejected("nope", "INVALID_CHANNEL", "no")]
    error = {"type": "error", "code": "RATE_LIMIT_EXCEEDED", "message": "slowly"}
    assert state.read(json.dumps(error)) == [Rejected("", "RATE_LIMIT_EXCEEDED", "slowly")]


def test_what_is_given_back_is_forgotten() -> None:
    """A later subscription has no past."""
    state = greeted(SubscriptionState(["token.A", "global"], last=False))
    state.read(data("token.A", 5, 0))
    assert json.loads(state.forget(["token.A"]))["data"] == {"channels": ["token.A"]}
    assert asked(state) == {"channels": ["global"]}


@given(cuts=st.lists(st.integers(0, 40), max_size=6), repeats=st.integers(0, 5))
def test_joined_over_connections_all_is_heard_once(cuts: list[int], repeats: int) -> None:
    """Wherever connections end, and however many messages a server sends again."""
    state = SubscriptionState(["token.A"], last=False)
    heard: list[int] = []
    for end in [*sorted(cuts), 40]:
        greeted(state)
        since = asked(state).get("since", {}).get("token.A", 0)
        for seq in range(max(1, since + 1 - repeats), end + 1):
            for event in state.read(data("token.A", seq, seq - 1)):
                assert isinstance(event, Message)
                heard.append(event.seq)
    assert heard == list(range(1, 41))
