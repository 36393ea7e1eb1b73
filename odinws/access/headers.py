"""What every HTTP answer says to browsers: load nothing foreign, guess no types, stand in no frame. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from odinws.access.origin import Origins

_COMMON = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_DYNAMIC = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
        **_COMMON,
        "Cache-Control": "no-store",
    }
)


def security_headers() -> Mapping[str, str]:
    """The headers of an answer that is of this moment, and never kept."""
    return _DYNAMIC


@cache
def page_headers(connects: tuple[str, ...] = ()) -> Mapping[str, str]:
    """The headers of the page and its files.

    Args:
        connects: what it may connect to besides its own host, as sources of a policy.
    """
    # The page has scripts, styles and an icon of its own in files, nothing inline.
    sources = " ".join(("'self'", *connects))
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src {sources}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    # no-cache: ask each time; mostly answered by 304.
    return MappingProxyType({"Content-Security-Policy": policy, **_COMMON, "Cache-Control": "no-cache"})


def cross_origin_headers(origins: Origins, origin: str | None) -> Mapping[str, str]:
    """Whether a page may read an answer (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol).

    Args:
        origins: whose pages may. Only those that are listed may also send cookies.
        origin: of the page; None: the request names none.
    """
    if origins.all_may:
        return {"Access-Control-Allow-Origin": "*"}
    if origin is None or not origins.allow(origin, without=False):
        return {"Vary": "Origin"}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Vary": "Origin",
    }
