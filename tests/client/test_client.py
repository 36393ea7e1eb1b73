"""Both clients with servers that misbehave, and with functions of the user that do."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from odinws.client import AsyncClient, Client, Gap, Message, RefusedError, Rejected
from tests.client.peer import ACKNOWLEDGED, MESSAGE, WELCOME, Caller, frame, peer

ROOT = Path(__file__).parents[2]
FIRST = Message("token.A", 1, "t", 5, 1)


def serving(caller: Caller) -> None:
    """As the server does: a message."""
    caller.upgrade()
    caller.tell(WELCOME)
    caller.heard()
    caller.tell(ACKNOWLEDGED, MESSAGE)


def at_second_try(first: Callable[[Caller], None]) -> Callable[[Caller], None]:
    """The first connection goes wrong."""
    return lambda caller: serving(caller) if caller.number else first(caller)


def first_event(client: Client) -> Any:
    """What a client gives first."""
    with client:
        return next(iter(client))


class Stop(Exception):  # noqa: N818
    """Of a test."""


def test_it_needs_nothing_but_websockets() -> None:
    """In an interpreter without the server's packages."""
    program = """
import sys
sys.path.insert(0, sys.argv[1])
class Finder:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("odinws", "websockets"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Finder())
import odinws.client
ours = {name for name in sys.modules if name.startswith("odinws")}
print(*sorted(name for name in ours if not name.startswith("odinws.client")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["odinws", "odinws.close_codes", "odinws.errors"]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("url", ["http://a/ws", "ws:/a", "127.0.0.1:3004", "ws://a:port/ws", "ws://a:70000/"])
def test_a_wrong_url_is_told_at_once(kind: type[Client | AsyncClient], url: str) -> None:
    """One error, before anything is tried."""
    with pytest.raises(ValueError, match="expected ws://") as caught:
        kind(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_channels_are_several(kind: type[Client | AsyncClient]) -> None:
    """A string would be a channel per letter."""
    with pytest.raises(TypeError, match=r"token\.A"):
        kind("ws://a/ws", "token.A")


@pytest.mark.parametrize(
    "data", [frame(b"?"), frame(b"[]"), frame(b"null"), frame(b"\x00", 2), frame(b"{}"), frame(b'{"seq": 1}')]
)
@pytest.mark.parametrize("welcome", [True, False])
def test_what_is_not_the_protocol_ends_the_connection(data: bytes, welcome: bool) -> None:
    """The next one begins after a while; what only has an unknown type is passed over."""

    def broken(caller: Caller) -> None:
        caller.upgrade()
        if welcome:
            caller.tell(WELCOME)
        caller.send(data)
        if data == frame(b"{}") and welcome:
            caller.tell(MESSAGE)

    def noted(seconds: float, why: str) -> None:
        waits.append((seconds, why))
        raise Stop

    waits: list[tuple[float, str]] = []
    with peer(broken) as server:
        client = Client(server.url, on_wait=noted, draw=lambda: 0.0)
        if data == frame(b"{}") and welcome:
            assert first_event(client) == FIRST
            return
        with pytest.raises(Stop):
            first_event(client)
    [(seconds, why)] = waits
    assert seconds == 5
    assert why.startswith("not the protocol: ")


def test_a_redirect_is_a_refusal() -> None:
    """The token stays with the server that it is for."""
    with peer(serving) as other, peer(lambda caller: caller.refuse(302, f"Location: {other.url}")) as first:
        with pytest.raises(RefusedError) as caught:
            first_event(Client(first.url, ["token.A"], token=lambda: "a.b.c"))
        assert caught.value.code == 302
        assert other.calls == 0


def test_a_message_as_large_as_nats_carries_by_default() -> None:
    """What the server puts around it comes on top."""

    def act(caller: Caller) -> None:
        caller.upgrade()
        caller.tell(WELCOME)
        caller.heard()
        caller.tell(ACKNOWLEDGED, MESSAGE | {"data": "x" * (1 << 20)})

    with peer(act) as server:
        assert len(first_event(Client(server.url, ["token.A"])).data) == 1 << 20


def test_what_on_wait_raises_ends_the_iteration() -> None:
    """In the thread, or the task, that iterates."""

    def stop(_: float, why: str) -> None:
        raise Stop(why)

    async def main(url: str) -> None:
        async with AsyncClient(url, on_wait=stop) as client:
            with pytest.raises(Stop, match="refused with 503"):
                await anext(aiter(client))

    with peer(lambda caller: caller.refuse(503)) as server:
        with pytest.raises(Stop, match="refused with 503"):
            first_event(Client(server.url, on_wait=stop))
        asyncio.run(main(server.url))


def test_a_token_that_can_not_be_had_is_asked_for_again() -> None:
    """After a wait whose reason is the exception; `RefusedError` gives up. It may be a coroutine."""

    def fails(error: Exception) -> Callable[[], str]:
        def token() -> str:
            tries.append(0)
            if len(tries) % 2:
                raise error
            return "token"

        return token

    async def gives() -> str:
        return fails(ZeroDivisionError("x"))()

    async def main(url: str) -> None:
        async with AsyncClient(url, ["token.A"], token=gives, on_wait=note, draw=lambda: 0.0) as client:
            assert await anext(aiter(client)) == FIRST

    def note(seconds: float, why: str) -> None:
        waits.append((seconds, why))

    tries: list[int] = []
    waits: list[tuple[float, str]] = []
    with peer(serving) as server:
        for token in (fails(ZeroDivisionError("x")), gives):
            client = Client(server.url, ["token.A"], token=token, on_wait=note, draw=lambda: 0.0)
            assert first_event(client) == FIRST
        asyncio.run(main(server.url))
        assert waits == [(0.0, "ZeroDivisionError('x')")] * 3
        with pytest.raises(RefusedError, match="0: no"):
            first_event(Client(server.url, token=fails(RefusedError(0, "no"))))
        assert server.calls == 3


def test_what_is_no_token_is_never_sent() -> None:
    """It counts as none: the function is asked again, and the wait does not show it."""
    given = iter(["a b", "", "clé", "token"])
    waits: list[str] = []
    with peer(serving) as server:
        client = Client(
            server.url,
            ["token.A"],
            token=lambda: next(given),
            on_wait=lambda _, why: waits.append(why),
            draw=lambda: 0.0,
        )
        assert first_event(client) == FIRST
        assert (waits, server.calls) == (["no token"] * 3, 1)


def test_subscribing_while_there_is_no_connection() -> None:
    """The next connection asks for it, and resumes what was heard."""

    def act(caller: Caller) -> None:
        if caller.number == 1:
            caller.refuse(503, "Retry-After: 1")
            return
        caller.upgrade()
        caller.tell(WELCOME)
        commands.append(caller.heard()["data"])
        if caller.number == 0:
            caller.tell(ACKNOWLEDGED, MESSAGE)
            commands.append(caller.heard()["data"])
            caller.send(frame(b"\x03\xf4; retry_after=0.5", 8))
            return
        caller.tell({**ACKNOWLEDGED, "rejected": [{"channel": "x", "code": "C", "message": "m"}]})

    def waits(seconds: float, _: str) -> None:
        client.subscribe(f"token.{seconds:g}")

    commands: list[dict[str, Any]] = []
    with peer(act) as server:
        client = Client(server.url, ["token.A"], on_wait=waits, draw=lambda: 0.0)
        client.subscribe("token.B")
        with client:
            events = iter(client)
            assert next(events) == FIRST
            client.subscribe("token.C")
            client.unsubscribe("token.B")
            assert next(events) == Rejected("x", "C", "m")
    assert commands[:2] == [{"channels": ["token.A", "token.B"]}, {"channels": ["token.C"]}]
    assert commands[2]["channels"] == ["token.A", "token.C", "token.0.5", "token.1"]
    assert commands[2]["since"] == {"token.A": 1}


def test_a_server_that_never_says_anything_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the welcome, and after it: pings that nobody answers."""

    def mute(caller: Caller) -> None:
        caller.upgrade()
        if caller.number:
            caller.tell(WELCOME)

    def note(_: float, why: str) -> None:
        waits.append(why)
        if len(waits) == 2:
            raise Stop

    monkeypatch.setattr("odinws.client.base.OPEN_SECONDS", 0.5)
    monkeypatch.setattr("odinws.client.base.CHECK_SECONDS", 0.5)
    waits: list[str] = []
    with peer(mute) as server, pytest.raises(Stop):
        first_event(Client(server.url, on_wait=note, draw=lambda: 0.0))
    assert waits == ["TimeoutError()", "closed by this side with 1011 keepalive ping timeout"]


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize(
    ("data", "code"),
    [(frame(b"\xff"), 1007), (frame(b"", 3), 1002)],
)
def test_the_code_of_this_side_is_told(data: bytes, code: int, answered: bool) -> None:
    """A connection that breaks RFC 6455 is ended, and the client comes back, whatever the server answers."""

    def broken(caller: Caller) -> None:
        caller.upgrade()
        caller.tell(WELCOME)
        caller.send(data)
        if answered:
            assert caller.heard() == {}
            caller.send(frame(code.to_bytes(2), 8))

    def noted(seconds: float, why: str) -> None:
        waits.append((seconds, why))
        raise Stop

    waits: list[tuple[float, str]] = []
    with peer(broken) as server, pytest.raises(Stop):
        first_event(Client(server.url, on_wait=noted, draw=lambda: 0.0))
    [(seconds, why)] = waits
    assert seconds == 5
    assert why.startswith(f"closed by this side with {code}")


@pytest.mark.parametrize("answered", [True, False])
def test_a_frame_that_is_too_long_is_told_and_not_asked_for_again(answered: bool) -> None:
    """What was missed is named by channel as soon as the next message shows it."""

    def act(caller: Caller) -> None:
        caller.upgrade()
        caller.tell(WELCOME)
        commands.append(caller.heard()["data"])
        if caller.number:
            caller.tell(ACKNOWLEDGED, MESSAGE | {"seq": 9, "prev": 7}, MESSAGE | {"seq": 12, "prev": 11})
            return
        caller.tell(ACKNOWLEDGED, MESSAGE, MESSAGE | {"data": "x" * 2000})
        if answered:
            assert caller.heard() == {}
            caller.send(frame(b"\x03\xf1", 8))

    waits: list[tuple[float, str]] = []
    commands: list[dict[str, Any]] = []
    with peer(act) as server:
        client = Client(
            server.url,
            ["token.A"],
            last=True,
            max_bytes=1000,
            on_wait=lambda *wait: waits.append(wait),
            draw=lambda: 0.0,
        )
        with client:
            events = iter(client)
            told = [next(events) for _ in range(6)]
            client.subscribe("token.A")
    assert told[:2] == [FIRST, Rejected("", "TOO_BIG", "a frame above 1000 bytes: all up to now is missed")]
    assert told[2:4] == [Gap("token.A", 2, 7, "too_big"), Message("token.A", 9, "t", 5, 1)]
    assert told[4:] == [Gap("token.A", 10, 11, "unknown"), Message("token.A", 12, "t", 5, 1)]
    assert commands == [{"channels": ["token.A"], "last": True}, {"channels": ["token.A"]}]
    [(seconds, why)] = waits
    assert seconds == 5
    assert why.startswith("closed by this side with 1009")


@pytest.mark.parametrize("ending", [4401, 401])
def test_another_token_after_one_that_was_refused(ending: int) -> None:
    """A connection whose token has expired is replaced; so is one that was not to be had with it."""

    def act(caller: Caller) -> None:
        if caller.number:
            serving(caller)
        elif ending == 401:
            caller.refuse(401)
        else:
            caller.upgrade()
            caller.tell(WELCOME)
            caller.send(frame(ending.to_bytes(2) + b"the token has expired", 8))

    given = iter(["first", "second"])
    with peer(act) as server:
        assert (
            first_event(Client(server.url, ["token.A"], token=lambda: next(given), draw=lambda: 0.0)) == FIRST
        )
        assert server.calls == 2


@pytest.mark.parametrize(
    ("tokens", "endings", "code"),
    [
        (["one", "one"], [4401], 4401),
        (["one", "one"], [401], 401),
        (["one", "two"], [401, 401], 401),
        (["one", "two"], [4401, 401], 401),
        ([], [4401], 4401),
    ],
)
def test_no_other_token(tokens: list[str], endings: list[int], code: int) -> None:
    """The same one again, another that is refused too, or no function at all."""

    def act(caller: Caller) -> None:
        ending = endings[caller.number]
        if ending == 401:
            caller.refuse(401)
            return
        caller.upgrade()
        caller.tell(WELCOME)
        caller.send(frame(ending.to_bytes(2), 8))

    given = iter(tokens)
    function = (lambda: next(given)) if tokens else None
    with peer(act) as server:
        with pytest.raises(RefusedError) as refused:
            first_event(Client(server.url, token=function, draw=lambda: 0.0))
        assert refused.value.code == code
        assert server.calls == len(endings)
    assert list(given) == []
