"""`odinws.debug.agent`: one question to all workers, whatever becomes of one of them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, cast

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from odinws.debug.agent import Agent, Answer, Question, ask
from odinws.debug.views import Views


class FakeViews:
    """Views that say what they were asked, wait, or fail."""

    def __init__(self) -> None:
        self.let_go = Event()

    def run(self, verb: str, options: Mapping[str, Any]) -> Any:
        """As `Views.look`."""
        if verb == "gc":
            raise ZeroDivisionError("a defect")
        if verb == "profile":
            self.let_go.wait()
        return {"verb": verb, **options}


@pytest.fixture
def views() -> FakeViews:
    """What the worker shows."""
    return FakeViews()


@pytest.fixture
def name() -> str:
    """Of a server."""
    return f"odinws-test-{secrets.token_hex(8)}"


@pytest.fixture
def agent(name: str, views: FakeViews) -> Iterator[Agent]:
    """The agent of this process."""
    agent = Agent(name, cast("Views", views))
    agent.start()
    yield agent
    agent.close()


def one(name: str, question: Question) -> Answer:
    """What this process answers."""
    return ask(name, [os.getpid()], question, 0.0)[os.getpid()]


@pytest.mark.usefixtures("agent")
def test_questions_are_answered(name: str) -> None:
    """With the options; a worker that is not there costs its own part."""
    answers = ask(name, [os.getpid(), 1], Question("locks", {"seconds": 0.5}), 0.0)
    assert answers[os.getpid()] == Answer(result={"verb": "locks", "seconds": 0.5})
    assert answers[1].error.startswith("the worker starts, or has ended: ")


@pytest.mark.usefixtures("agent")
def test_a_defect_costs_the_answer(name: str) -> None:
    """And not the worker."""
    assert one(name, Question("gc", {})).error == "ZeroDivisionError: a defect"
    assert one(name, Question("shards", {})).result == {"verb": "shards"}


@pytest.mark.usefixtures("agent")
def test_a_dear_look_excludes_another(name: str, views: FakeViews) -> None:
    """Its asker may be dead, and the turn of the server with it; a cheap one goes on."""
    first = gevent.spawn(one, name, Question("profile", {}))
    gevent.sleep(0.05)
    assert one(name, Question("heap", {})).error == "a profile is under way in this worker"
    assert one(name, Question("shards", {})).error == ""
    views.let_go.set()
    assert first.get().result == {"verb": "profile"}
    assert one(name, Question("heap", {})).error == ""


@pytest.mark.usefixtures("agent")
def test_nonsense_is_refused(name: str) -> None:
    """What is no question is answered with what is wrong."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"\0{name}-{os.getpid()}")
        sock.sendall(b"{")
        sock.shutdown(socket.SHUT_WR)
        assert b"error" in sock.recv(4096)


def test_a_silent_worker_is_not_waited_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not yield: it is named, after a time."""
    monkeypatch.setattr("odinws.debug.agent._PATIENCE_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0{name}-5")
        sock.listen(1)
        assert ask(name, [5], Question("gc", {}), 0.1)[5].error == "no answer within 0.2 s"


@pytest.mark.usefixtures("agent")
def test_other_users_are_turned_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever it is, by the word of the kernel; and nobody else's worker is believed."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr("odinws.debug.agent._CREDENTIALS", Other())
    assert "a process of user 54321" in one(name, Question("shards", {})).error


class Other:
    """Credentials of another user."""

    size = 12

    @staticmethod
    def unpack(_: bytes) -> tuple[int, int, int]:
        """As a struct's."""
        return 1, 54321, 1


def test_a_name_that_is_taken(name: str, agent: Agent) -> None:
    """The worker runs on, and can't be looked into."""
    second = Agent(name, cast("Views", FakeViews()))
    second.start()
    second.close()
    assert one(name, Question("shards", {})).error == ""
    agent.close()
    assert one(name, Question("shards", {})).error.startswith("the worker starts, or has ended")
