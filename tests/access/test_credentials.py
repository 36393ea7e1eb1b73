"""`odinws.access.credentials`: one token from three places, and none in a log."""

from __future__ import annotations

import contextlib
import time
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.access.credentials import MAX_TOKEN_CHARACTERS, Credentials, check_form, find, redact
from odinws.access.errors import AccessError

TOKEN = "aaa.bbb.cc-_"  # noqa: S105 - has the form of one


def refused(authorization: str | None, protocols: str | None, query: str) -> AccessError:
    """Why a request's credentials are refused."""
    with pytest.raises(AccessError) as caught:
        find(authorization, protocols, query)
    return caught.value


@pytest.mark.parametrize(
    ("authorization", "protocols", "query", "expected"),
    [
        (None, None, "", Credentials(None, None)),
        (f"Bearer {TOKEN}", None, "", Credentials(TOKEN, None)),
        (f"bEARER   {TOKEN} ", None, "x=1", Credentials(TOKEN, None)),
        (f"Bearer {TOKEN}", "odinws", "", Credentials(TOKEN, "odinws")),
        (None, f"odinws, bearer.{TOKEN}", "", Credentials(TOKEN, "odinws")),
        (None, f"bearer.{TOKEN},odinws,other", "", Credentials(TOKEN, "odinws")),
        (None, "odinws", "", Credentials(None, "odinws")),
        (None, "json, xml", "", Credentials(None, None)),
        (None, None, f"token={TOKEN}", Credentials(TOKEN, None)),
        (None, None, f"a=b&access_token={TOKEN}&c", Credentials(TOKEN, None)),
        (None, None, f"%74oken={quote(TOKEN)}", Credentials(TOKEN, None)),
        ("Basic dXNlcjpwYXNz", None, f"token={TOKEN}", Credentials(TOKEN, None)),
        ("Bearer", "json", "Token=x&tokens=y", None),
    ],
)
def test_where_a_token_is_found(
    authorization: str | None, protocols: str | None, query: str, expected: Credentials | None
) -> None:
    """One of three places, and the subprotocol of the answer, which is never the token."""
    if expected is None:
        assert refused(authorization, protocols, query).status == 401
    else:
        assert find(authorization, protocols, query) == expected


@pytest.mark.parametrize(
    ("authorization", "protocols", "query"),
    [
        (f"Bearer {TOKEN}", None, f"token={TOKEN}"),
        (f"Bearer {TOKEN}", f"odinws, bearer.{TOKEN}", ""),
        (None, f"odinws, bearer.{TOKEN}", f"access_token={TOKEN}"),
        (None, f"odinws, bearer.{TOKEN}, bearer.{TOKEN}", ""),
        (None, None, f"token={TOKEN}&access_token={TOKEN}"),
        (None, None, f"token={TOKEN}&token={TOKEN}"),
        ("Bearer ", None, f"token={TOKEN}"),
    ],
)
def test_two_tokens_are_refused_even_if_equal(
    authorization: str | None, protocols: str | None, query: str
) -> None:
    """400: nobody guesses which one was meant."""
    error = refused(authorization, protocols, query)
    assert (error.status, error.message) == (400, "more than one token; send it once")


def test_a_token_alone_among_the_subprotocols_is_refused() -> None:
    """A browser would give up the connection, as no name that it offered can be answered."""
    error = refused(None, f"bearer.{TOKEN}", "")
    assert (error.status, error.message) == (400, "offer the subprotocol odinws beside the token")


def test_a_query_has_a_bound() -> None:
    """64 fields can be read, more are refused."""
    assert find(None, None, "&".join(["a=b"] * 63 + [f"token={TOKEN}"])).token == TOKEN
    assert refused(None, None, "&".join(["a=b"] * 65)).status == 400


@pytest.mark.parametrize(
    "wrong", ["", "a", "a.b", "a.b.", "..", "a.b.c.d", "a.b.c=", "a .b.c", "é.b.c", "a.b.c\n"]
)
def test_what_is_no_signed_jwt_is_refused_before_it_is_decoded(wrong: str) -> None:
    """401; an unsigned JWT ends with a dot."""
    with pytest.raises(AccessError) as caught:
        check_form(wrong)
    assert caught.value.status == 401
    assert refused(None, None, f"token={quote(wrong)}").status == 401


def test_a_token_has_a_bound() -> None:
    """8192 characters pass, one more is refused."""
    longest = "a" * (MAX_TOKEN_CHARACTERS - 4) + ".b.c"
    check_form(longest)
    with pytest.raises(AccessError, match="longer than 8192"):
        check_form("a" + longest)


def test_credentials_do_not_show_their_token() -> None:
    """Where they are printed or logged by mistake."""
    assert TOKEN not in f"{Credentials(TOKEN, 'odinws')!r} {Credentials(TOKEN, None)}"
    assert repr(Credentials(None, None)) == "Credentials(token=None, subprotocol=None)"


@given(st.text(), st.text(), st.text())
def test_any_request_is_answered(authorization: str, protocols: str, query: str) -> None:
    """With credentials or an AccessError."""
    with contextlib.suppress(AccessError):
        assert find(authorization, protocols, query).subprotocol in (None, "odinws")


# -- logs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "logged"),
    [
        ("/ws", "/ws"),
        ("/ws?a=1&b=2", "/ws?a=1&b=2"),
        (f"/ws?token={TOKEN}", "/ws?token=***"),
        (f"token={TOKEN}", "token=***"),
        (f"a=1&access_token={TOKEN}&b=2", "a=1&access_token=***&b=2"),
        (f"GET /ws?token={TOKEN} HTTP/1.1", "GET /ws?token=*** HTTP/1.1"),
        (f"wss://a.test/ws?x&%74oken={TOKEN}#f", "wss://a.test/ws?x&%74oken=***"),
        (f"/ws?TOKEN={TOKEN}&+access%5Ftoken+={TOKEN}", "/ws?TOKEN=***&+access%5Ftoken+=***"),
        ("/ws?token=aaa;bbb?ccc#ddd=eee&f=g", "/ws?token=***&f=g"),
        (f"/ws;token={TOKEN}?a=1", "/ws;token=***"),
        ("/ws?tokens=1&mytoken=2&token", "/ws?tokens=1&mytoken=2&token"),
    ],
)
def test_redact(target: str, logged: str) -> None:
    """Values of tokens are masked, all else stays."""
    assert redact(target) == logged


@given(
    before=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3),
    name=st.sampled_from(["token", "access_token", "%74oken", "access%5ftoken"]),
    value=st.text("ABCDEFGH;?#=%+ '\"/.", min_size=1, max_size=20).map(lambda text: f"SECRET{text}SECRET"),
    around=st.sampled_from(["{}", "/ws?{}", "GET /ws?{} HTTP/1.1", "https://a.test/ws?x=1&{}&y=2"]),
)
@example([], "token", "SECRET HTTP/1.1SECRET", "{}")
def test_what_is_read_as_a_token_is_never_logged(
    before: list[tuple[str, str]], name: str, value: str, around: str
) -> None:
    """Every field that the reader takes for a token is masked, also if it is malformed."""
    query = f"{urlencode(before)}&{name}={value}"
    assert [v for n, v in parse_qsl(query) if n in ("token", "access_token")]
    assert "SECRET" not in redact(around.format(query))


@pytest.mark.parametrize(
    "unit", ["token=", ";token=", "&token=a", "?", ";", "%74", " HTTP/1.1", " HTTP/1", "+"]
)
def test_redacting_takes_time_in_proportion(unit: str) -> None:
    """A URL of 10 times the length, 10 times the time, with room for a machine that is busy."""

    def seconds(size: int) -> float:
        text, took = "token=" + unit * (size // len(unit)), []
        for _ in range(5):
            began = time.process_time()  # of this process alone, however busy the machine is
            redact(text)
            took.append(time.process_time() - began)
        return min(took)

    assert seconds(200_000) < 50 * seconds(20_000) + 0.001


@given(st.text())
def test_redacting_again_changes_nothing(text: str) -> None:
    """And any text can be redacted."""
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [("x, lines, odinws", "lines"), ("odinws, lines", "odinws"), ("x", None), ("lines", "lines"), ("", None)],
)
def test_the_first_format_that_is_known_is_agreed_on(offered: str, agreed: str | None) -> None:
    """Or none; a token may stand beside any of them."""
    assert find(None, offered, "", ("lines",)).subprotocol == agreed
    if agreed is not None:
        assert find(None, f"{offered}, bearer.{TOKEN}", "", ("lines",)) == Credentials(TOKEN, agreed)
