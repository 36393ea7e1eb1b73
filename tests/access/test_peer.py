"""`odinws.access.peer`: whose word is believed, and every form of an address."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.access.peer import (
    MAX_HOPS,
    NOBODY,
    UNIX,
    client_address,
    is_local,
    parse_address,
    parse_proxies,
)

TRUSTED = parse_proxies("10.0.0.0/8, fd00::/8, 127.0.0.1")


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("10.0.0.1", None, "10.0.0.1"),
        # Whoever is not trusted says what he likes.
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),
        ("203.0.113.9", "127.0.0.1", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.2.3.4, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "127.0.0.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("fd00::1", "2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", None, "fe80::1"),
        # Forms of an entry.
        ("10.0.0.1", "203.0.113.9:1234", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8::1]:1234", "2001:db8::1"),
        ("10.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ("10.0.0.1", '"[2001:db8::1]:1234"', "2001:db8::1"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", " 203.0.113.9\t", "203.0.113.9"),
        # What is no address ends the walk at whoever was believed last.
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.9,", "10.0.0.1"),
        ("10.0.0.1", "010.0.0.9", "10.0.0.1"),
        ("10.0.0.1", "fe80::1%<script>", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:99999999", "10.0.0.1"),
        ("10.0.0.1", "1" * 8000, "10.0.0.1"),
        ("", "203.0.113.9", ""),
    ],
)
def test_who_the_client_is(peer: str, header: str | None, client: str) -> None:
    """The first from the right that is no trusted proxy."""
    assert client_address(peer, header, TRUSTED) == client


def test_nobody_is_trusted_by_default() -> None:
    """Then the header means nothing."""
    assert client_address("10.0.0.1", "203.0.113.9", NOBODY) == "10.0.0.1"


def test_hops_are_bounded() -> None:
    """16 are read; what stands before them is nobody's word."""
    hops = ["10.0.0.2"] * MAX_HOPS
    assert client_address("10.0.0.1", ",".join(["203.0.113.9", *hops[1:]]), TRUSTED) == "203.0.113.9"
    assert client_address("10.0.0.1", ",".join(hops), TRUSTED) == "10.0.0.2"
    assert client_address("10.0.0.1", ",".join(["203.0.113.9", *hops]), TRUSTED) == "10.0.0.2"


@given(st.sampled_from(["203.0.113.9", "10.0.0.1"]), st.text())
def test_any_header_gives_an_address(peer: str, header: str) -> None:
    """Nothing of the header but an address comes out."""
    ip_address(client_address(peer, header, TRUSTED))


@given(st.ip_addresses().filter(lambda a: parse_address(str(a)) is not None), st.text())
def test_what_a_client_writes_before_its_address_changes_nothing(address: object, forged: str) -> None:
    """The proxy's own entry is the last one."""
    trusted = parse_proxies("192.0.2.1")
    if str(address) == "192.0.2.1":
        return
    expected = str(parse_address(str(address)))
    assert client_address("192.0.2.1", f"{forged}, {address}", trusted) == expected


@pytest.mark.parametrize(
    "wrong", ["10.0.0.1/8", "x", "10.0.0.0/33", "::ffff:10.0.0.0/104", "10.0.0.0/8 fd00::/8"]
)
def test_networks_that_are_wrong_are_named(wrong: str) -> None:
    """At the start."""
    with pytest.raises(ValueError, match=r"is no|is a network of") as caught:
        parse_proxies(f"10.0.0.0/8,{wrong}")
    assert str(caught.value).startswith(repr(wrong))


def test_networks() -> None:
    """Space and empty parts mean nothing; an address is a network of one."""
    assert [str(network) for network in parse_proxies(" 10.0.0.0/8 ,, ::1,").networks] == [
        "10.0.0.0/8",
        "::1/128",
    ]
    assert parse_proxies("") == NOBODY


@pytest.mark.parametrize(
    ("trusted", "header", "address"),
    [
        ("unix:", "203.0.113.9", "203.0.113.9"),
        ("unix:", "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("unix:,203.0.113.9", "198.51.100.1, 203.0.113.9", "198.51.100.1"),
        ("unix:", "203.0.113.9, unix:", "203.0.113.9"),
        ("unix:", "unix:", UNIX),
        ("unix:", "unknown", UNIX),
        ("unix:", None, UNIX),
        ("127.0.0.1", "203.0.113.9", UNIX),
        ("", "203.0.113.9", UNIX),
        ("", None, UNIX),
    ],
)
def test_the_other_end_of_a_unix_socket(trusted: str, header: str | None, address: str) -> None:
    """A process of this machine, which is a proxy if the settings say so."""
    assert client_address(UNIX, header, parse_proxies(trusted)) == address


def test_nobody_can_call_itself_a_unix_socket() -> None:
    """A proxy over TCP may write what it likes."""
    assert client_address("10.0.0.1", "unix:", TRUSTED) == "10.0.0.1"
    assert client_address("203.0.113.9", "unix:", parse_proxies("unix:")) == "203.0.113.9"


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_local_is_a_program_on_this_machine(peer: str) -> None:
    """Whatever says that somebody forwards takes that away, also a trusted proxy for a local client."""
    assert is_local(peer, {"HTTP_HOST": "x", "HTTP_ORIGIN": "http://localhost"})
    for name in (
        "VIA", "FORWARDED", "X_REAL_IP", "CF_CONNECTING_IP",
        "X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PROTO", "X_FORWARDED_PORT",
    ):  # fmt: skip
        assert not is_local(peer, {f"HTTP_{name}": "127.0.0.1"})


@pytest.mark.parametrize("peer", ["10.0.0.1", "203.0.113.9", "::ffff:10.0.0.1", "0.0.0.0", "", "x"])
def test_others_are_not_local(peer: str) -> None:
    """Whatever their headers say."""
    assert not is_local(peer, {})
    assert not is_local(peer, {"HTTP_X_FORWARDED_FOR": "127.0.0.1"})
