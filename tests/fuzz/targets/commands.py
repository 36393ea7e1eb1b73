r"""Commands of one connection. An input is their texts, with the record separator (1E) between them.

Each gets exactly one answer: valid JSON, of a known type, of bounded size, without the token it may have
brought. The channels held are valid, not too many, and those that the strategy knows. The connection
stays.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import strategies
from odinws.access.channels import DEFAULT
from odinws.access.keys import Secret
from odinws.access.tokens import Tokens
from odinws.connections.commands import Commands
from odinws.connections.connection import Connection
from odinws.connections.limits import ConnectionLimits
from odinws.errors import CommandError
from odinws.messages.json_format import decode_command
from odinws.messages.protocol import ReplayComplete
from odinws.monitoring.stats_broadcaster import StatsBroadcaster
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats
from strategies import Strategy
from tests.access.material import NOW, SECRET
from tests.fakes import FakeConnection
from tests.fuzz.targets.base import assert_brief, assert_nothing_of

SEPARATOR = b"\x1e"

_MAX_SUBSCRIPTIONS = 4
_MAX_ANSWER_BYTES = 512 + 2 * _MAX_SUBSCRIPTIONS * 512  # 80 characters of a channel, and why it is refused
_ANSWERS = {
    "subscription_ack",
    "unsubscription_ack",
    "pong",
    "authenticated",
    "replay_complete",
    "error",
}
_SETTINGS = Settings.from_environ(
    {
        "WS_MAX_SUBSCRIPTIONS": str(_MAX_SUBSCRIPTIONS),
        "WS_MAX_ERRORS": "100000",
        "WS_COMMAND_BURST": "100",
    }
)
_tokens = Tokens([Secret(SECRET)])


class _NoHistory:
    """Nothing was published before; who asks is subscribed all the same."""

    def __init__(self, strategy: Strategy[Connection]) -> None:
        self._strategy = strategy

    def subscribe(self, conn: Connection, channel: str) -> bool:
        """Subscribe."""
        return self._strategy.subscribe(conn, channel)

    def resume(self, conn: Connection, since: Mapping[str, int], epoch: str | None) -> None:
        """Subscribe."""
        self.latest(conn, list(since))

    def latest(self, conn: Connection, channels: Sequence[str]) -> None:
        """Subscribe."""
        for channel in channels:
            self._strategy.subscribe(conn, channel)

    def replay(self, conn: Connection, channel: str, first: int, last: int | None) -> ReplayComplete:
        """None."""
        return ReplayComplete(channel, first, last or 0, 0)


def check(data: bytes) -> str:
    """Carry all of them out, in order."""
    texts = data.split(SEPARATOR)
    for text in texts:
        _decode(text)
    return _check_answers([text.decode(errors="replace").encode() for text in texts])


def read(data: bytes) -> int:
    """Carry all of them out; the answers are charged."""
    conn, _ = _carry_out(data.split(SEPARATOR))
    return sum(map(len, conn.sent))


def _decode(text: bytes) -> None:
    """Also what is no UTF-8, which a connection would not pass on."""
    try:
        decode_command(text)
    except CommandError as error:
        assert_brief(error.message, 300)


def _carry_out(texts: list[bytes]) -> tuple[FakeConnection, Strategy[Connection]]:
    strategy: Strategy[Connection] = strategies.create("sync-dict")
    commands: Commands[Connection] = Commands(
        _SETTINGS,
        ConnectionLimits.of(_SETTINGS),
        strategy,
        WorkerStats(),
        lambda old, token: _tokens.refresh(old, token, NOW),
        _NoHistory(strategy),
        StatsBroadcaster(lambda _: {}),
        lambda: 1000.0,
    )
    conn = FakeConnection("c-1")
    strategy.add(conn.real)
    conn.commands = deque(texts)
    commands.run(conn.real)
    return conn, strategy


def _check_answers(texts: list[bytes]) -> str:
    conn, strategy = _carry_out(texts)
    assert conn.closed is None
    assert conn.done == 1
    answers = conn.messages
    assert len(answers) == len(conn.sent) == len(texts)
    for text, frame, answer in zip(texts, conn.sent, answers, strict=True):
        assert len(frame) <= _MAX_ANSWER_BYTES, f"{len(frame)} bytes answer {len(text)}"
        assert answer["type"] in _ANSWERS
        if token := _token(text):
            assert_nothing_of(token, json.dumps(answer, ensure_ascii=False))
    held = conn.channels
    assert len(held) <= _MAX_SUBSCRIPTIONS
    assert all(DEFAULT.valid(channel) for channel in held)
    assert sum(shard.subscriptions for shard in strategy.shards()) == len(held)
    return " ".join(sorted({f"{answer['type']}:{answer.get('code', '')}" for answer in answers}))


def _token(text: bytes) -> str:
    """The token of an `authenticate` that can be read; else ""."""
    try:
        command: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    match command:
        case {"type": "authenticate", "data": {"token": str(token)}}:
            return token
    return ""
