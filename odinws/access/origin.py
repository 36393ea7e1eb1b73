"""Which pages may connect: browsers name the origin of the page that opens a WebSocket (RFC 6454). Pure.

A browser lets every page open a WebSocket to every server, so a server that has secrets for some must
look. Clients that are no browsers send what they like: this is no authentication.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address

_MAX_CHARACTERS = 300  # a host name has at most 253
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<wild>\*\.)?(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?))"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
    r"|(?P<hostless>[a-z][a-z0-9+.-]*):///?"  # file://, and apps with a scheme of their own
)
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Origins:
    """The origins that may connect.

    Args:
        listed: each an origin (`https://example.com`, a default port may be left out), a pattern for all
            names below one (`https://*.example.com`, not that one itself), a scheme whose pages have no host
            (`file://`), `null` (sandboxed pages, and files in most browsers), or `*` (whatever a client
            sends). Case does not matter, nor does a slash at the end.

    Attributes:
        all_may: whether there is a `*`.

    Raises:
        ValueError: one is none of these; the text names it.
    """

    def __init__(self, listed: tuple[str, ...]) -> None:
        self.all_may = "*" in listed
        self._null = "null" in listed
        exact: set[tuple[str, str, int]] = set()
        below: set[tuple[str, str, int]] = set()
        for text in listed:
            if text in ("*", "null"):
                continue
            match = _match(text)
            if match is None:
                raise ValueError(
                    f"{text!r} is no origin: expected scheme://host or scheme://host:port without a path, "
                    "scheme://*.domain, file://, null or *; an international name in its xn-- form"
                )
            (below if match["wild"] else exact).add(_canonical(match))
        self._exact = frozenset(exact)
        self._below = frozenset(below)

    @classmethod
    def parse(cls, text: str) -> Origins:
        """Read a comma-separated list.

        Raises:
            ValueError: as the constructor.
        """
        return cls(tuple(part for part in (part.strip() for part in text.split(",")) if part))

    def allow(self, origin: str | None, *, without: bool) -> bool:
        """Whether a request may go on.

        Args:
            origin: the `Origin` header; None: there is none.
            without: the answer if there is none, as from clients that are no browsers. With `*` also for an
                empty one; else that is one that is not listed.
        """
        if origin is None or (self.all_may and not origin):
            return without
        if self.all_may:
            return True
        if origin == "null":
            return self._null
        match = _match(origin)
        if match is None or match["wild"]:
            return False
        scheme, host, port = canonical = _canonical(match)
        if canonical in self._exact:
            return True
        while self._below and host:
            _, _, host = host.partition(".")
            if (scheme, host, port) in self._below:
                return True
        return False


def _match(text: str) -> re.Match[str] | None:
    if len(text) > _MAX_CHARACTERS or not text.isascii():
        return None
    match = _ORIGIN.fullmatch(text.lower())
    if match is None or int(match["port"] or 0) > 65535 or match["hostless"] in _DEFAULT_PORTS:
        return None
    if match["ipv6"]:
        try:
            IPv6Address(match["ipv6"])
        except AddressValueError:
            return None
    return match


def _canonical(match: re.Match[str]) -> tuple[str, str, int]:
    """Scheme, host and port as they compare; port -1: the scheme has no default and none was given."""
    if match["hostless"]:
        return match["hostless"], "", -1
    scheme = match["scheme"]
    host = f"[{IPv6Address(match['ipv6'])}]" if match["ipv6"] else match["host"]
    return scheme, host, int(match["port"]) if match["port"] else _DEFAULT_PORTS.get(scheme, -1)
