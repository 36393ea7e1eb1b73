"""Executes the commands of Centrifugo's SDKs, as far as they differ from the native ones.

An SDK subscribes to its channels one by one, mostly all of them in one frame, and expects each answer within
seconds, whatever there is to be sent of the past. So the subscriptions of a frame that ask for something of
the past are decided on together, then all are answered, and a greenlet of the connection sends what was
missed: pages are shared, and commands are answered meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol, cast

from msgspec.structs import replace

from odinws.access.errors import AccessError, ExpiredError, LimitError
from odinws.access.patterns import is_wildcard
from odinws.access.tokens import ChannelToken, Identity
from odinws.close_codes import CloseReason
from odinws.connections import commands
from odinws.connections.centrifugo import CentrifugoConnection
from odinws.connections.commands import Commands, StatsWatchers
from odinws.connections.connection import Connection, State
from odinws.connections.limits import ConnectionLimits
from odinws.errors import CommandError, FeedError, FrameError
from odinws.messages import protocol
from odinws.messages.protocol import (
    Authenticate,
    AuthenticateChannel,
    Command,
    Connect,
    Connected,
    Error,
    Heartbeat,
    Join,
    Joined,
    Left,
    Message,
    Outgoing,
    Past,
    Pong,
    Read,
    Rejected,
    Renewed,
    Unsubscribe,
    UnsubscriptionAck,
)
from odinws.scheduling import Slice, next_iteration
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats
from strategies.base import Strategy

MAX_READ = 300  # messages in one answer, as Centrifugo's own limit

_JOINS = 1024  # that are decided on together, as they share what is read of the past
_YIELD_EVERY = 32
# A client does no wrong by these: it is to try again, or to fetch a token.
_FORGIVEN = frozenset({"RATE_LIMIT_EXCEEDED", "UNAVAILABLE", "TOKEN_EXPIRED"})


Problem = CommandError | AccessError


class History(commands.History, Protocol):
    """Past messages, see `Recovery`."""

    @property
    def top(self) -> tuple[str, int]:
        """Epoch, and the latest sequence that was handed out."""

    def between_passes(self, work: Callable[[], None]) -> None:
        """Do something once no pass is under way, before there is another one."""

    def reaches(self, since: Mapping[str, int], epoch: str | None) -> set[str]:
        """Of which channels nothing is missing after a sequence of each."""

    def newest(self, conn: Connection, channels: Sequence[str]) -> dict[str, Message]:
        """The newest messages of channels."""

    def read(self, conn: Connection, channel: str, since: int | None, most: int) -> list[Message] | None:
        """Messages after a sequence; None: they are not complete."""

    def resume(
        self,
        conn: Connection,
        since: Mapping[str, int],
        epoch: str | None,
        wanted: set[str] | None = None,
    ) -> None:
        """Subscribe to channels that are wanted, and send everything after the sequence of each."""


class Access(Protocol):
    """What says who a client is, see `Admission`."""

    def connect(self, old: Identity, token: str) -> Identity:
        """The identity of a connection that brings its token, or "", only now; raises AccessError."""

    def refresh(self, old: Identity, token: str) -> Identity:
        """The identity by a new token; raises AccessError."""

    def of_channel(self, token: str) -> ChannelToken | None:
        """What a channel's token says; None: nobody needs one; raises AccessError."""


class _Place(NamedTuple):
    """How a subscription begins.

    Attributes:
        since: it is resumed from here; None: what comes from now on.
        recovered: whether this is all that the client missed; None: it has asked for nothing.
        reason: why it is not recovered, as of a gap.
    """

    since: int | None = None
    recovered: bool | None = None
    messages: Sequence[Message] = ()
    reason: str = ""


class CentrifugoCommands(Commands[CentrifugoConnection]):
    """Executes the commands of a worker's connections at the Centrifugo endpoint.

    Args:
        between_passes: executes something while no pass is under way, and waits for it.
        work_for: has a greenlet work for a connection beside its commands.
        access: says who clients are.

    The others are those of `Commands`.
    """

    def __init__(
        self,
        settings: Settings,
        limits: ConnectionLimits,
        strategy: Strategy[Connection],
        stats: WorkerStats,
        access: Access,
        history: History,
        watchers: StatsWatchers,
        between_passes: Callable[[Callable[[], object]], object],
        work_for: Callable[[CentrifugoConnection, Callable[[CentrifugoConnection], object]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(settings, limits, strategy, stats, access.refresh, history, watchers, clock)
        self._access = access
        self._past = history
        self._between_passes = between_passes
        self._work_for = work_for

    def _read(self, conn: CentrifugoConnection, payload: bytes) -> None:
        """Execute all commands of a frame: subscriptions that follow each other together."""
        joins: list[tuple[Join, int]] = []
        try:
            for count, (command, tag) in enumerate(conn.wire_format.decode(payload), 1):
                if count % _YIELD_EVERY == 0:
                    next_iteration()
                if count > 1:
                    conn.wait_for_room()
                if conn.state is not State.OPEN:
                    return
                if isinstance(command, Join) and conn.is_connected:
                    joins.append((command, cast("int", tag)))
                    if len(joins) % _YIELD_EVERY == 0:
                        conn.decide_on(len(joins))
                    if len(joins) < (_YIELD_EVERY if _begins_anew(command) else _JOINS):
                        continue
                self._join(conn, joins)
                joins = []
                if not isinstance(command, Join) or not conn.is_connected:
                    self._execute(conn, protocol.Request(command, tag))
            self._join(conn, joins)
        except FrameError as error:
            conn.close(error.reason, error.message)
        finally:
            if conn.deciding:
                conn.decide_on(0)

    def _answer(self, conn: CentrifugoConnection, command: Command, tag: object) -> Outgoing | None:
        if isinstance(command, Connect):
            return self._connect(conn, command, tag)
        if isinstance(command, Heartbeat):
            return Pong(0)
        if not conn.is_connected:
            raise FrameError(CloseReason.PROTOCOL, "connect comes first")
        if isinstance(command, Unsubscribe):
            return self._leave_one(conn, command.channels[0])
        if isinstance(command, Read):
            return self._read_past(conn, command)
        if isinstance(command, Authenticate):
            return self._renew(conn, command)
        if isinstance(command, AuthenticateChannel):
            return self._renew_channel(conn, command)
        return super()._answer(conn, command, tag)

    def _failed(self, conn: CentrifugoConnection, error: CommandError | AccessError) -> Outgoing:
        if error.code not in _FORGIVEN:
            return super()._failed(conn, error)
        conn.spend(1)  # these are answered without end
        return Error(error.code, error.message)

    # -- who it is ---------------------------------------------------------------------------------

    def _connect(self, conn: CentrifugoConnection, command: Connect, tag: object) -> Connected | None:
        if conn.is_connected:
            raise FrameError(CloseReason.PROTOCOL, "connected already")
        identity = self._identified(lambda: self._access.connect(conn.identity, command.token))
        if identity is not conn.identity:
            conn.identify(identity)
        joins = [
            replace(command.since.get(name, Join(name)), or_fails=False)
            for name in identity.server_side
            if self._channels.carries(name)
        ]
        if joins:
            self._connect_with(conn, joins, tag)
            return None
        conn.is_connected = True
        return self._connected(conn, ())

    def _connected(self, conn: CentrifugoConnection, joined: Sequence[Joined]) -> Connected:
        return Connected(conn.id, self._limits.heartbeat_seconds, _seconds_left(conn), joined)

    def _connect_with(self, conn: CentrifugoConnection, joins: Sequence[Join], tag: object) -> None:
        """Answer with server-side subscriptions; nothing of theirs comes before the answer."""
        epoch, places = self._places(conn, joins)
        begun: list[tuple[Join, _Place]] = []
        for join in joins:
            place = places[join.channel]
            if isinstance(place, CommandError | AccessError):
                raise place
            begun.append((join, place))

        def enter() -> None:
            now, last = self._past.top
            if now != epoch:
                raise CommandError("UNAVAILABLE", "the stream has just been replaced")
            joined, resumed = [], {}
            for join, place in begun:
                if place.since is None:
                    self._past.subscribe(conn, join.channel)
                else:
                    resumed[join.channel] = place.since
                seq = last if place.since is None else place.since
                joined.append(Joined(join.channel, epoch, seq, place.recovered, place.messages))
                self._count_missed(place)
            conn.is_connected = True
            conn.server_side = frozenset(join.channel for join in joins)
            conn.send_value(self._connected(conn, joined), tag)
            for name, since in resumed.items():
                if conn.expect(name, since):
                    self._work_for(conn, self._send_missed)

        self._between_passes(enter)

    def _identified(self, ask: Callable[[], Identity]) -> Identity:
        try:
            return ask()
        except ExpiredError as error:
            raise CommandError("TOKEN_EXPIRED", error.message) from None
        except LimitError as error:
            raise FrameError(CloseReason.TOO_MANY, error.message) from None
        except AccessError as error:
            raise FrameError(CloseReason.INVALID_TOKEN, error.message) from None

    def _renew(self, conn: CentrifugoConnection, command: Authenticate) -> Renewed:
        identity = self._identified(lambda: self._refresh(conn.identity, command.token))
        conn.identify(identity)
        for channel in conn.subscriptions:
            if self._refusal(conn, channel) is not None:
                self._leave(conn, channel)
                conn.send_value(Left(channel))
        return Renewed(conn.id, _seconds_left(conn))

    def _renew_channel(self, conn: CentrifugoConnection, command: AuthenticateChannel) -> Renewed:
        if not conn.holds(command.channel):
            raise CommandError("FORBIDDEN", "not subscribed")
        expires_at = self._grant(conn, command.channel, command.token)
        return Renewed("", None if expires_at is None else expires_at - time.time())

    def _grant(self, conn: CentrifugoConnection, channel: str, token: str) -> float | None:
        """Allow a channel by its own token; returns when that expires, seconds since 1970."""
        try:
            found = self._access.of_channel(token)
        except ExpiredError as error:
            raise CommandError("TOKEN_EXPIRED", error.message) from None
        except AccessError as error:
            raise CommandError("FORBIDDEN", error.message) from None
        if found is None:
            return None
        if found.channel != channel or found.subject != conn.identity.subject:
            raise FrameError(CloseReason.INVALID_TOKEN, "the token is of another channel or subject")
        conn.granted = {} if conn.granted is None else conn.granted
        conn.granted[channel] = found.expires_at
        return found.expires_at

    def _refusal(self, conn: CentrifugoConnection, channel: str) -> Rejected | None:
        """Why a client may not have a channel; None: it may, also by the channel's own token."""
        problem = self._channels.refusal(conn.identity, channel)
        if problem is None or problem.code != "FORBIDDEN":
            return problem
        is_granted = channel in conn.identity.server_side or channel in (conn.granted or ())
        return None if is_granted and self._channels.carries(channel) else problem

    # -- subscriptions -----------------------------------------------------------------------------

    def _join(self, conn: CentrifugoConnection, joins: Sequence[tuple[Join, int]]) -> None:
        """Decide on subscriptions, answer each, and have sent what was missed."""
        if not joins:
            return
        self._stats.totals.commands += len(joins)
        problems = self._problems(conn, [join for join, _ in joins])
        if conn.state is not State.OPEN:
            return
        wanted = [join for (join, _), problem in zip(joins, problems, strict=True) if problem is None]
        epoch, places = self._places(conn, wanted)
        pause = Slice()
        for (join, tag), problem in zip(joins, problems, strict=True):
            pause.yield_if_over()
            if conn.state is not State.OPEN:
                return
            place = problem or places[join.channel]
            enter = partial(self._enter, conn, join, place, epoch, tag)
            try:
                if isinstance(place, _Place) and place.since is None:
                    self._past.between_passes(
                        enter
                    )  # else of the one under way some might come, and some not
                else:
                    enter()
            except (CommandError, AccessError) as error:
                conn.send_value(self._failed(conn, error), tag)
        if conn.errors >= self._limits.max_errors:
            conn.close(CloseReason.POLICY, f"{conn.errors} bad commands")
        if conn.deciding:
            conn.decide_on(0)

    def _enter(
        self, conn: CentrifugoConnection, join: Join, place: _Place | Problem, epoch: str, tag: object
    ) -> None:
        """Subscribe as decided on, and answer. Nothing comes before the answer: nothing switches between."""
        if isinstance(place, CommandError | AccessError):
            raise place
        if conn.state is not State.OPEN:
            return
        channel, since = join.channel, place.since
        if since is None:
            self._past.subscribe(conn, channel)
        now, last = self._past.top
        if now != epoch:
            self._strategy.unsubscribe(conn, channel)
            raise CommandError("UNAVAILABLE", "the stream has just been replaced")
        expires_at = (conn.granted or {}).get(channel)
        seconds = None if expires_at is None else expires_at - time.time()
        seq = last if since is None else since
        conn.send_value(Joined(channel, epoch, seq, place.recovered, place.messages, seconds), tag)
        if since is not None and conn.expect(channel, since):
            self._work_for(conn, self._send_missed)
        self._count_missed(place)

    def _count_missed(self, place: _Place) -> None:
        if place.reason:
            self._stats.recovered(place.reason)
            self._stats.count_gaps((place.reason,), 1)

    def _problems(self, conn: CentrifugoConnection, joins: Sequence[Join]) -> list[Problem | None]:
        """Why subscriptions are refused, for each while the connection is open; None: it is not."""
        found: list[Problem | None] = []
        held = conn.subscriptions
        count, new = len(held), set[str]()
        wildcards = sum(map(is_wildcard, held))
        for index, join in enumerate(joins, 1):
            if index % _YIELD_EVERY == 0:
                next_iteration()
                if conn.state is not State.OPEN:
                    break
            conn.subscribes_anew = conn.subscribes_anew or join.subscribes_anew
            try:
                self._check_rate(conn)
                conn.spend(1)
                self._check(conn, join)
                if join.channel in new or conn.holds(join.channel):
                    raise CommandError("ALREADY_SUBSCRIBED", "already subscribed")
                self._check_counts(join.channel, count + len(new), wildcards)
                new.add(join.channel)
                wildcards += is_wildcard(join.channel)
                found.append(None)
            except (CommandError, AccessError) as error:
                found.append(error)
        return found

    def _check_counts(self, channel: str, count: int, wildcards: int) -> None:
        limits, problem = self._limits, None
        if count >= limits.max_subscriptions:
            problem = protocol.too_many(channel, limits.max_subscriptions)
        elif is_wildcard(channel) and wildcards >= limits.max_wildcards:
            problem = protocol.too_many_wildcards(channel, limits.max_wildcards)
        if problem is not None:
            raise CommandError(problem.code, problem.message)

    def _check(self, conn: CentrifugoConnection, join: Join) -> None:
        if join.token:
            self._grant(conn, join.channel, join.token)
        problem = self._refusal(conn, join.channel)
        if problem is not None:
            raise CommandError(problem.code, problem.message)

    def _places(
        self, conn: CentrifugoConnection, joins: Sequence[Join]
    ) -> tuple[str, dict[str, _Place | Problem]]:
        """The epoch, and how subscriptions begin in it, by channel."""
        if any(conn.is_ending(join.channel) for join in joins):
            self._past.between_passes(_nothing)
        epoch, _ = self._past.top
        if epoch == "none":
            problem = CommandError("UNAVAILABLE", "NATS is not there yet")
            return epoch, {join.channel: problem for join in joins}
        found: dict[str, _Place | Problem] = {join.channel: _Place() for join in joins}
        newest = [join for join in joins if self._wants_newest(join)]
        found.update(self._with_newest(conn, newest, epoch))
        resumed = [join for join in joins if join.since is not None and not self._wants_newest(join)]
        self._stats.totals.returned += bool(resumed)
        for theirs in {join.epoch for join in resumed}:
            found.update(self._resumed(conn, [join for join in resumed if join.epoch == theirs], epoch))
        return epoch, found

    def _wants_newest(self, join: Join) -> bool:
        """Whether the newest message is all there is to be had of what was missed."""
        keep = self._channels.keep_of(join.channel)
        return keep != "none" and (join.newest or (keep == "newest" and join.since is not None))

    def _resumed(
        self, conn: CentrifugoConnection, joins: Sequence[Join], epoch: str
    ) -> dict[str, _Place | Problem]:
        """Those that bring a position of one epoch."""
        since = {join.channel: join.since or 0 for join in joins}
        theirs = joins[0].epoch
        try:
            reached = self._past.reaches(since, theirs)
        except FeedError as error:
            problem = CommandError("UNAVAILABLE", str(error))
            return dict.fromkeys(since, problem)
        reason = "expired" if theirs in (None, epoch) else "epoch"
        found: dict[str, _Place | Problem] = {}
        for join in joins:
            has_failed = conn.has_failed(join.channel)
            if join.channel in reached and not has_failed:
                found[join.channel] = _Place(join.since, True)
            elif join.or_fails:
                found[join.channel] = CommandError("UNRECOVERABLE", "not all messages since then can be had")
            else:
                found[join.channel] = _Place(None, False, (), reason)
        return found

    def _with_newest(
        self, conn: CentrifugoConnection, joins: Sequence[Join], epoch: str
    ) -> dict[str, _Place | Problem]:
        """Those that begin with the newest message, unless the client has it."""
        try:
            newest = self._past.newest(conn, [join.channel for join in joins])
        except FeedError as error:
            return {join.channel: CommandError("UNAVAILABLE", str(error)) for join in joins}
        found: dict[str, _Place | Problem] = {}
        for join in joins:
            recovered = None if join.since is None else True
            message = newest.get(join.channel)
            has_it = join.since is not None and join.epoch in (None, epoch)
            if message is None:
                found[join.channel] = _Place(None, recovered)
            elif has_it and message.seq <= (join.since or 0):
                found[join.channel] = _Place(message.seq, recovered)
            else:
                found[join.channel] = _Place(message.seq, recovered, (message,))
        return found

    def _send_missed(self, conn: CentrifugoConnection) -> None:
        """Resume what is to be resumed, until there is no more; in a greenlet of its own."""
        while conn.state is State.OPEN and (found := conn.next_missed()) is not None:
            since, wanted = found
            self._past.resume(conn, since, self._past.top[0], wanted)

    def _leave_one(self, conn: CentrifugoConnection, channel: str) -> UnsubscriptionAck:
        """Always a success: to an error an SDK reconnects."""
        self._leave(conn, channel)
        return UnsubscriptionAck([channel], len(conn.channels))

    def _leave(self, conn: CentrifugoConnection, channel: str) -> bool:
        conn.forget(channel)
        (conn.granted or {}).pop(channel, None)
        return self._strategy.unsubscribe(conn, channel)

    # -- history -----------------------------------------------------------------------------------

    def _read_past(self, conn: CentrifugoConnection, command: Read) -> Past:
        problem = self._refusal(conn, command.channel)
        if problem is not None:
            raise CommandError(problem.code, problem.message)
        epoch, seq = self._past.top
        if epoch == "none":
            raise CommandError("UNAVAILABLE", "NATS is not there yet")
        if command.epoch is not None and command.epoch != epoch:
            raise CommandError("UNRECOVERABLE", "the position is of another life of the stream")
        most = MAX_READ if command.limit is None else min(command.limit, MAX_READ)
        if not most:
            return Past(command.channel, epoch, seq)
        keep = self._channels.keep_of(command.channel)
        if keep == "none" or (keep == "newest" and not command.backwards):
            raise CommandError("NOT_AVAILABLE", f"past messages of this channel are not kept: {keep}")
        try:
            if command.backwards:
                found: list[Message] | None = self._read_newest(conn, command, most)
            else:
                found = self._past.read(conn, command.channel, command.since, most)
        except FeedError as error:
            raise CommandError("UNAVAILABLE", str(error)) from None
        if found is None:
            raise CommandError("UNRECOVERABLE", "not all messages since then can be had")
        return Past(command.channel, epoch, max(seq, found[-1].seq if found else 0), found)

    def _read_newest(self, conn: CentrifugoConnection, command: Read, most: int) -> list[Message]:
        if most > 1 or command.since is not None or is_wildcard(command.channel):
            raise CommandError("NOT_AVAILABLE", "backwards there is only the newest message of a channel")
        return list(self._past.newest(conn, [command.channel]).values())


def _seconds_left(conn: CentrifugoConnection) -> float | None:
    """Until the token expires."""
    expires_at = conn.identity.expires_at
    return None if expires_at is None else expires_at - time.time()


def _begins_anew(join: Join) -> bool:
    """Whether nothing is read for it."""
    return join.since is None and not join.newest


def _nothing() -> None:
    """Only the wait counts."""
