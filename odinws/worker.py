"""The gunicorn worker: gevent-websocket's, with our handshake, our start and our end."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any

import gevent
import structlog
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import LoggingLogAdapter, WSGIServer
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from gunicorn.http.wsgi import base_environ
from gunicorn.sock import ssl_context
from gunicorn.workers import base
from gunicorn.workers.ggevent import VERSION
from gunicorn.workers.workertmp import WorkerTmp

from odinws.access.credentials import redact
from odinws.close_codes import CloseReason
from odinws.http.handover import Handler
from odinws.http.listener import Listener
from odinws.http.queue import RequestQueue
from odinws.logs import clip
from odinws.recycling import RecyclingPolicy
from odinws.scheduling import until_tick
from odinws.shared.memory import unnamed_file

_NOTIFY_SECONDS = 1.0
_RETRY_SECONDS = 1.0  # until the arbiter starts another
_SUCCESSOR_LOOK_SECONDS = 0.1
_ADMIN_REQUESTS = 64  # of the admin plane, at once and in one worker
_REQUEST_SECONDS = 1.0  # what HTTP requests under way get when the worker stops

log = structlog.get_logger("odinws.worker")


class _Heartbeat(WorkerTmp):  # type: ignore[misc]
    """gunicorn's file by whose time of change the arbiter sees that a worker lives, here in memory.

    On a disk a busy one could make a worker look dead, and one that is full ends the arbiter.
    """

    def __init__(self, cfg: Any) -> None:
        self._tmp = unnamed_file()
        os.fchown(self._tmp.fileno(), cfg.uid, cfg.gid)  # of whom the worker will be


base.WorkerTmp = _Heartbeat  # there is no setting for it


class Worker(GeventWebSocketWorker):  # type: ignore[misc]
    """Serves HTTP and upgrades from one pool of greenlets; open WebSockets are not in it.

    Attributes:
        deployment: what the arbiter made before the fork (set by `pre_fork`).
        slot: this worker's slot in the shared state (set by `pre_fork`).
        is_observed: see `Services`.
    """

    wsgi_handler = Handler
    server_class = Listener
    deployment: Any
    slot: int
    is_observed = True

    def init_process(self) -> None:
        """Called in the child; patches, builds the application, runs.

        gunicorn ends the whole server for a worker that does not boot. At the start that is right. Later
        others still serve, such as those of before a reload: then another one is tried.
        """
        self._stopping = Event()
        self._interrupted = False
        self._queue = RequestQueue()
        shared = self.deployment.shared
        try:
            super().init_process()
        except Exception as error:
            if shared.starts <= self.deployment.settings.workers:
                raise
            self.log.exception("Exception in worker process")
            why = f"worker {self.pid} failed: {type(error).__name__}: {error}"
            shared.tell_start(f"{type(error).__name__}: {error}")
            shared.event_log.add("worker_killed", why)
            time.sleep(_RETRY_SECONDS)
            sys.exit(1)

    def patch(self) -> None:
        """As gunicorn's; from then on the log has what a greenlet raises."""
        super().patch()
        gevent.get_hub().print_exception = _log_exception

    def load_wsgi(self) -> None:
        """Build the services and the application, after the patching."""
        from odinws.app import create_admin_app, create_app
        from odinws.errors import SettingsError
        from odinws.services import Services

        self._servers: list[WSGIServer] = []  # made in `run`: they need the application
        self._admin = socket.socket(fileno=self.deployment.admin.take())
        try:
            token = self.deployment.settings.read_admin_token()
            self.services = Services(
                self.deployment.settings,
                self.deployment.shared,
                self.slot,
                os.getpid(),
                self.deployment.nats_urls,
                self._servers,
                {sock.getsockname()[1] for sock in (*self.sockets, self._admin) if _has_port(sock)},
                on_failure=self._stop,  # no worker is better than half of one: the arbiter starts another
                is_observed=self.is_observed,
            )
        except SettingsError as error:
            # They were good when the server started. gunicorn would end it all if the application failed.
            self.log.critical("No worker without its keys: %s", error)
            self.deployment.shared.tell_start(str(error))
            gevent.sleep(_RETRY_SECONDS)
            os._exit(1)
        self.wsgi = create_app(self.services)
        self._admin_wsgi = create_admin_app(self.services, token)

    def run(self) -> None:
        """Serve until told to stop, then drain."""
        services, stopping = self.services, self._stopping
        services.start()
        self._servers += map(self._serve_public, self.sockets)
        self._servers.append(self._serve_admin())
        services.stats.accepting = 1
        services.shared.tell_start("")
        services.shared.event_log.add("worker_started", f"worker {self.pid} accepts, in slot {self.slot}")
        began, settings = time.monotonic(), services.settings
        recycling = RecyclingPolicy(
            settings.worker_max_age_seconds, settings.worker_max_memory, random.random()
        )
        while self.alive:
            self.notify()
            self.deployment.say_open()
            stopping.wait(until_tick(_NOTIFY_SECONDS))
            end = services.assigner.outdated() or recycling.end(
                time.monotonic() - began, services.stats.rss_bytes
            )
            if end and self.alive:
                self._ask_for_successor(end)
        self._wait_for_successor()
        self._leave()
        services.stats.drained = 1

    def _ask_for_successor(self, why: str) -> None:
        """One worker at a time: the arbiter starts another one, and this one leaves when that accepts."""
        if self.services.shared.claim_leaving():
            self.log.info("Worker is replaced (pid: %s): %s", self.pid, why)
            self.services.stats.recycling = 1  # see Deployment.child_exit
            os.kill(self.ppid, signal.SIGTTIN)
            self._stop()

    def _wait_for_successor(self) -> None:
        """A worker that is replaced serves on until a successor accepts and no other one is leaving.

        From then on newcomers are the successor's: here they would soon have to move again.
        """
        shared, stats = self.services.shared, self.services.stats
        while (shared.is_outdated(stats) or stats.recycling) and not self._ends() and self._has_arbiter():
            if shared.has_successor(stats):
                stats.accepting = 0
                for server in self._servers:
                    server.stop_accepting()
                if shared.claim_leaving():
                    return
            self.tmp.notify()
            gevent.sleep(_SUCCESSOR_LOOK_SECONDS)

    def _leave(self) -> None:
        """Accept no more, say goodbye, and tell the arbiter meanwhile that we live."""
        services = self.services
        stays = self._has_arbiter() and not self._ends()
        reason = CloseReason.RESTART if stays else CloseReason.GOING_AWAY
        services.stats.accepting = 0
        services.admission.going_away = not stays
        for server in self._servers:
            server.close()
        stops = [gevent.spawn(server.stop, _REQUEST_SECONDS) for server in self._servers]
        draining = gevent.spawn(services.drain, reason)
        while not draining.ready():
            self.tmp.notify()
            draining.join(_NOTIFY_SECONDS)
        gevent.joinall(stops)

    def _ends(self) -> bool:
        """Whether the whole server ends. A terminal's Ctrl-C may reach a worker before the arbiter's word."""
        return self._interrupted or self.services.shared.is_stopping

    def _has_arbiter(self) -> bool:
        return bool(self.ppid == os.getppid())

    def notify(self) -> None:
        """Tell the arbiter that we live; stop if it does not."""
        self.tmp.notify()
        if self.alive and not self._has_arbiter():
            self.log.info("Parent changed, shutting down: %s", self)
            self._stop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: drain."""
        self._stop()

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT and SIGQUIT: drain too; a second SIGINT ends at once.

        Ctrl-C sends SIGINT to the workers as well as to the arbiter, whose SIGQUIT then follows.
        """
        if sig == signal.SIGINT:
            if self._interrupted:
                os._exit(0)
            self._interrupted = True
        self._stop()

    def init_signals(self) -> None:
        """As gunicorn's; SIGHUP of a closing terminal is the arbiter's business."""
        super().init_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _stop(self) -> None:
        self.alive = False
        self._stopping.set()

    def _serve_public(self, sock: Any) -> WSGIServer:
        tls = {"ssl_context": ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        return self._serve(sock, self.wsgi, self.worker_connections, self._queue, tls)

    def _serve_admin(self) -> WSGIServer:
        """Its queue and pool are its own: neither plane can keep the other waiting."""
        is_encrypted = self.cfg.is_ssl and not self.deployment.settings.admin_is_local
        tls = {"ssl_context": ssl_context(self.cfg)} if is_encrypted else {}
        return self._serve(self._admin, self._admin_wsgi, _ADMIN_REQUESTS, RequestQueue(), tls)

    def _serve(
        self, sock: Any, application: Any, requests: int, queue: RequestQueue, tls: dict[str, Any]
    ) -> WSGIServer:
        sock.setblocking(1)
        environ = base_environ(self.cfg)
        environ.update({"wsgi.multithread": True, "SERVER_SOFTWARE": VERSION})
        server = self.server_class(
            sock,
            application=application,
            spawn=Pool(requests),
            log=self.log,
            error_log=_ErrorLog(self.log, logging.INFO),  # of requests that are none: not our errors
            handler_class=self.wsgi_handler,
            environ=environ,
            **tls,
        )
        server.balance, server.queue, server.stats = self.services.balance, queue, self.services.stats
        server.start()
        return server


class _ErrorLog(LoggingLogAdapter):  # type: ignore[misc]
    """As gevent's; what it says may be a client's words, so all of it is one kind of line."""

    def write(self, msg: str) -> None:
        self._logger.log(self._level, "%s", redact(clip(msg.rstrip())))


def _log_exception(context: Any, kind: Any, error: Any, trace: Any) -> None:
    """In place of gevent's own report, which goes to stderr as it is."""
    log.error("a greenlet failed", context=repr(context), exc_info=(kind, error, trace))


def _has_port(sock: Any) -> bool:
    return isinstance(sock.getsockname(), tuple)
