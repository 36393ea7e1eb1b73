"""What all routes share: the worker's services, the check of who may inspect the server, and errors."""

from __future__ import annotations

from flask import Response, current_app, jsonify, request

from odinws.access.inspection import may_inspect
from odinws.services import Services


def current_services() -> Services:
    """The services of this worker."""
    services: Services = current_app.extensions["odinws"]
    return services


def may_look_inside(services: Services) -> bool:
    """Whether the current request may inspect the server."""
    headers = request.headers
    return may_inspect(
        request.remote_addr or "",
        headers.get("Authorization"),
        services.settings.admin_token,
        x_forwarded_for=headers.get("X-Forwarded-For"),
        forwarded=headers.get("Forwarded"),
        trusted=services.settings.trusted_networks,
    )


def error(status: int, code: str, message: str) -> Response:
    """An error response, as JSON."""
    response = jsonify({"error": code, "message": message})
    response.status_code = status
    return response
