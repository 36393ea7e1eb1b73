"""`odinws.access.peer`: loopback is for those who really are on this machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.access.peer import has_admin_token, is_local_page, is_loopback, may_inspect, parse_proxies

ADMIN = "an admin's token"
TRUSTED = parse_proxies("127.0.0.1, ::1, 10.0.0.0/8")


@pytest.mark.parametrize(
    "peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "0:0:0:0:0:0:0:1", "unix:"]
)
def test_loopback(peer: str) -> None:
    """IPv4, IPv6, IPv4 within IPv6, and a Unix socket."""
    assert is_loopback(peer)
    assert may_inspect(peer, None, "")
    assert may_inspect(peer, "Bearer wrong", ADMIN)


@pytest.mark.parametrize(
    "peer", ["10.0.0.1", "203.0.113.9", "2001:db8::1", "::ffff:10.0.0.1", "0.0.0.0", "", "x"]
)
def test_others_need_the_token(peer: str) -> None:
    """Exactly that one."""
    assert not may_inspect(peer, None, ADMIN)
    assert may_inspect(peer, f"Bearer {ADMIN}", ADMIN)
    assert may_inspect(peer, f"bearer  {ADMIN} ", ADMIN)
    for wrong in (
        ADMIN,
        f"Bearer {ADMIN}x",
        f"Bearer {ADMIN[:-1]}",
        f"Basic {ADMIN}",
        "Bearer",
        "Bearer ",
        "",
    ):
        assert not may_inspect(peer, wrong, ADMIN)


def test_no_token_opens_if_none_is_set() -> None:
    """Not the empty one either."""
    for header in (None, "", "Bearer", "Bearer ", "Bearer x"):
        assert not may_inspect("203.0.113.9", header, "")


@pytest.mark.parametrize(
    ("peer", "header", "local"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "::1", True),
        ("10.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "203.0.113.9", False),
        ("127.0.0.1", "127.0.0.1, 203.0.113.9", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "unknown", False),
        ("203.0.113.9", "127.0.0.1", False),
    ],
)
def test_behind_a_trusted_proxy(peer: str, header: str, local: bool) -> None:
    """The client it names must be local."""
    assert may_inspect(peer, None, "", x_forwarded_for=header, trusted=TRUSTED) is local
    assert not may_inspect(peer, None, "", x_forwarded_for=header, forwarded="for=127.0.0.1", trusted=TRUSTED)


@pytest.mark.parametrize("header", ["127.0.0.1", "203.0.113.9", "", "x"])
def test_behind_a_proxy_that_is_not_trusted(header: str) -> None:
    """Its clients are not local, though it is; the token still opens."""
    assert not may_inspect("127.0.0.1", None, ADMIN, x_forwarded_for=header)
    assert not may_inspect("127.0.0.1", None, ADMIN, forwarded=header)
    assert may_inspect("127.0.0.1", f"Bearer {ADMIN}", ADMIN, x_forwarded_for=header, forwarded=header)


@given(st.text(), st.text(), st.text())
def test_any_header(peer: str, authorization: str, header: str) -> None:
    """None opens by accident."""
    assert not may_inspect(f"x{peer}", authorization, ADMIN, x_forwarded_for=header, trusted=TRUSTED)


@pytest.mark.parametrize(
    "origin",
    [None, "http://127.0.0.1:3004", "http://127.8.8.8", "https://localhost", "http://[::1]:3004"],
)
def test_pages_of_this_machine(origin: str | None) -> None:
    """By their address, whatever their port; and who is no page."""
    assert is_local_page(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.1",
        "http://evil.example/127.0.0.1",
        "http://user@127.0.0.1",
        "http://[::1].evil.example",
        "http://127.1",
        "http://LOCALHOST.x",
        "ftp://127.0.0.1",
    ],
)
def test_pages_from_elsewhere_are_not_local(origin: str) -> None:
    """A foreign page in a browser of this machine, also one whose name leads to this machine."""
    assert not is_local_page(origin)


def test_an_empty_admin_token_opens_nothing() -> None:
    """Also for who brings an empty one."""
    assert has_admin_token(ADMIN, ADMIN)
    assert not has_admin_token("", "")
    assert not has_admin_token(None, ADMIN)
    assert not has_admin_token("", ADMIN)
