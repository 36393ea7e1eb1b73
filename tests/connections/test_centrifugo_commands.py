"""`odinws.connections.centrifugo_commands`: server-side subscriptions, all or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from odinws.access.tokens import Identity
from odinws.connections.centrifugo_commands import CentrifugoCommands
from odinws.connections.limits import ConnectionLimits
from odinws.errors import CommandError, FeedError
from odinws.messages.protocol import Connect, Join
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats


class FakePast:
    """Knows nothing of what was missed, as NATS does not answer."""

    top = ("E", 9)

    def __init__(self) -> None:
        self.subscribed: list[str] = []

    def subscribe(self, conn: Any, channel: str) -> None:
        """Note it."""
        self.subscribed.append(channel)

    def newest(self, conn: Any, channels: Sequence[str]) -> dict[str, Any]:
        """None."""
        return {}

    def reaches(self, since: Mapping[str, int], epoch: str | None) -> set[str]:
        """It can't be said."""
        raise FeedError("NATS is away")


def test_who_can_not_have_all_server_side_subscriptions_has_none() -> None:
    """Else messages would come to a client whose `connect` has failed."""
    identity = Identity("u", None, None, ("token.A", "token.B"))
    settings, past = Settings.from_environ({}), FakePast()

    def at_once(work: Callable[[], object]) -> object:
        return work()

    access: Any = SimpleNamespace(connect=lambda *_: identity, refresh=None)
    fakes: Any = (access, past, None, at_once, None)
    limits = ConnectionLimits.of(settings).for_centrifugo()
    strategy: Any = None
    commands = CentrifugoCommands(settings, limits, strategy, WorkerStats(), *fakes)
    conn: Any = SimpleNamespace(
        identity=identity, is_connected=False, is_ending=lambda _: False, has_failed=lambda _: False
    )
    with pytest.raises(CommandError, match="NATS is away"):
        commands._answer(conn, Connect("", {"token.B": Join("token.B", 3, "E")}), 1)
    assert (past.subscribed, conn.is_connected) == ([], False)
