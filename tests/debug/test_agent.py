"""`odinws.debug.agent`: one question to all workers, whatever becomes of one of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
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

    def look(self, verb: str, options: Mapping[str, Any]) -> Any:
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
def agent(tmp_path: Path, views: FakeViews) -> Iterator[Agent]:
    """The agent of this process."""
    agent = Agent(tmp_path, cast("Views", views))
    agent.start()
    yield agent
    agent.close(last=False)


def one(directory: Path, question: Question) -> Answer:
    """What this process answers."""
    return ask(directory, [os.getpid()], question, 0.0)[os.getpid()]


@pytest.mark.usefixtures("agent")
def test_questions_are_answered(tmp_path: Path) -> None:
    """With the options; a worker that is not there costs its own part."""
    answers = ask(tmp_path, [os.getpid(), 1], Question("locks", {"seconds": 0.5}), 0.0)
    assert answers[os.getpid()] == Answer(result={"verb": "locks", "seconds": 0.5})
    assert answers[1].error.startswith("the worker starts, or has ended: ")


@pytest.mark.usefixtures("agent")
def test_a_defect_costs_the_answer(tmp_path: Path) -> None:
    """And not the worker."""
    assert one(tmp_path, Question("gc", {})).error == "ZeroDivisionError: a defect"
    assert one(tmp_path, Question("shards", {})).result == {"verb": "shards"}


@pytest.mark.usefixtures("agent")
def test_a_dear_look_excludes_another(tmp_path: Path, views: FakeViews) -> None:
    """Its asker may be dead, and the turn of the server with it; a cheap one goes on."""
    first = gevent.spawn(one, tmp_path, Question("profile", {}))
    gevent.sleep(0.05)
    assert one(tmp_path, Question("heap", {})).error == "a profile is under way in this worker"
    assert one(tmp_path, Question("shards", {})).error == ""
    views.let_go.set()
    assert first.get().result == {"verb": "profile"}
    assert one(tmp_path, Question("heap", {})).error == ""


@pytest.mark.usefixtures("agent")
def test_nonsense_is_refused(tmp_path: Path) -> None:
    """What is no question is answered with what is wrong."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / f"{os.getpid()}.sock"))
        sock.sendall(b"{")
        sock.shutdown(socket.SHUT_WR)
        assert b"error" in sock.recv(4096)


def test_a_silent_worker_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not yield: it is named, after a time."""
    monkeypatch.setattr("odinws.debug.agent._PATIENCE_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "5.sock"))
        sock.listen(1)
        assert ask(tmp_path, [5], Question("gc", {}), 0.1)[5].error == "no answer within 0.2 s"


def test_the_last_one_removes_the_directory(tmp_path: Path) -> None:
    """Not before the others are gone, and only where the arbiter can't."""
    directory = tmp_path / "server"
    directory.mkdir()
    (directory / "turn").touch()
    other = directory / "1.sock"
    other.touch()
    for last, remains in ((False, True), (True, True), (True, False)):
        agent = Agent(directory, cast("Views", FakeViews()))
        agent.start()
        agent.close(last=last)
        assert directory.exists() == remains
        if last:
            other.unlink(missing_ok=True)
