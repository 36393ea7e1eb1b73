"""The edge: HTTP paths of `docs/protocol.md`, and the way into `/ws`."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request, send_from_directory
from werkzeug.exceptions import MethodNotAllowed

from odinws import deflate, metrics, report
from odinws.admission import Refuse
from odinws.errors import HandshakeError
from odinws.handover import UPGRADE, Upgraded
from odinws.services import Services

routes = Blueprint("odinws", __name__)

_PAGE = Path(__file__).with_name("dashboard")
# Not by the machine's table of types, which may know others or none.
_PAGE_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PAGE_HEADERS = {
    "Cache-Control": "no-cache",  # ask each time; mostly answered by 304
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


def _services() -> Services:
    services: Services = current_app.extensions["odinws"]
    return services


@routes.route("/ws", websocket=True)
def websocket() -> Response:
    """The way in."""
    services = _services()
    return _enter(services, services.open)


def echo() -> Response:
    """The way into `/echo`, a route only of a server under test (WS_TEST_ECHO)."""
    services = _services()
    return _enter(services, services.open_echo)


def _enter(services: Services, take: Callable[[int, bytes, str, int], None]) -> Response:
    """Admit, shake hands, hand the socket over. What is returned after that goes nowhere."""
    verdict = services.admit()
    if isinstance(verdict, Refuse):
        response = _error(verdict.status, verdict.reason, verdict.message)
        response.headers["Retry-After"] = str(verdict.retry_after_seconds)
        return response
    offers = request.headers.get("Sec-WebSocket-Extensions", "") if services.settings.compression else ""
    agreement = deflate.negotiate(offers)
    try:
        upgraded: Upgraded = request.environ[UPGRADE](agreement.header)
    except HandshakeError as error:
        services.give_back()
        response = _error(error.status, "handshake", error.message)
        response.headers.extend(dict(error.headers))
        return response
    except OSError:  # the client left before it was greeted
        services.give_back()
        return Response()
    except BaseException:  # the slot is given back whatever ends the request, also a kill
        services.give_back()
        raise
    take(upgraded.descriptor, upgraded.early, request.remote_addr or "", agreement.bits)
    return Response(status=HTTPStatus.SWITCHING_PROTOCOLS)


@routes.get("/ws")
def websocket_expected() -> Response:
    """A plain GET: say what is spoken here."""
    response = _error(426, "upgrade_required", "this is a WebSocket endpoint: send an upgrade request")
    response.headers["Upgrade"] = "websocket"
    response.headers["Connection"] = "Upgrade"
    return response


@routes.get("/")
@routes.get("/dashboard/<name>")
def dashboard(name: str = "index.html") -> Response:
    """The live page and what it is made of."""
    response = send_from_directory(_PAGE, name, mimetype=_PAGE_TYPES.get(Path(name).suffix))
    response.headers.update(_PAGE_HEADERS)
    return response


@routes.get("/health")
def health() -> Response:
    """How the whole server is. 200 unless unhealthy."""
    services = _services()
    services.sensor.sample()
    body = report.health(services.board, services.settings, services.feed.status)
    response = jsonify(body)
    response.status_code = 503 if body["status"] == "unhealthy" else 200
    return response


@routes.get("/livez")
def live() -> Response:
    """Liveness: this worker answers. Never fails for load."""
    return jsonify({"status": "alive"})


@routes.get("/readyz")
def ready() -> Response:
    """Readiness: send clients here, or not."""
    services = _services()
    reasons = report.not_ready(services.board, services.settings, services.feed.status)
    response = jsonify({"status": "not ready" if reasons else "ready", "reasons": reasons})
    response.status_code = 503 if reasons else 200
    return response


@routes.get("/stats")
def stats() -> Response:
    """The whole server and each worker, in detail."""
    services = _services()
    services.sensor.sample()
    return jsonify(report.stats(services.board, services.settings, services.slot))


@routes.get("/metrics")
def prometheus() -> Response:
    """The whole server, for Prometheus."""
    services = _services()
    services.sensor.sample()
    body, content_type = metrics.exposition(services.board, services.settings)
    return Response(body, content_type=content_type)


@routes.app_errorhandler(404)
def unknown_path(_: Any) -> Response:
    """Say what there is."""
    paths = sorted(str(rule) for rule in current_app.url_map.iter_rules())
    return _error(404, "not_found", f"no such path; there are {', '.join(dict.fromkeys(paths))}")


@routes.app_errorhandler(405)
def wrong_method(error: MethodNotAllowed) -> Response:
    """Say what is allowed."""
    response = _error(405, "method_not_allowed", f"{request.method} is not allowed here, GET is")
    response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
    return response


def _error(status: int, code: str, message: str) -> Response:
    response = jsonify({"error": code, "message": message})
    response.status_code = status
    return response
