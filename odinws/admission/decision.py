"""The way in: who asks, may they, is there room. One verdict per upgrade request.

draining -> upgrade rates -> origin -> token -> connections of the client -> ResourceGuard -> connection slot

What costs least comes first. `ResourceGuard` is the name under which users know the guard in the log.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from odinws import logs
from odinws.access import credentials
from odinws.access.errors import AccessError, LimitError
from odinws.access.peer import client_address, is_loopback, network_of
from odinws.access.rates import Limit, Rates
from odinws.access.tokens import ANONYMOUS, ChannelToken, Identity
from odinws.admission import authentication, load
from odinws.admission.guard import Decision, Guard, Limits, State, retry_after, smooth
from odinws.close_codes import CloseReason
from odinws.messages.wire_format import BY_SUBPROTOCOL
from odinws.settings import Settings
from odinws.shared import SharedState
from odinws.shared.state import Occupant
from odinws.shared.worker_stats import WorkerStats

_DRAIN_RETRY_SECONDS = (1, 3)
_EASY_REFUSALS = 100.0  # per second of the whole server: 0.08 of a core (python -m tests.protection ramp)
_MOST_RETRY_SECONDS = 300
_LOOK_SECONDS = 0.5

log = structlog.get_logger("odinws.admission.decision")


class UpgradeRequest(NamedTuple):
    """What an upgrade request brings; headers that are absent are None.

    Attributes:
        peer: address of the other end of the socket.
        query: of the URL, still encoded.
        is_local: it comes from a program on this machine, see `peer.is_local`.
        tokens: that were found where an upgrade has none.
        same_origin: a browser says that the page is of this server, so it need not name its origin.
        formats: further subprotocols that are known where it goes.
        token_may_follow: it needs no token yet, see `Admission.connect`.
    """

    peer: str
    forwarded_for: str | None = None
    origin: str | None = None
    authorization: str | None = None
    protocols: str | None = None
    query: str = ""
    is_local: bool = False
    same_origin: bool = False
    tokens: Sequence[str] = ()
    formats: Collection[str] = BY_SUBPROTOCOL
    token_may_follow: bool = False


class Admit(NamedTuple):
    """The upgrade may go on: a connection slot is taken.

    Attributes:
        address: of the client, for logs.
        subprotocol: for the answer; None: it names none.
        inspects: it may watch the server's figures: it came by the admin plane.
    """

    identity: Identity
    address: str
    subprotocol: str | None
    inspects: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """The upgrade is refused before the handshake.

    Attributes:
        status: HTTP status.
        reason: label of the counter, one of `REFUSALS`.
        message: for people; nothing of a token.
        retry_after_seconds: when to come back, 1 to 300; None: the same request will be refused again.
        headers: that the answer must carry besides.
    """

    status: int
    reason: str
    message: str
    retry_after_seconds: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


Verdict = Admit | Refuse


class Admission:
    """Decides for one worker on figures of the whole server.

    Args:
        settings: of the server.
        shared: state of the server.
        stats: of this worker.
        clock: monotonic seconds.
        now: seconds since 1970.
        draw: 0 to 1 at random.

    Attributes:
        going_away: the server leaves, and refuses all.

    Raises:
        SettingsError: a key can't be used.
    """

    def __init__(
        self,
        settings: Settings,
        shared: SharedState,
        stats: WorkerStats,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.going_away = False
        self._settings = settings
        self._shared = shared
        self._stats = stats
        self._slot = shared.workers.index(stats)
        self._clock = clock
        self._now = now
        self._draw = draw
        self._guard = Guard(limits(settings))
        self._tokens = authentication.tokens(settings, now())
        self._rates = Rates(_limit(settings.upgrade_rate, settings.upgrade_burst, settings.workers))
        self._server_rate = _limit(settings.server_upgrade_rate, settings.server_upgrade_burst)
        self._logged = logs.OncePerSecond()
        self._refusals = 0  # for load, since the last look
        self._refusal_rate = 0.0  # per second of the whole server, smoothed
        self._looked = clock()

    @property
    def state(self) -> State:
        """What the guard saw last, as health shows it."""
        return self._guard.state

    def observe(self) -> None:
        """Look at what the server uses; with every sample."""
        now = self._clock()
        elapsed = now - self._looked
        if elapsed > _LOOK_SECONDS:
            rate = self._settings.workers * self._refusals / elapsed
            self._refusal_rate = smooth(self._refusal_rate, rate, elapsed)
            self._refusals, self._looked = 0, now
        self._guard.observe(load.measure(self._shared, self._settings), now)

    def enter(self, asked: UpgradeRequest) -> Verdict:
        """Decide on a client. With `Admit` a connection slot is taken: fill it, or give it back."""
        address = client_address(asked.peer, asked.forwarded_for, self._settings.believed_proxies)
        if is_loopback(address) and not asked.is_local:
            address = f"{address} (forwarded)"  # no address: nothing that is for this machine is for it
        verdict = self._decide(asked, address)
        if isinstance(verdict, Refuse):
            self._stats.refused_by(verdict.reason)
        return verdict

    def left(self, address: str, identity: Identity) -> None:
        """A connection for which `enter` took a slot has ended, or there is none after all."""
        self._shared.vacate(self._slot, self._occupants(address, identity.subject))

    def enter_operator(self, address: str, subprotocol: str | None) -> Verdict:
        """Decide on a client of the admin plane, which may have everything, under whatever load.

        Args:
            subprotocol: for the answer.
        """
        clients = [client._replace(limit=math.inf) for client in self._occupants(address, None)]
        self._shared.occupy(self._slot, clients)
        if self.going_away:
            refusal = self._leaving()
        elif self._shared.reserve(self._stats, self._settings.max_connections):
            return Admit(ANONYMOUS, address, subprotocol, inspects=True)
        else:
            full = self._guard.full(self._settings.max_connections, self._draw())
            refusal = Refuse(503, full.reason, full.text, full.retry_after_seconds)
        self._shared.vacate(self._slot, clients)
        self._stats.refused_by(refusal.reason)
        return refusal

    def connect(self, old: Identity, token: str) -> Identity:
        """The identity of an open connection that had to bring no token before.

        Args:
            token: "": it brings none; then the request must have had one, or nobody needs one.

        Raises:
            AccessError: as `refresh`, or a token is missing.
        """
        if self._tokens is None or (not token and old.subject is not None):
            return old
        return self.refresh(old, token) if token else self._tokens.identify(None, self._now())

    def of_channel(self, token: str) -> ChannelToken | None:
        """What a token of a channel says; None: nobody needs one. Raises AccessError."""
        return None if self._tokens is None else self._tokens.of_channel(token, self._now())

    def refresh(self, old: Identity, token: str) -> Identity:
        """The identity of an open connection that brings another token; the old one where nobody needs one.

        Raises:
            AccessError: the token is no good, or of somebody else or who has too many connections.
        """
        if self._tokens is None:
            return old
        new = self._tokens.refresh(old, token, self._now())
        if old.subject is None and self._shared.occupy(self._slot, self._subject(new.subject)):
            message = "the token's subject has as many connections as it may have"
            raise LimitError(CloseReason.FORBIDDEN, message)
        return new

    def _occupants(self, address: str, subject: str | None) -> list[Occupant]:
        """Those whose connections are limited."""
        limit = self._settings.connections_per_address
        if not limit or self._exempts(address):
            return self._subject(subject)
        return [Occupant("address", network_of(address), limit), *self._subject(subject)]

    def _exempts(self, address: str) -> bool:
        return self._settings.upgrade_exempt_loopback and is_loopback(address)

    def _subject(self, subject: str | None) -> list[Occupant]:
        limit = self._settings.connections_per_subject
        return [Occupant("subject", subject, limit)] if subject is not None and limit else []

    def _decide(self, asked: UpgradeRequest, address: str) -> Verdict:
        if self.going_away:
            return self._leaving()
        wait_seconds = self._rate(address)
        if wait_seconds:
            message = "too many upgrades in a short time"
            self._say("rate", "too many upgrades", address=address)
            return Refuse(429, "rate", message, math.ceil(wait_seconds * (1 + self._draw())))
        without = asked.same_origin or not self._settings.origin_required
        if not self._settings.allowed_origins.allow(asked.origin, without=without):
            self._say("origin", "origin refused", address=address, origin=(asked.origin or "")[:100])
            return Refuse(403, "origin", "this origin may not connect; WS_ORIGINS lists those that may")
        try:
            if self._tokens is None:
                found, identity = credentials.without_token(asked.protocols, asked.formats), ANONYMOUS
            else:
                found = credentials.find(
                    asked.authorization, asked.protocols, asked.query, asked.formats, asked.tokens
                )
                if found.token is None and asked.token_may_follow:
                    identity = ANONYMOUS
                else:
                    identity = self._tokens.identify(found.token, self._now())
        except AccessError as error:
            self._say(error.reason.label, "client refused", address=address, problem=error.message)
            return Refuse(error.status, error.reason.label, error.message, headers=error.headers)
        clients = self._occupants(address, identity.subject)
        if (most := self._shared.occupy(self._slot, clients)) is not None:
            self._say(most.kind, "too many connections", address=address, of=most.kind, limit=most.limit)
            message = f"your {most.kind} has {most.limit} connections, and may have no more"
            return Refuse(429, most.kind, message, self._wait(retry_after(1.0, self._draw())))
        decision = self._take_slot()
        if decision.admitted:
            return Admit(identity, address, found.subprotocol)
        self._shared.vacate(self._slot, clients)
        return Refuse(503, decision.reason, decision.text, self._wait(decision.retry_after_seconds))

    def _leaving(self) -> Refuse:
        low, high = _DRAIN_RETRY_SECONDS
        wait = low + round((high - low) * self._draw())
        return Refuse(503, "draining", "server is going away", wait)

    def _wait(self, seconds: int) -> int:
        """Refusing costs CPU too: the more are refused each second, the later they come back."""
        self._refusals += 1
        return min(_MOST_RETRY_SECONDS, round(seconds * max(1.0, self._refusal_rate / _EASY_REFUSALS)))

    def _rate(self, address: str) -> float:
        """Seconds to wait; 0: now."""
        if self._exempts(address):
            return 0.0
        now = self._clock()
        wait = self._rates.admit(address, now)
        if wait or self._server_rate is None:
            return wait
        return self._shared.spend_upgrade(self._server_rate, now)

    def _take_slot(self) -> Decision:
        guard, limit = self._guard, self._settings.max_connections
        connections = self._shared.connections()
        decision = guard.decide(connections, self._clock(), self._draw())
        if decision.admitted and not self._shared.reserve(self._stats, limit):
            decision = guard.full(limit, self._draw())
        if not decision.reason:
            return decision
        message = "Connection rejected by ResourceGuard"
        if decision.admitted:
            self._stats.would_refuse(decision.reason)
            message = "Connection would be rejected by ResourceGuard"
        self._say(
            f"{decision.reason} {decision.admitted}",
            message,
            current_connections=connections,
            max_connections=limit,
            reason=decision.text,
        )
        return decision

    def _say(self, kind: str, message: str, **facts: object) -> None:
        """Log a refusal, at most once a second of each kind, and how many were not logged since."""
        more = self._logged.suppressed(kind, self._clock())
        if more is not None:
            log.warning(message, **facts, **({"not_logged": more} if more else {}))


def limits(settings: Settings) -> Limits:
    """What the guard goes by."""
    return Limits(
        max_connections=settings.max_connections,
        max_greenlets=settings.max_greenlets,
        cpu_percent=settings.cpu_reject_threshold,
        memory_percent=settings.memory_reject_threshold,
        memory_hard_percent=settings.memory_hard_threshold,
        hub_lag_ms=settings.hub_lag_threshold_ms,
        workers=settings.workers,
        start_rate=settings.admission_start_rate,
        floor_rate=settings.admission_floor_rate,
        dry_run=settings.admission_dry_run,
    )


def _limit(rate: float, burst: int, workers: int = 1) -> Limit | None:
    return Limit(rate, burst).among(workers) if rate else None
