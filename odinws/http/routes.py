"""The HTTP paths of the public port, and what it shares with the admin plane: the page, probes, upgrades."""

from __future__ import annotations

import _socket
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request, send_from_directory
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import MethodNotAllowed

from odinws.access.headers import page_headers
from odinws.access.peer import is_local
from odinws.admission.decision import Admit, Refuse, UpgradeRequest, Verdict
from odinws.errors import HandshakeError
from odinws.http.handover import UPGRADE, Upgrade, check_handshake
from odinws.messages import deflate
from odinws.messages.centrifugo_protobuf import FORMATS
from odinws.messages.wire_format import BY_SUBPROTOCOL
from odinws.monitoring import report
from odinws.services import Services

routes = Blueprint("public", __name__)
common = Blueprint("common", __name__)

_MOVED = ("stats", "debug", "metrics")  # first parts of paths
ADMIN = "admin"  # name of the blueprint that the public port lacks
CONNECTS = (
    "CONNECTS"  # in the configuration of an application: what its page may connect to, see `page_headers`
)
_PAGE = Path(__file__).parents[1] / "dashboard"
# Fixed here, as the machine's table of MIME types may lack some or have others.
_PAGE_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".ts": "text/plain",
    ".svg": "image/svg+xml",
}


def current_services() -> Services:
    """The services of this worker."""
    services: Services = current_app.extensions["odinws"]
    return services


def json_error(status: int, code: str, message: str) -> Response:
    """An error response, as JSON."""
    response = jsonify({"error": code, "message": message})
    response.status_code = status
    return response


@routes.route("/ws", websocket=True)
def websocket() -> ResponseReturnValue:
    """The WebSocket endpoint."""
    services = current_services()
    return upgrade(services, _admit(services), opener(services))


@routes.route("/connection/websocket", websocket=True)
def centrifugo() -> ResponseReturnValue:
    """The WebSocket endpoint of Centrifugo's SDKs, which bring their token by a command."""
    services = current_services()
    verdict = _admit(services, FORMATS)
    name = verdict.subprotocol if isinstance(verdict, Admit) else None
    asked = request.args.get("format") or request.args.get("cf_protocol")
    if name not in FORMATS:
        name = "centrifuge-protobuf" if asked == "protobuf" else "centrifuge-json"
    return upgrade(services, verdict, opener(services, name))


def echo() -> ResponseReturnValue:
    """The WebSocket endpoint `/echo`, only with WS_TEST_ECHO."""
    services = current_services()

    def accept(entry: Admit, deflate: int) -> Upgrade:
        def take(descriptor: int | _socket.socket, early: bytes) -> None:
            services.open_echo(descriptor, early, entry, deflate)

        return Upgrade(take, partial(services.give_back, entry))

    return upgrade(services, _admit(services), accept)


def opener(services: Services, wire_format: str | None = None) -> Callable[[Admit, int], Upgrade]:
    """What opens a connection that is admitted; in a format of this name, or of its subprotocol."""

    def accept(entry: Admit, deflate: int) -> Upgrade:
        opening = services.opening(entry, deflate, wire_format)
        return Upgrade(opening.take, partial(services.give_back, entry), opening.greet)

    return accept


def _admit(services: Services, formats: Collection[str] | None = None) -> Verdict:
    """Admission; at the endpoint of `formats` a token may follow."""
    environ = request.environ
    header = environ.get  # without the detour over `request.headers`
    peer = request.remote_addr or ""
    return services.admit(
        UpgradeRequest(
            peer=peer,
            forwarded_for=header("HTTP_X_FORWARDED_FOR"),
            origin=header("HTTP_ORIGIN"),
            authorization=header("HTTP_AUTHORIZATION"),
            protocols=header("HTTP_SEC_WEBSOCKET_PROTOCOL"),
            query=header("QUERY_STRING", ""),
            is_local=is_local(peer, environ),
            formats=BY_SUBPROTOCOL if formats is None else formats,
            token_may_follow=formats is not None,
        )
    )


def upgrade(
    services: Services, verdict: Verdict, accept: Callable[[Admit, int], Upgrade]
) -> ResponseReturnValue:
    """Refuse a client, or answer 101: then the handler passes the socket to what `accept` gives.

    `accept` gets the verdict, and the window agreed for compression, in bits; 0: none.
    """
    environ = request.environ
    header = environ.get
    if isinstance(verdict, Refuse):
        response = json_error(verdict.status, verdict.reason, verdict.message)
        response.headers.extend(dict(verdict.headers))
        if verdict.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(verdict.retry_after_seconds)
        return response
    try:
        check_handshake(environ)
    except HandshakeError as error:
        services.give_back(verdict)
        response = json_error(error.status, "handshake", error.message)
        response.headers.extend(dict(error.headers))
        return response
    offers = header("HTTP_SEC_WEBSOCKET_EXTENSIONS") if services.settings.compression else None
    agreement = deflate.negotiate(offers) if offers else deflate.NONE
    environ[UPGRADE] = accept(verdict, agreement.bits)
    fields = []
    if agreement.header:
        fields.append(("Sec-WebSocket-Extensions", agreement.header))
    if verdict.subprotocol:
        fields.append(("Sec-WebSocket-Protocol", verdict.subprotocol))
    return "", 101, fields


@common.get("/ws")
@routes.get("/connection/websocket")
def websocket_expected() -> Response:
    """A GET without an upgrade: 426."""
    response = json_error(426, "upgrade_required", "this is a WebSocket endpoint: send an upgrade request")
    response.headers["Upgrade"] = "websocket"
    response.headers["Connection"] = "Upgrade"
    return response


@common.get("/")
@common.get("/dashboard/<name>")
def dashboard(name: str = "index.html") -> Response:
    """The dashboard and its assets."""
    response = send_from_directory(_PAGE, name, mimetype=_PAGE_TYPES.get(Path(name).suffix))
    response.headers.update(page_headers(current_app.config.get(CONNECTS, ())))
    return response


@common.get("/client.js")
@common.get("/client.d.ts")
def client_library() -> Response:
    """The browser's client library, for pages of any origin."""
    name = request.path.rpartition("/")[2]
    response = dashboard(name)
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


@common.get("/livez")
def live() -> Response:
    """Liveness: this worker answers. Does not fail under load."""
    return jsonify({"status": "alive"})


@common.get("/readyz")
def ready() -> Response:
    """Readiness: whether to send clients here."""
    services = current_services()
    reasons = report.not_ready(services.shared, services.settings, services.feed.status)
    response = jsonify({"status": "not ready" if reasons else "ready", "reasons": reasons})
    response.status_code = 503 if reasons else 200
    return response


@routes.get("/health")
def health() -> Response:
    """The status of the whole server. 200 unless unhealthy."""
    whole = health_of(current_services())
    response = jsonify({"status": whole["status"]})
    response.status_code = health_code(whole)
    return response


def health_of(services: Services) -> dict[str, Any]:
    """The health of the whole server, as the admin plane tells it."""
    services.sensor.sample()
    return report.health(services.shared, services.settings, services.feed.status, services.admission.state)


def health_code(whole: dict[str, Any]) -> int:
    """The HTTP status of an answer about `health_of`."""
    return 503 if whole["status"] == "unhealthy" else 200


@common.app_errorhandler(404)
def unknown_path(_: Any) -> Response:
    """404, with the paths that exist, or a word where this one went."""
    if ADMIN not in current_app.blueprints and request.path.split("/")[1] in _MOVED:
        return json_error(404, "moved", f"{request.path[:80]} is on the admin plane, see WS_ADMIN_ADDR")
    paths = sorted(str(rule) for rule in current_app.url_map.iter_rules())
    return json_error(404, "not_found", f"no such path; there are {', '.join(dict.fromkeys(paths))}")


@common.app_errorhandler(405)
def wrong_method(error: MethodNotAllowed) -> Response:
    """405, with the methods that are allowed."""
    allowed = ", ".join(sorted({*(error.valid_methods or ())} - {"HEAD", "OPTIONS"}))
    response = json_error(405, "method_not_allowed", f"{request.method} is not allowed here, {allowed} is")
    response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
    return response
