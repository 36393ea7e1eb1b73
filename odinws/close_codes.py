"""Why connections are closed or refused: labels, close codes, and when a client should reconnect.

Codes below 4000 are those of RFC 6455 section 7.4.1 and the IANA registry; 4000 and above are private.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import Final

# Why an upgrade is refused, as labels of counters. The first five are for load, and can be a dry run.
LOAD_REFUSALS: Final = ("capacity", "cpu", "memory", "greenlets", "hub_lag")
REFUSALS: Final = (
    *LOAD_REFUSALS,
    "draining",
    "rate",
    "address",  # it has as many connections as one may have
    "subject",  # the same
    "origin",
    "unauthorised",
    "forbidden",
    "handshake",
    "overload",  # more clients come than can be served
    "gone",  # not even answered: the client had left
)

# Why a client is turned away before it has sent a request.
REJECTIONS: Final = (
    "malformed",  # what it sent is no HTTP
    "too_large",  # the head of its request
    "timeout",  # nothing came, or half a head, or half a TLS handshake
    "full",  # it was waited for longest when there was no room for another
    "tls",  # the handshake failed
    "plain_http",  # without TLS on a port of TLS
    "unread",  # it did not read the answer
)


@unique
class CloseReason(Enum):
    """Why a connection is closed.

    Attributes:
        label: the name in metrics and logs.
        code: the WebSocket close code. 1006 is never sent: it stands for a peer that left without a close
            frame.
        text: the default reason in the close frame, at most 123 bytes of UTF-8.
        retry_after_seconds: how long a client should wait before it reconnects; None: it should not.
    """

    label: str
    code: int
    text: str
    retry_after_seconds: float | None

    CLIENT = ("client", 1000, "bye", None)
    GONE = ("gone", 1006, "", 0.0)
    GOING_AWAY = ("going_away", 1001, "server is going away", 1.0)
    PROTOCOL = ("protocol", 1002, "protocol error", None)
    UNSUPPORTED = ("unsupported", 1003, "text frames only", None)
    BAD_TEXT = ("bad_text", 1007, "text is not UTF-8", None)
    POLICY = ("policy", 1008, "too many errors", None)
    TOO_BIG = ("too_big", 1009, "message too big", None)
    INTERNAL = ("internal", 1011, "internal error", 5.0)
    RESTART = ("restart", 1012, "server restarts", 1.0)
    SLOW = ("slow", 4008, "slow consumer", 1.0)
    MEMORY = ("memory", 4008, "too much waits for this client while memory is short", 1.0)
    IDLE = ("idle", 4009, "no sign of life", 0.0)
    UNAUTHORISED = ("unauthorised", 4401, "credentials missing or expired", None)
    FORBIDDEN = ("forbidden", 4403, "not allowed", None)

    def __init__(self, label: str, code: int, text: str, retry_after_seconds: float | None) -> None:
        self.label = label
        self.code = code
        self.text = text
        self.retry_after_seconds = retry_after_seconds
