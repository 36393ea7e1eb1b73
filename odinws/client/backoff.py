"""When a client comes back. Pure: the draw is an argument.

Exponential with full jitter (Brooker, "Exponential Backoff And Jitter", 2015): the n-th wait is drawn
from 0 to `BASE_SECONDS` × 2^n, at most `CAP_SECONDS`. What the server says comes on top: the hint in a close
frame, or `Retry-After`. After a connection that lived, the count starts anew.
"""

from __future__ import annotations

import re

from odinws.closing import CloseReason

BASE_SECONDS = 0.25
CAP_SECONDS = 30.0
STEADY_SECONDS = 5.0  # a connection that lived this long was one

_HINT = re.compile(r"; retry_after=([0-9]+(?:\.[0-9]+)?)$")
_BY_CODE = {reason.code: reason for reason in CloseReason}
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


def jitter(attempt: int, draw: float) -> float:
    """The wait before the `attempt`-th try in a row, from 0, in seconds.

    Args:
        draw: 0 to 1.
    """
    return draw * min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(attempt, 30))


def after_close(code: int, text: str, attempt: int, draw: float) -> float | None:
    """The wait after a close frame, or after none (1006); None: do not come back.

    Args:
        text: of the close frame.
    """
    hint = _HINT.search(text)
    if hint:
        return float(hint[1]) + jitter(attempt, draw)
    reason = _BY_CODE.get(code)
    if reason is not None and reason is not CloseReason.CLIENT:
        if reason.retry_after_seconds is None:
            return None
        return reason.retry_after_seconds + jitter(attempt, draw)
    return jitter(attempt, draw)


def after_refusal(status: int, retry_after: str | None, attempt: int, draw: float) -> float | None:
    """The wait after an HTTP answer instead of the upgrade; None: do not come back.

    Args:
        retry_after: the header, in seconds; others are passed over.
    """
    if status not in _TRY_AGAIN:
        return None
    wait = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
    return wait + jitter(attempt, draw)
