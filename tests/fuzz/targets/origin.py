"""Origins. An input is the list of those that may connect, a newline, and the origin of a request.

The list is refused by one line, or every origin in it may connect, and nobody else.
"""

from __future__ import annotations

import re

from odinws.access.origin import Origins
from tests.fuzz.targets.base import assert_one_line, lines

_some = Origins.parse("https://*.example.com, https://example.com:8443, http://[::1]")
_PORT = re.compile(r":[0-9]+$")


def check(data: bytes) -> str:
    """Read the list, and let the origin and all in it try."""
    text, origin = lines(data, 2, "utf-8")
    try:
        origins = Origins.parse(text)
    except ValueError as error:
        assert_one_line(str(error))
        return "refused"
    listed = [part for part in (part.strip() for part in text.split(",")) if part]
    for part in listed:
        is_name = part != "*" and "://*." not in part
        assert not is_name or origins.allow(part, without=False), f"{part!r} is listed and not allowed"
    assert origins.allow(None, without=True)
    assert not origins.allow(None, without=False)
    allowed = origins.allow(origin, without=False)
    if "*" in listed:
        assert allowed == bool(origin), f"{origin!r} is one of all"
    elif allowed:
        assert any(_covers(part.lower(), origin.lower()) for part in listed), f"{origin!r} is not in {listed}"
    return f"{allowed} {'*' in listed} {bool(listed)}"


def read(data: bytes) -> int:
    """All of it as an origin."""
    _some.allow(data.decode("latin-1"), without=False)
    return 0


def _covers(part: str, origin: str) -> bool:
    """Whether an entry can be meant: scheme and host.

    Ports, a slash at the end, and the forms of IPv6 are not looked at.
    """
    scheme, _, host = _PORT.sub("", part.removesuffix("/")).partition("://")
    other_scheme, _, other_host = _PORT.sub("", origin.removesuffix("/")).partition("://")
    if scheme != other_scheme:
        return False
    if host.startswith("*."):
        return other_host.endswith(host[1:])
    return host == other_host or (host[:1] == "[" and other_host[:1] == "[")
