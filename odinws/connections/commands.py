"""Executes clients' commands: rate limit, validation, subscription, answer.

The commands of one connection run in order, in a greenlet that ends when none is left. It may wait for a lock
of the strategy; no other connection waits with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from odinws.access.errors import AccessError
from odinws.access.patterns import is_wildcard
from odinws.access.rates import step
from odinws.access.tokens import Identity
from odinws.close_codes import CloseReason
from odinws.connections.connection import Connection, State
from odinws.connections.limits import WORK_OF_COMMAND, ConnectionLimits
from odinws.errors import CommandError, FeedError, FrameError
from odinws.messages import protocol
from odinws.messages.protocol import (
    STATS_CHANNEL,
    Authenticate,
    Authenticated,
    Command,
    Error,
    Heartbeat,
    Outgoing,
    Pong,
    Rejected,
    Replay,
    ReplayComplete,
    ReplayIncomplete,
    Request,
    Subscribe,
    SubscriptionAck,
    Unsubscribe,
    UnsubscriptionAck,
)
from odinws.scheduling import next_iteration
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats
from strategies.base import Strategy

_YIELD_EVERY = 32

C = TypeVar("C", bound=Connection)


class History(Protocol):
    """Subscriptions, with past messages or without, see `Recovery`."""

    def subscribe(self, conn: Connection, channel: str) -> bool:
        """Subscribe to a channel or a wildcard; False if it is subscribed already, or the connection left."""

    def resume(self, conn: Connection, since: Mapping[str, int], epoch: str | None) -> None:
        """Subscribe to channels, and send everything after the sequence of each."""

    def latest(self, conn: Connection, channels: Sequence[str]) -> None:
        """Subscribe to channels, and send the newest message of each."""

    def replay(
        self, conn: Connection, channel: str, first: int, last: int | None
    ) -> ReplayComplete | ReplayIncomplete:
        """Send `first` to `last`; returns the answer to the command."""


class StatsWatchers(Protocol):
    """The subscribers of the server's stats, see `StatsBroadcaster`."""

    def add(self, conn: Connection) -> bool:
        """Subscribe a connection; False if it may not see the stats."""

    def discard(self, conn: Connection) -> bool:
        """End its subscription; False if there was none."""


class Commands(Generic[C]):
    """Executes the commands of a worker's connections.

    Args:
        limits: of each connection.
        refresh: returns the identity by a connection's new token; raises AccessError.
        history: sends past messages.
        watchers: the subscribers of the server's stats.
    """

    def __init__(
        self,
        settings: Settings,
        limits: ConnectionLimits,
        strategy: Strategy[Connection],
        stats: WorkerStats,
        refresh: Callable[[Identity, str], Identity],
        history: History,
        watchers: StatsWatchers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._strategy = strategy
        self._stats = stats
        self._refresh = refresh
        self._history = history
        self._watchers = watchers
        self._clock = clock
        self._channels = settings.channels
        self._limits = limits

    def run(self, conn: C) -> None:
        """Execute `conn.commands` until none is left or the connection is not open any more.

        Answers that the client does not read bound what it may ask: its commands wait with them.
        """
        done = 0
        while conn.commands and conn.state is State.OPEN:
            if not conn.has_room:
                conn.commands_later()
                return
            self._read(conn, conn.commands[0])
            conn.command_done()
            done += 1
            if done % _YIELD_EVERY == 0:
                next_iteration()
        conn.commands_done()

    def _read(self, conn: C, payload: bytes) -> None:
        """Execute all commands in one message of the client."""
        try:
            for count, request in enumerate(conn.wire_format.decode(payload)):
                if count and count % _YIELD_EVERY == 0:
                    next_iteration()
                if count:
                    conn.wait_for_room()
                if conn.state is not State.OPEN:
                    return
                self._execute(conn, request)
        except FrameError as error:
            conn.close(error.reason, error.message)

    def _execute(self, conn: C, request: Request) -> None:
        self._stats.totals.commands += 1
        try:
            self._check_rate(conn)
            if isinstance(request.command, CommandError):
                raise request.command
            answer = self._answer(conn, request.command, request.tag)
        except (CommandError, AccessError) as error:
            answer = self._failed(conn, error)
        if answer and conn.send_value(answer, request.tag) and conn.errors >= self._limits.max_errors:
            conn.close(CloseReason.POLICY, f"{conn.errors} bad commands")

    def _answer(self, conn: C, command: Command, tag: object) -> Outgoing | None:
        """Execute a command; returns the answer, or None if it was sent already.

        Raises:
            CommandError, AccessError: it failed.
            FrameError: the connection must close.
        """
        if isinstance(command, Subscribe):
            return self._subscribe(conn, command, tag)
        if isinstance(command, Unsubscribe):
            return self._unsubscribe(conn, command)
        if isinstance(command, Heartbeat):
            return Pong(int(time.time() * 1000))
        if isinstance(command, Authenticate):
            return self._authenticate(conn, command)
        if isinstance(command, Replay):
            return self._replay(conn, command)
        raise CommandError("UNKNOWN_TYPE", "this endpoint has no such command")

    def _failed(self, conn: C, error: CommandError | AccessError) -> Outgoing:
        """The answer to a command that failed, which is counted."""
        self._count_error(conn)
        return Error(error.code, error.message)

    def _count_error(self, conn: C) -> None:
        conn.errors += 1
        self._stats.totals.command_errors += 1

    def _check_rate(self, conn: C) -> None:
        limit = self._limits.commands
        conn.allowance, wait = step(conn.allowance, self._clock(), limit)
        conn.spend(0, WORK_OF_COMMAND)
        if wait:
            raise CommandError("RATE_LIMIT_EXCEEDED", f"more than {limit.per_second:g} commands/s")

    def _subscribe(self, conn: C, command: Subscribe, tag: object) -> SubscriptionAck | None:
        self._check_count(command.channels)
        conn.spend(len(command.channels))
        since = command.since or {}
        self._stats.totals.returned += bool(since)
        later: list[str] = []  # subscribed after the acknowledgement, together with their past messages
        subscribed: list[str] = []
        rejected: list[Rejected] = []
        for index, channel in enumerate(dict.fromkeys(command.channels), 1):
            if index % _YIELD_EVERY == 0:
                conn.charge()
                next_iteration()
                if conn.state is not State.OPEN:
                    return None
            if channel == STATS_CHANNEL:
                if self._watchers.add(conn):
                    subscribed.append(channel)
                else:
                    rejected.append(protocol.stats_not_allowed())
                continue
            problem = self._channels.refusal(conn.identity, channel)
            if problem is None and channel not in conn.channels:
                if len(conn.channels) + len(later) >= self._limits.max_subscriptions:
                    problem = protocol.too_many(channel, self._limits.max_subscriptions)
                elif is_wildcard(channel) and _wildcards(conn, later) >= self._limits.max_wildcards:
                    problem = protocol.too_many_wildcards(channel, self._limits.max_wildcards)
                elif command.last or channel in since:
                    later.append(channel)
                else:
                    self._history.subscribe(conn, channel)
            if problem is None:
                subscribed.append(channel)
            else:
                rejected.append(problem)
        if rejected:
            self._count_error(conn)
        ack = SubscriptionAck(subscribed, len(conn.channels) + len(later), rejected)
        if not later:
            return ack
        conn.send_value(ack, tag)
        if resumed := {channel: since[channel] for channel in later if channel in since}:
            self._history.resume(conn, resumed, command.epoch)
        if newest := [channel for channel in later if channel not in since]:
            self._history.latest(conn, newest)
        return None

    def _unsubscribe(self, conn: C, command: Unsubscribe) -> UnsubscriptionAck:
        self._check_count(command.channels)
        conn.spend(len(command.channels))
        gone = [c for c in dict.fromkeys(command.channels) if self._leave(conn, c)]
        return UnsubscriptionAck(gone, len(conn.channels))

    def _leave(self, conn: C, channel: str) -> bool:
        if channel == STATS_CHANNEL:
            return self._watchers.discard(conn)
        return self._strategy.unsubscribe(conn, channel)

    def _authenticate(self, conn: C, command: Authenticate) -> Authenticated:
        identity = self._refresh(conn.identity, command.token)
        conn.identify(identity)
        lost = [channel for channel in conn.channels if not self._channels.allows(identity, channel)]
        for channel in lost:
            self._strategy.unsubscribe(conn, channel)
        expires_at = identity.expires_at
        expires_at_ms = None if expires_at is None else int(expires_at * 1000)
        return Authenticated(identity.subject, expires_at_ms, lost)

    def _check_count(self, channels: list[str]) -> None:
        """Bound the channels: an answer names each, and must not be much larger than the command."""
        if not channels:
            raise CommandError("INVALID_FIELD", "expected at least one channel at data.channels")
        most = 2 * self._limits.max_subscriptions
        if len(channels) > most:
            message = f"expected at most {most} channels at data.channels, not {len(channels)}"
            raise CommandError("INVALID_FIELD", message)

    def _replay(self, conn: C, command: Replay) -> ReplayComplete | ReplayIncomplete:
        problem = self._channels.refusal(conn.identity, command.channel)
        if problem is not None:
            raise CommandError(problem.code, problem.message)
        if (keep := self._channels.keep_of(command.channel)) != "all":
            message = f"past messages of this channel are not kept: {keep}"
            raise CommandError("NOT_KEPT", message)
        if (command.since is None) == (command.start is None):
            raise CommandError("INVALID_FIELD", "expected either since or from in data")
        first = command.start if command.start is not None else (command.since or 0) + 1
        try:
            return self._history.replay(conn, command.channel, max(1, first), command.end)
        except FeedError as error:
            raise CommandError("UNAVAILABLE", str(error)) from None


def _wildcards(conn: Connection, later: list[str]) -> int:
    """How many wildcards a connection has, or will have."""
    return sum(map(is_wildcard, conn.channels)) + sum(map(is_wildcard, later))
