"""Why connections are closed or refused: labels, close codes, and when a client should reconnect.

Codes below 3000 are those of RFC 6455 section 7.4.1 and the IANA registry; 4000 and above are private; those
between are Centrifugo's, which its endpoint uses alone.
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
    "not_tls",  # neither TLS nor HTTP there
    "unread",  # it did not read the answer
)


@unique
class CloseReason(Enum):
    """Why a connection is closed, and what that means to a client: the one table of both sides.

    Attributes:
        label: the name in metrics and logs.
        code: the WebSocket close code. 1006 is never sent: it stands for a peer that left without a close
            frame.
        text: the default reason in the close frame, at most 123 bytes of UTF-8.
        retry_after_seconds: how long a client should wait before it reconnects; None: it should not.
        meaning: in words, for docs/protocol.md.
        another_token: whether a client that can get another token should reconnect with that after all.
    """

    label: str
    code: int
    text: str
    retry_after_seconds: float | None
    meaning: str
    another_token: bool

    CLIENT = ("client", 1000, "bye", 5.0, "the client closed the connection; its own code is echoed")
    GOING_AWAY = ("going_away", 1001, "server is going away", 1.0, "the server drains")
    PROTOCOL = ("protocol", 1002, "protocol error", None, "the framing rules were broken")
    UNSUPPORTED = ("unsupported", 1003, "text frames only", None, "a binary frame")
    GONE = ("gone", 1006, "", 0.0, "never sent: the peer left without a close frame")
    BAD_TEXT = (
        "bad_text",
        1007,
        "text is not UTF-8",
        None,
        "text that is not UTF-8, or a compressed message that can't be inflated; its text says which",
    )
    POLICY = (
        "policy",
        1008,
        "too many errors",
        None,
        "too many bad commands, or none for `first_command_seconds`",
    )
    TOO_BIG = (
        "too_big",
        1009,
        "message too big",
        None,
        "a message above `max_message_bytes`, or with more fragments than one per 64 bytes of that limit "
        "(1,024 fragments are always allowed)",
    )
    INTERNAL = ("internal", 1011, "internal error", 5.0, "a defect of the server")
    RESTART = (
        "restart",
        1012,
        "server restarts",
        1.0,
        "the worker is being replaced, or sends connections to other workers",
    )
    SLOW = (
        "slow",
        4008,
        "slow consumer",
        1.0,
        "the client did not read: its outbox was full and the policy is to disconnect, or its socket took "
        "nothing for `WS_OUTBOX_SECONDS`",
    )
    MEMORY = (
        "memory",
        4008,
        "too much waits for this client while memory is short",
        1.0,
        "the server holds too much for its clients, and much of it for this one: what waited is dropped",
    )
    IDLE = ("idle", 4009, "no sign of life", 0.0, "no frame for `idle_seconds`")
    UNAUTHORISED = (
        "unauthorised",
        4401,
        "credentials missing or expired",
        None,
        "the token has expired",
        True,
    )
    FORBIDDEN = (
        "forbidden",
        4403,
        "not allowed",
        None,
        "reserved: a channel that is not allowed is rejected by name, and the connection stays",
    )
    # These end connections of the Centrifugo endpoint alone.
    INSUFFICIENT_STATE = (
        "insufficient_state",
        3010,
        "insufficient state",
        0.0,
        "messages are missing on a channel, and the client can't be asked to subscribe to it anew: an SDK "
        "without compaction, or a server-side subscription",
    )
    TOO_MANY = ("too_many", 3013, "too many connections", 1.0, "the token's subject has as many as it may")
    INVALID_TOKEN = ("invalid_token", 3500, "invalid token", None, "the token is invalid, or missing")
    STALE = ("stale", 3502, "stale", None, "no `connect` came within 10 s")

    def __init__(
        self,
        label: str,
        code: int,
        text: str,
        retry_after_seconds: float | None,
        meaning: str,
        another_token: bool = False,
    ) -> None:
        self.label = label
        self.code = code
        self.text = text
        self.retry_after_seconds = retry_after_seconds
        self.meaning = meaning
        self.another_token = another_token


NATIVE: Final = tuple(reason for reason in CloseReason if not 3000 <= reason.code < 4000)
"""Those of `/ws`."""

CENTRIFUGO: Final = {
    CloseReason.CLIENT: (3000, "connection closed"),
    CloseReason.GOING_AWAY: (3001, "shutdown"),
    CloseReason.RESTART: (3011, "force reconnect"),
    CloseReason.INTERNAL: (3004, "internal server error"),
    CloseReason.UNAUTHORISED: (3005, "connection expired"),
    CloseReason.SLOW: (3008, "slow"),
    CloseReason.MEMORY: (3008, "slow"),
    CloseReason.IDLE: (3012, "no pong"),
    CloseReason.PROTOCOL: (3501, "bad request"),
    CloseReason.UNSUPPORTED: (3501, "bad request"),
    CloseReason.BAD_TEXT: (3501, "bad request"),
    CloseReason.FORBIDDEN: (3507, "permission denied"),
    CloseReason.POLICY: (3509, "too many errors"),
    CloseReason.TOO_BIG: (1009, "message too big"),
    **{reason: (reason.code, reason.text) for reason in CloseReason if 3000 <= reason.code < 4000},
}
"""The code and the text of each reason at the Centrifugo endpoint: what makes its SDKs do the right thing."""

HINTED: Final = frozenset({CloseReason.GOING_AWAY, CloseReason.RESTART})
"""Their text ends in `; retry_after=` and seconds, which count instead of those of the table."""


def table() -> str:
    """What each close code means, in Markdown."""
    rows: list[tuple[str, ...]] = [("code", "label", "meaning", "reconnect"), ("---",) * 4]
    rows += [(f"{r.code}", f"`{r.label}`", r.meaning, _reconnect(r)) for r in NATIVE]
    return _markdown(rows)


def centrifugo_table() -> str:
    """What each close code of the Centrifugo endpoint means, in Markdown."""
    rows: list[tuple[str, ...]] = [("code", "text", "label", "meaning", "the SDK"), ("---",) * 5]
    for reason, (code, text) in sorted(CENTRIFUGO.items(), key=lambda entry: entry[1][0]):
        does = "comes back" if 3000 <= code < 3500 else "ends"
        rows.append((f"{code}", text, f"`{reason.label}`", reason.meaning, does))
    return _markdown(rows)


def _markdown(rows: list[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).replace(" --- ", "---")


def _reconnect(reason: CloseReason) -> str:
    seconds = reason.retry_after_seconds
    if reason.another_token:
        return "with another token"
    if seconds is None:
        return "no"
    if reason in HINTED:
        return f"after {seconds:g} s or more, as its text says"
    if reason is CloseReason.CLIENT:
        return f"as it likes; after {seconds:g} s if it did not close the connection itself"
    return f"after {seconds:g} s" if seconds else "at once"
