"""The Flask applications of a worker: one for the public port, one for the admin plane."""

from __future__ import annotations

from flask import Flask

from odinws.http import admin
from odinws.http.application import Application
from odinws.http.debug import debug
from odinws.http.routes import ADMIN, CONNECTS, common, echo, routes
from odinws.http.streams import STREAMS, streams
from odinws.services import Services

EXTENSION = "odinws"


def create_app(services: Services) -> Flask:
    """Create the application of the public port for the services of a worker."""
    app = _application(services)
    app.register_blueprint(routes)
    app.register_blueprint(streams)
    app.streams = STREAMS
    if services.settings.test_echo:
        app.add_url_rule("/echo", view_func=echo, websocket=True)
    return app


def create_admin_app(services: Services, token: str) -> Flask:
    """Create the application of the admin plane.

    Args:
        token: that requests must bring; "": none.
    """
    app = _application(services)
    plane = app.extensions[ADMIN] = admin.plane(services.settings, token)
    app.config[CONNECTS] = services.settings.admin_peer_sockets
    app.before_request(plane.enter)
    app.register_blueprint(admin.admin)
    app.register_blueprint(debug)
    return app


def _application(services: Services) -> Application:
    app = Application("odinws", static_folder=None)
    app.extensions[EXTENSION] = services
    app.register_blueprint(common)
    return app
