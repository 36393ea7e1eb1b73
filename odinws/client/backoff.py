"""When a client comes back, and when it gives up. No input or output, no clock.

Exponential with full jitter (Brooker, "Exponential Backoff And Jitter", 2015): the n-th wait in a row is
drawn from 0 to `BASE_SECONDS` × 2^n, at most `CAP_SECONDS`. What the server asks for comes on top: the hint
in a close frame, or `Retry-After`, at most `MAX_HINT_SECONDS`. `odinws/dashboard/client.js` has the same
values, and a test compares them; docs/protocol.md describes the behaviour.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from typing import NamedTuple

from odinws.close_codes import NATIVE as _NATIVE
from odinws.close_codes import CloseReason
from odinws.errors import OdinError

BASE_SECONDS = 0.5
CAP_SECONDS = 30.0
STEADY_SECONDS = 10.0  # a connection that lived this long after its welcome starts the count anew
OTHER_CODE_SECONDS = 5.0  # after a close code that is not in the table, and after what is not the protocol
MAX_HINT_SECONDS = 300.0
OPEN_SECONDS = 10.0  # for a handshake, and again for the welcome
CHECK_SECONDS = 10.0  # how often a connection is asked for a sign of life, and how long it may take
RENEW_SHARE = 0.8  # of a token's remaining life after which the next one is fetched

RETURN_AFTER_SECONDS = {reason.code: reason.retry_after_seconds for reason in _NATIVE}
"""How long to stay away after a close code; None: do not come back."""
ANOTHER_TOKEN = {reason.code for reason in _NATIVE if reason.another_token} | {401}
"""Close codes, and a status of HTTP, of tokens: with another one a client comes back after all."""

TOO_BIG = CloseReason.TOO_BIG.code
_LOST = 1006
_NO_PONG = 1011  # as the websockets library closes then
_HINT = re.compile(r"; retry_after=([0-9]+(?:\.[0-9]+)?)$")
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_LEAST_RENEWAL_SECONDS = 1.0


class RefusedError(OdinError):
    """The server does not want this client, and will not want it later either.

    Attributes:
        code: HTTP status or close code.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Wait(NamedTuple):
    """Before the next attempt.

    Attributes:
        why: in words, for a log.
    """

    seconds: float
    why: str


class Backoff:
    """Counts the attempts of one client and says how long each waits.

    Args:
        draw: 0 to 1 at random.
    """

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._attempt = 0

    def closed(self, code: int, text: str, steady: bool) -> Wait:
        """A connection ended with a close frame, or without one (1006).

        Args:
            text: of the close frame.
            steady: whether the connection had lived for `STEADY_SECONDS`.

        Raises:
            RefusedError: the client should not come back.
        """
        hint = _HINT.search(text)
        least = float(hint[1]) if hint else RETURN_AFTER_SECONDS.get(code, OTHER_CODE_SECONDS)
        if least is None:
            raise RefusedError(code, text)
        return self._wait(least, steady, f"closed with {code} {text}".rstrip())

    def ended(self, code: int, text: str, steady: bool) -> Wait:
        """This side ended the connection: the server broke RFC 6455, or answered no ping (1011).

        Args:
            text: of our close frame.
            steady: see `closed`.
        """
        why = f"closed by this side with {code} {text}".rstrip()
        return self.lost(steady, why) if code == _NO_PONG else self.broken(why)

    def refused(self, status: int, retry_after: str | None, body: str) -> Wait:
        """The server answered the upgrade with something else.

        Args:
            retry_after: the header; anything but whole seconds is passed over.

        Raises:
            RefusedError: the client should not come back.
        """
        if status not in _TRY_AGAIN:
            raise RefusedError(status, body)
        least = float(retry_after) if retry_after and re.fullmatch("[0-9]+", retry_after) else 0.0
        return self._wait(least, False, f"refused with {status}")

    def lost(self, steady: bool, why: str = "connection lost") -> Wait:
        """There is no answer, or none any more."""
        return self._wait(RETURN_AFTER_SECONDS[_LOST] or 0.0, steady, why)

    def broken(self, why: str) -> Wait:
        """What the server sent is not the protocol."""
        return self._wait(OTHER_CODE_SECONDS, False, why)

    def _wait(self, least_seconds: float, steady: bool, why: str) -> Wait:
        attempt = 0 if steady else self._attempt
        self._attempt = attempt + 1
        return Wait(min(least_seconds, MAX_HINT_SECONDS) + backoff_seconds(attempt, self._draw), why)


def backoff_seconds(attempt: int, draw: Callable[[], float]) -> float:
    """The random part of a wait.

    Args:
        attempt: how many failed before, in a row.
        draw: 0 to 1 at random.
    """
    return draw() * min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(attempt, 30))


def renew_after(token: str, now: float) -> float | None:
    """Seconds until the next token is to be fetched; None: this one does not expire, or does not say when.

    Nothing here checks a token: that is the server's.

    Args:
        now: seconds since 1970.
    """
    try:
        body = token.split(".")[1]
        expires = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["exp"]
        left = float(expires) - now
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, binascii.Error):
        return None
    return max(_LEAST_RENEWAL_SECONDS, RENEW_SHARE * left) if math.isfinite(left) else None
