"""Authentication to NATS: credentials and TLS, by the settings."""

from __future__ import annotations

import ssl
from typing import Any

from odinws.errors import FeedError
from odinws.settings import Settings


def options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for nats-py's `connect`. Files are read for each session, so they may be rotated.

    None for an embedded NATS: its URL has all that it wants to know.

    Raises:
        FeedError: a file can't be read, or is invalid.
    """
    found: dict[str, Any] = {}
    if settings.embedded_nats:
        return found
    if settings.nats_token:
        found["token"] = settings.nats_token
    if settings.nats_creds_file:
        found["user_credentials"] = settings.nats_creds_file
    if settings.nats_nkey_file:
        found["nkeys_seed"] = settings.nats_nkey_file
    if settings.nats_ca_file or settings.nats_cert_file:
        try:
            context = ssl.create_default_context(cafile=settings.nats_ca_file or None)
            if settings.nats_cert_file:
                context.load_cert_chain(settings.nats_cert_file, settings.nats_key_file or None)
        except (OSError, ssl.SSLError) as error:
            raise FeedError(f"TLS to NATS: {error}") from error
        found["tls"] = context
    return found
