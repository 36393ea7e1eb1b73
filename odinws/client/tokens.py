"""When a token is to be renewed. Nothing here checks a token: that is the server's."""

from __future__ import annotations

import base64
import binascii
import json

_EARLY_SHARE = 0.8  # of its remaining life after which the next one is fetched
_LEAST_SECONDS = 1.0


def refresh_at(token: str, now: float) -> float | None:
    """When to fetch the next token; None: this one does not expire, or does not say when.

    Args:
        now: seconds since 1970.
    """
    try:
        body = token.split(".")[1]
        expires = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["exp"]
        left = float(expires) - now
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None
    return now + max(_LEAST_SECONDS, _EARLY_SHARE * left)


def refresh_command(token: str) -> str:
    """What brings another token to an open connection."""
    return json.dumps({"type": "authenticate", "data": {"token": token}})
