"""The composition root of a worker: concrete classes meet here, after the fork and the patching.

NATS -> NatsFeed -> Hub -> Strategy -> Connection -> socket
"""

from __future__ import annotations

import _socket
import gc
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict
from typing import Any, cast

import gevent
import structlog
from gevent.pywsgi import WSGIServer
from msgspec import UNSET

import strategies
from odinws import logs
from odinws.access.credentials import SUBPROTOCOL
from odinws.admission.balance import Balance, Rebalancing
from odinws.admission.decision import Admission, Admit, UpgradeRequest, Verdict
from odinws.admission.heap import Heap, find_trim
from odinws.admission.load import Sensor, StallWatch
from odinws.assignment import DEFAULT_STRATEGY, Assigner, Assignment
from odinws.close_codes import CloseReason
from odinws.connections.centrifugo import CentrifugoConnection
from odinws.connections.centrifugo_commands import CentrifugoCommands
from odinws.connections.clients import Clients
from odinws.connections.commands import Commands
from odinws.connections.connection import Connection
from odinws.connections.echo import Echo
from odinws.connections.event_stream import EventStream
from odinws.connections.limits import ConnectionLimits
from odinws.debug import greenlets
from odinws.debug.agent import Agent
from odinws.debug.collector import CollectorWatch
from odinws.debug.views import Views
from odinws.fanout.following import Following
from odinws.fanout.hub import Hub
from odinws.fanout.observer import DeliveryObserver, NullObserver
from odinws.fanout.resizing import Resizing
from odinws.fanout.ring import Ring
from odinws.feed.history import PAGE_MESSAGES
from odinws.feed.nats import NatsFeed
from odinws.messages import centrifugo_protobuf
from odinws.messages.centrifugo import CentrifugoFormat
from odinws.messages.event_format import EventFormat, JsonLines, ServerSentEvents
from odinws.messages.json_format import JsonFormat
from odinws.messages.protocol import Position, Rejected, StreamWelcome, Welcome
from odinws.messages.wire_format import BY_SUBPROTOCOL, FormatRegistry
from odinws.monitoring import live_stats
from odinws.monitoring.audit import Audit
from odinws.monitoring.event_recorder import EventRecorder
from odinws.monitoring.reconciliation import Reconciliation
from odinws.monitoring.stats_broadcaster import StatsBroadcaster
from odinws.monitoring.timeline_recorder import TimelineRecorder
from odinws.settings import Settings
from odinws.shared import SharedState
from odinws.shared.shards import CounterOffsets
from strategies.base import Strategy

_FEED_WAIT_SECONDS = 2.0

log = structlog.get_logger("odinws.worker")


class Services:
    """All parts of one worker.

    Args:
        settings: of the server.
        shared: state of the server.
        slot: the worker's slot in the shared state, taken for it before the fork.
        pid: of the worker.
        nats_urls: where NATS is.
        servers: what accepts clients and answers HTTP; filled before the first client is accepted.
        ports: where those listen.
        on_failure: called when a part that must not end has ended.
        is_observed: False: nothing counts, measures or checks what is delivered; to see what that costs.
    """

    def __init__(
        self,
        settings: Settings,
        shared: SharedState,
        slot: int,
        pid: int,
        nats_urls: list[str],
        servers: Sequence[WSGIServer],
        ports: Set[int],
        on_failure: Callable[[], None],
        is_observed: bool = True,
    ) -> None:
        self.settings = settings
        self.shared = shared
        self.slot = slot
        self.stats = shared.workers[slot]
        self.assigner = assigner(settings, self.stats.ordinal)
        self.assignment = self.stats.assignment = self.assigner.assignment
        logs.always(self.assignment.labels())
        self.stats.pid = pid
        log.info("strategy chosen", place=self.stats.ordinal)
        self._on_failure = on_failure
        self._is_observed = is_observed
        self._offsets = CounterOffsets(shared.last_details.get(slot))
        self._parts: list[gevent.Greenlet] = []
        self._servers = servers
        self.balance = Balance(shared, self.stats, servers)
        self._upgrading = 0  # slots taken by upgrades that are no connections yet
        self.admission = Admission(settings, shared, self.stats)
        self.strategy: Strategy[Connection] = strategies.create(
            self.assignment.strategy,
            shards=shared.resizes.requested or settings.num_shards,
            shard_key=settings.shard_key,
        )
        self.limits = ConnectionLimits.of(settings)
        self._welcome_limits = {
            **self.limits.for_welcome(),
            "replay_pages_per_second": settings.replay_rate,
            "replay_page_messages": PAGE_MESSAGES,
        }
        channels = settings.channels
        self.formats = FormatRegistry(
            JsonFormat,
            settings.compression_min_bytes,
            {**BY_SUBPROTOCOL, **centrifugo_protobuf.FORMATS},
            None if channels.compress_all else channels.compresses,
        )
        self.event_formats: dict[type[EventFormat], EventFormat] = {
            kind: kind(lambda: self.hub.epoch) for kind in (ServerSentEvents, JsonLines)
        }
        self.clients = Clients(
            self.limits,
            self.strategy,
            self.stats,
            self.formats.default,
            self._run_commands,
            lambda conn: self.admission.left(conn.peer, conn.identity),
            lambda work: self.hub.before_next_pass(work),
        )
        observer: DeliveryObserver = self.stats if is_observed else NullObserver()
        self.hub = Hub(
            self.strategy,
            observer,
            settings.feed_backlog,
            settings.write_delay_ms / 1000,
            self.formats.default,
            self.welcome,
            Ring(settings.ring_messages, settings.ring_bytes),
        )
        self.feed = NatsFeed(
            settings,
            nats_urls,
            self.stats,
            self.hub.receive,
            lambda: self.hub.backlog,
            shared.nats_cluster,
        )
        self.recovery = Following(settings, self.strategy, self.hub, self.feed, self.stats, self.clients.debt)
        self.broadcaster = StatsBroadcaster(self._figures)
        self.commands: Commands[Connection] = Commands(
            settings,
            self.limits,
            self.strategy,
            self.stats,
            self.admission.refresh,
            self.recovery,
            self.broadcaster,
        )
        self._centrifugo_commands = CentrifugoCommands(
            settings,
            self.clients.centrifugo_limits,
            self.strategy,
            self.stats,
            self.admission,
            self.recovery,
            self.broadcaster,
            self.hub.run_between_passes,
            self.clients.work_for,
        )
        self._stalls = StallWatch(self.stats)
        self._heap = Heap(find_trim())
        self.collector = CollectorWatch(self.stats)
        self.sensor = Sensor(self.stats, self._stalls, self.count_greenlets, self._sampled)
        self.reconciliation = Reconciliation(
            self.clients,
            self.strategy,
            self.stats,
            upgrading=lambda: self._upgrading,
            others=lambda: self.balance.descriptors,
            ports=lambda: ports,
        )
        self.resizing = Resizing(shared, slot, self.strategy, self.hub.run_between_passes)
        views = Views(self.clients, self.strategy, self.hub.slow_passes, self.collector, self.stats)
        self.agent = Agent(shared.name, views)
        self._event_recorder = EventRecorder(self.stats, self.feed.status, shared.event_log)
        self._timeline_recorder = TimelineRecorder(shared, slot, settings.strategy)
        self._audit = Audit(self.clients, self.hub, self.stats)
        self._rebalancing = Rebalancing(shared, self.stats, self.clients, settings.rebalance_rate)

    def start(self) -> None:
        """Start what runs for the life of the worker, and give the feed a moment to come up."""
        # What is there now stays: the collector need not look at its 100,000 objects again and again.
        gc.collect()
        greenlets.remember()
        gc.freeze()
        if self._is_observed:
            self.collector.start()
        self.agent.start()
        for run in (
            self.clients.clock,
            self.clients.reaper,
            self.clients.relief,
            self.clients.ready.run,
            self.hub.run,
            self.feed.run,
            self.sensor.run,
            self._reconcile,
            self._rebalancing.run,
            self.resizing.run,
            self.broadcaster.run,
            self._tell_positions,
        ):
            part = gevent.spawn(run)
            part.link(self._ended)
            self._parts.append(part)
        if self._is_observed:
            self._stalls.start()
        with gevent.Timeout(_FEED_WAIT_SECONDS, False):
            while not self.feed.status.ready:
                gevent.sleep(0.02)

    def admit(self, requested: UpgradeRequest) -> Verdict:
        """Decide on an upgrade. With `Admit` a connection slot is taken: `open` or `give_back` it."""
        return self._entered(self.admission.enter(requested))

    def admit_operator(self, address: str, protocols: str | None) -> Verdict:
        """The same for an upgrade on the admin plane, which has let it in.

        Args:
            protocols: `Sec-WebSocket-Protocol`; None: absent.
        """
        offered = [part.strip(" \t") for part in (protocols or "").split(",")]
        known = next((name for name in offered if name == SUBPROTOCOL or name in BY_SUBPROTOCOL), None)
        return self._entered(self.admission.enter_operator(address, known))

    def _entered(self, verdict: Verdict) -> Verdict:
        if isinstance(verdict, Admit):
            self._upgrading += 1
        return verdict

    def give_back(self, entry: Admit) -> None:
        """Give back a slot whose handshake failed.

        Args:
            entry: what `admit` gave.
        """
        self._upgrading -= 1
        self.admission.left(entry.address, entry.identity)
        SharedState.release(self.stats)
        self.stats.refused_by("handshake")

    def opening(self, entry: Admit, deflate: int, wire_format: str | None = None) -> Opening:
        """How the connection is opened for which `admit` took a slot.

        Args:
            entry: what `admit` gave.
            deflate: the window agreed for compression, in bits; 0: none.
            wire_format: the name of the format; None: that of the subprotocol.
        """
        return Opening(self, entry, deflate, wire_format)

    def open_echo(self, descriptor: int | _socket.socket, early: bytes, entry: Admit, deflate: int) -> None:
        """Open a connection that is not greeted and echoes what it hears."""
        self._upgrading -= 1
        wire_format = self.formats.of(None, deflate)
        self.clients.open(descriptor, entry.address, wire_format, entry.identity, Echo).start(early)

    def open(self, descriptor: int | _socket.socket, opening: Opening) -> Connection:
        """Make a connection of an upgraded socket, in the slot that `admit` took."""
        self._upgrading -= 1
        entry = opening.entry
        conn = self.clients.open(
            descriptor, entry.address, opening.wire_format, entry.identity, opening.kind, opening.client_id
        )
        conn.inspects = entry.inspects
        return conn

    def open_stream(
        self,
        descriptor: int | _socket.socket,
        entry: Admit,
        wire_format: EventFormat,
        client_id: str,
    ) -> EventStream:
        """Make an event stream of the socket of a request, in the slot that `admit` took."""
        self._upgrading -= 1
        conn = self.clients.open(
            descriptor, entry.address, wire_format, entry.identity, EventStream, client_id
        )
        return cast("EventStream", conn)

    def welcome(self, conn: Connection) -> Welcome | StreamWelcome:
        """What a connection is greeted with."""
        if not isinstance(conn, EventStream):
            return self.welcome_of(conn.id)
        position = None if conn.is_joining else self.recovery.position()
        return self.stream_welcome(conn.id, conn.names, (), position)

    def stream_welcome(
        self,
        client_id: str,
        subscribed: Sequence[str],
        rejected: Sequence[Rejected],
        position: Position | None,
    ) -> StreamWelcome:
        """What an event stream is greeted with.

        Args:
            position: where it begins; None: that follows.
        """
        return StreamWelcome(
            client_id=client_id,
            epoch=self.hub.epoch,
            server=f"odinws/{self.slot}",
            heartbeat_seconds=self.limits.heartbeat_seconds,
            subscribed=subscribed,
            rejected=rejected,
            position=UNSET if position is None else str(position),
        )

    def welcome_of(self, client_id: str) -> Welcome:
        """What the connection of that id is greeted with."""
        return Welcome(
            client_id=client_id,
            epoch=self.hub.epoch,
            strategy=self.assignment.strategy,
            variant=self.assignment.variant,
            reason=self.assignment.reason,
            shards=self.strategy.shard_count,
            shard_key=self.settings.shard_key,
            server=f"odinws/{self.slot}",
            heartbeat_seconds=self.limits.heartbeat_seconds,
            limits=self._welcome_limits,
        )

    def drain(self, reason: CloseReason) -> None:
        """Say goodbye to all connections, over `WS_DRAIN_SECONDS`; `WS_STOP_SECONDS` more for the rest."""
        started = time.monotonic()
        count = len(self.clients)
        self.clients.close_all(reason, self.settings.drain_seconds)
        if not self.clients.wait_closed(self.settings.stop_seconds):
            self.clients.abort_all()
        seconds = round(time.monotonic() - started, 3)
        log.info("worker drained", connections=count, reason=reason.label, seconds=seconds)
        self.shared.event_log.add(
            "worker_left",
            f"worker {self.stats.pid} said goodbye to {count} connections in {seconds:.1f} s "
            f"({reason.label})",
        )

    def publish_details(self) -> None:
        """Put what `/stats` tells of this worker in the shared state."""
        shards = [asdict(shard) for shard in self.strategy.shards()]
        self.stats.subscriptions = sum(shard["subscriptions"] for shard in shards)
        self.stats.channels = sum(shard["channels"] for shard in shards)
        self.stats.client_memory_bytes = self.clients.ledger.total
        self.stats.backlog = self.hub.backlog
        self.stats.feed_pending = self.feed.intake.pending
        self.stats.feed_lag_seconds = self.feed.intake.lag_seconds()
        self.stats.flags_broken = bool(self.assigner.problem)
        details: dict[str, Any] = {
            "strategy": self.assignment.strategy,
            "flags_problem": self.assigner.problem,
            "shards": shards,
            "inherited": self._offsets.update(shards),
            "feed": asdict(self.feed.status),
            "backlog": self.hub.backlog,
        }
        self.shared.publish_details(self.slot, details)

    def _run_commands(self, conn: Connection) -> None:
        if isinstance(conn, EventStream):
            self.recovery.follow(conn)
        elif isinstance(conn, CentrifugoConnection):
            self._centrifugo_commands.run(conn)
        else:
            self.commands.run(conn)

    def _tell_positions(self) -> None:
        self.recovery.tell_positions(self.clients.members)

    def _figures(self, whole: bool) -> dict[str, Any]:
        return live_stats.collect(
            self.shared, self.settings, self.slot, self.feed.status, self.admission.state, whole
        )

    def _sampled(self) -> None:
        self.publish_details()
        self.admission.observe()
        now = time.monotonic()
        clients = len(self.clients) + self._count_requests()
        self._heap.look(clients, self.clients.ledger.total, self.admission.state.memory.pressure > 0, now)
        self._event_recorder.record(now)
        if self._is_observed:
            self._timeline_recorder.record(now)
        logs.report_suppressed()

    def _reconcile(self) -> None:
        while True:
            gevent.sleep(self.settings.reconcile_seconds)
            self.reconciliation.run()
            if self._is_observed:
                self._audit.run()

    def count_greenlets(self) -> int:
        """Greenlets of the worker: its parts, HTTP requests, and connections with commands at work."""
        return len(self._parts) + self._count_requests() + self.clients.busy

    def _count_requests(self) -> int:
        return sum(len(server.pool) for server in self._servers)

    def _ended(self, part: gevent.Greenlet) -> None:
        if not isinstance(part.value, gevent.GreenletExit):
            log.critical("a part of the worker ended", part=part.name, error=repr(part.exception))
            self._on_failure()


class Opening:
    """A connection from its admission until it reads. `greet` comes before `take`.

    Attributes:
        entry: what `Services.admit` gave.
        client_id: of the connection.
        kind: the class of the connection.
    """

    __slots__ = ("_epoch", "_services", "client_id", "entry", "kind", "wire_format")

    def __init__(self, services: Services, entry: Admit, deflate: int, wire_format: str | None) -> None:
        self._services = services
        self._epoch = ""
        self.entry = entry
        self.wire_format = services.formats.of(wire_format or entry.subprotocol, deflate)
        is_centrifugo = isinstance(self.wire_format, CentrifugoFormat)
        self.kind = CentrifugoConnection if is_centrifugo else Connection
        self.client_id = services.clients.next_id()

    def greet(self) -> bytes:
        """The frame of the welcome."""
        self._epoch = self._services.hub.epoch
        return self.wire_format.encode(self._services.welcome_of(self.client_id))

    def take(self, descriptor: int | _socket.socket, early: bytes) -> None:
        """Open the connection.

        Args:
            descriptor: of the socket; it has a new owner from here on.
            early: what the client sent behind its handshake.
        """
        services = self._services
        conn = services.open(descriptor, self)
        if services.hub.epoch != self._epoch:  # it changed while the answer was sent
            conn.send_value(services.welcome(conn))
        conn.start(early)


def assigner(settings: Settings, ordinal: int) -> Assigner:
    """Choose for a worker: WS_SHARD_STRATEGY, else the flag in WS_FLAGS_FILE, else the default strategy.

    Args:
        ordinal: of the worker, see `SharedState`.
    """
    if settings.strategy:
        return Assigner(Assignment(settings.strategy, settings.strategy, "explicit"))
    if not settings.flags_file:
        return Assigner(Assignment(DEFAULT_STRATEGY, DEFAULT_STRATEGY, "default"))
    from odinws.rollout.evaluation import FlagAssigner  # 4 MB and 0.1 s that only those pay who use it

    return FlagAssigner(settings.flags_file, settings.environment, ordinal, settings.workers)
