"""The Flask application of a worker."""

from __future__ import annotations

from flask import Flask

from odinws.http.application import Application
from odinws.http.debug import debug
from odinws.http.routes import echo, routes
from odinws.services import Services

EXTENSION = "odinws"


def create_app(services: Services) -> Flask:
    """Create the application for the services of a worker."""
    app = Application("odinws", static_folder=None)
    app.extensions[EXTENSION] = services
    app.register_blueprint(routes)
    app.register_blueprint(debug)
    if services.settings.test_echo:
        app.add_url_rule("/echo", view_func=echo, websocket=True)
    return app
