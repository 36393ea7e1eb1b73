"""The gunicorn worker: gevent-websocket's, with our handshake, our start and our end."""

from __future__ import annotations

import logging
import os
import signal
from types import FrameType
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import LoggingLogAdapter, WSGIServer
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from gunicorn.http.wsgi import base_environ
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import VERSION

from odinws.balance import Balance
from odinws.handover import Handler

_NOTIFY_SECONDS = 1.0
_REQUEST_SECONDS = 1.0  # what HTTP requests under way get when the worker stops


class Worker(GeventWebSocketWorker):  # type: ignore[misc]
    """Serves HTTP and upgrades from one pool of greenlets; open WebSockets are not in it.

    Attributes:
        deployment: what the arbiter made before the fork (set by `pre_fork`).
        slot: this worker's slot on the board (set by `pre_fork`).
    """

    wsgi_handler = Handler
    deployment: Any
    slot: int

    def init_process(self) -> None:
        """Called in the child; patches, builds the application, runs."""
        self._stopping = Event()
        self._interrupted = False
        super().init_process()

    def load_wsgi(self) -> None:
        """Build the services and the application, after the patching."""
        from odinws.app import create_app
        from odinws.services import Services

        self.services = Services(
            self.deployment.settings,
            self.deployment.board,
            self.slot,
            os.getpid(),
            self.deployment.nats_urls,
            on_failure=self._fail,
        )
        self.wsgi = create_app(self.services)

    def run(self) -> None:
        """Serve until told to stop, then drain."""
        services, stopping = self.services, self._stopping
        services.start()
        servers: list[WSGIServer] = []
        balance = Balance(services.board, services.row, servers)
        servers += [self._serve(sock, balance) for sock in self.sockets]
        services.count_requests = lambda: sum(len(server.pool) for server in servers)
        services.row.accepting = 1
        while self.alive:
            self.notify()
            stopping.wait(_NOTIFY_SECONDS)
        services.row.accepting = 0
        for server in servers:
            server.close()
        stops = [gevent.spawn(server.stop, _REQUEST_SECONDS) for server in servers]
        services.drain()
        gevent.joinall(stops)

    def notify(self) -> None:
        """Tell the arbiter that we live; stop if it does not."""
        self.tmp.notify()
        if self.alive and self.ppid != os.getppid():
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

    def _fail(self) -> None:
        """A part ended that must not: better no worker than half of one. The arbiter starts another."""
        self._stop()

    def _serve(self, sock: Any, balance: Balance) -> WSGIServer:
        sock.setblocking(1)
        environ = base_environ(self.cfg)
        environ.update({"wsgi.multithread": True, "SERVER_SOFTWARE": VERSION})
        tls = {"ssl_context": ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        server = self.server_class(
            sock,
            application=self.wsgi,
            spawn=Pool(self.worker_connections),
            log=self.log,
            error_log=LoggingLogAdapter(self.log, logging.INFO),  # of requests that are none: not our errors
            handler_class=self.wsgi_handler,
            environ=environ,
            **tls,
        )
        server.balance = balance
        server.start()
        return server
