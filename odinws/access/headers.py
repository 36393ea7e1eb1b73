"""What every HTTP answer says to browsers: load nothing foreign, guess no types, stand in no frame. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_COMMON = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_PAGE = MappingProxyType(
    {
        # The page has scripts, styles and an icon of its own in files, nothing inline. `ws:` and `wss:` are
        # for browsers in which 'self' does not stand for WebSockets of the same host.
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        **_COMMON,
        "Cache-Control": "no-cache",  # ask each time; mostly answered by 304
    }
)
_DYNAMIC = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
        **_COMMON,
        "Cache-Control": "no-store",
    }
)


def security_headers(*, page: bool) -> Mapping[str, str]:
    """The headers of an answer.

    Args:
        page: whether it is the dashboard or a file of it; else it is of this moment, and never kept.
    """
    return _PAGE if page else _DYNAMIC
