"""`odinws.access.admin`: what each kind of stranger brings, and that it opens nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.access.admin import WRONG_GUESSES, AdminRequest, Gate

NOW = 1000.0
TOKEN = "an admin's token: (of 32 letters)"  # noqa: S105
HOST = "127.0.0.1:3005"
OWN = "http://127.0.0.1:3005"


def code(gate: Gate, now: float = NOW, **brought: str | bool) -> str:
    """Why a request is denied; "": it is not."""
    asked = AdminRequest(**{"peer": "127.0.0.1", "host": HOST, **brought})  # type: ignore[arg-type]
    denied = gate.denied(asked, now)
    return "" if denied is None else denied.code


@pytest.fixture
def local() -> Gate:
    """On this machine, without a token."""
    return Gate("127.0.0.1", "")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:3005", "localhost", "LOCALHOST:80", "[::1]:3005", "127.8.8.8", "[::ffff:127.0.0.1]"]
)
def test_names_of_this_machine(local: Gate, host: str) -> None:
    """In every form; behind a tunnel the port is another one."""
    assert code(local, host=host) == ""


def test_what_a_proxy_forwards() -> None:
    """Its `Host` may be the proxy's own word, so it needs a token, also for the page."""
    for gate in (Gate("127.0.0.1", ""), Gate("", "")):
        assert code(gate, is_forwarded=True) == code(gate, is_forwarded=True, is_open=True) == "forwarded"
    guarded = Gate("127.0.0.1", TOKEN)
    assert code(guarded, is_forwarded=True) == "no_token"
    assert code(guarded, is_forwarded=True, authorization=f"Bearer {TOKEN}") == ""


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:3005", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0",
        "10.0.0.1:3005", "", "localhost,evil.example", "localhost:x", "user@localhost", "local host", "[::1",
        "x" * 9999,
    ],
)  # fmt: skip
def test_foreign_names(local: Gate, host: str) -> None:
    """A page under such a name may have been led here."""
    assert code(local, host=host) == "host"
    assert code(Gate("", ""), host=host) == "host", "a Unix socket"


def test_the_configured_name_and_all_addresses() -> None:
    """What the plane is bound to is its name; bound to all, each address is one: none is led here."""
    named = Gate("Odinws.internal", TOKEN)
    assert code(named, host="odinws.internal:3005", is_open=True) == ""
    assert code(named, host="other.internal:3005", is_open=True) == "host"
    for everywhere in (Gate("0.0.0.0", TOKEN), Gate("::", TOKEN)):
        assert code(everywhere, host="10.1.2.3:3005", is_open=True) == ""
        assert code(everywhere, host="evil.example", is_open=True) == "host"
        assert code(everywhere, host="evil.example", authorization=f"Bearer {TOKEN}") == ""


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "http://127.0.0.1:8888", "http://localhost:3005", "https://127.0.0.1",
        "http://127.0.0.1:3005.evil.example", "file://127.0.0.1:3005", "127.0.0.1:3005", "",
    ],
)  # fmt: skip
def test_foreign_pages(local: Gate, origin: str) -> None:
    """Of other sites, and of other ports of this one."""
    assert code(local, origin=origin) == "origin"
    assert code(local, origin=origin, fetch_site="same-origin") == "origin"
    assert code(Gate("127.0.0.1", TOKEN), origin=origin, authorization=f"Bearer {TOKEN}") == "origin"


def test_the_own_page_and_those_of_peers(local: Gate) -> None:
    """By the name that the browser has for it; peers by theirs."""
    assert code(local, origin=OWN) == ""
    assert code(local, origin="http://LOCALHOST:8080", host="localhost:8080") == ""
    peered = Gate("127.0.0.1", "", ["http://127.0.0.1:3105"])
    assert code(peered, origin="http://127.0.0.1:3105") == ""
    assert code(peered, origin="http://127.0.0.1:3106") == "origin"


def test_requests_without_an_origin(local: Gate) -> None:
    """Images and links of pages say whose they are; programs say nothing."""
    assert code(local) == code(local, fetch_site="none") == code(local, fetch_site="same-origin") == ""
    for site in ("cross-site", "same-site", "", "x"):
        assert code(local, fetch_site=site) == "site"
        assert code(local, fetch_site=site, is_open=True) == "site"


def test_the_token() -> None:
    """Exactly that one, as a bearer token or, from a page, beside the subprotocol."""
    gate = Gate("127.0.0.1", TOKEN)
    encoded = "bearer.an%20admin's%20token%3A%20%28of%2032%20letters%29"
    assert code(gate) == "no_token"
    assert code(gate, is_open=True) == ""
    for right in (f"Bearer {TOKEN}", f"bearer  {TOKEN} "):
        assert code(gate, authorization=right) == ""
    assert code(gate, protocols=f"odinws, {encoded}", origin=OWN) == ""
    assert code(gate, protocols=encoded) == "no_token"
    for number, wrong in enumerate((f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", "Bearer \udcff")):
        assert code(gate, peer=f"10.0.0.{number}", authorization=wrong) == "wrong_token"
        assert code(gate, peer=f"10.0.0.{number}", authorization=wrong, is_open=True) == "wrong_token"
    for none in (TOKEN, f"Basic {TOKEN}", ""):
        assert code(gate, authorization=none) == "no_token"


def test_wrong_guesses_are_limited() -> None:
    """By address; from then on the right one opens neither, so nobody learns more by guessing faster."""
    gate = Gate("0.0.0.0", TOKEN)
    wrong, right = "Bearer wrong", f"Bearer {TOKEN}"
    for _ in range(WRONG_GUESSES.burst):
        assert code(gate, peer="10.0.0.1", authorization=wrong) == "wrong_token"
    assert code(gate, peer="10.0.0.1", authorization=wrong) == "guesses"
    assert code(gate, peer="10.0.0.1", authorization=right) == "guesses"
    assert code(gate, peer="10.0.0.2", authorization=right) == ""
    later = NOW + 1.0 / WRONG_GUESSES.per_second
    assert code(gate, later, peer="10.0.0.1", authorization=right) == ""
    denied = gate.denied(AdminRequest("10.0.0.1", HOST, authorization=wrong), NOW)
    assert denied is not None
    assert (denied.status, denied.headers) == (429, (("Retry-After", "5"),))


def test_right_guesses_cost_nothing() -> None:
    """Whoever knows the token may ask as often as it likes."""
    gate = Gate("127.0.0.1", TOKEN)
    assert {code(gate, authorization=f"Bearer {TOKEN}") for _ in range(100)} == {""}


@given(st.text(), st.text(), st.text(), st.text(), st.text())
def test_nothing_opens_by_accident(
    host: str, origin: str, site: str, authorization: str, protocols: str
) -> None:
    """Whatever the headers are."""
    asked = AdminRequest("10.0.0.1", host, origin, site, authorization, protocols)
    assert Gate("0.0.0.0", TOKEN).denied(asked, NOW) is not None
