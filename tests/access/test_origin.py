"""`odinws.access.origin`: exact origins, patterns, and all that only looks like them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.access.origin import Origins

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
hosts = st.lists(labels, min_size=1, max_size=4).map(".".join)


def allows(listed: str, origin: str | None, *, without: bool = False) -> bool:
    """Whether a list allows an origin."""
    return Origins.parse(listed).allow(origin, without=without)


@pytest.mark.parametrize(
    ("listed", "origin"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com:443", "https://example.com"),
        ("http://example.com:80", "http://example.com"),
        ("HTTPS://Example.COM", "https://example.com"),
        ("https://example.com", "HTTPS://EXAMPLE.com"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("https://a.test, https://b.test", "https://b.test"),
        ("http://[::1]:3000", "http://[0:0:0:0:0:0:0:1]:3000"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("http://localhost", "http://localhost:80"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("https://*.example.com", "https://a.example.com"),
        ("https://*.example.com", "https://a.b.c.example.com:443"),
        ("https://*.example.com:8443", "https://a.example.com:8443"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("*", "https://anything.test:1234"),
        ("null", "null"),
        ("*, null", "null"),
        ("https://example.com", "https://example.com/"),
        ("https://example.com/", "https://example.com"),
        ("file://", "file://"),
        ("file://", "file:///"),
        ("file:///", "FILE://"),
        ("app://", "app://"),
        ("*", "null"),
        ("*", "file://"),
        ("*", ""),
        ("*", "https://example.com/"),
        ("*", "not an origin"),
        ("*", "https://bücher.example"),
        ("*", f"https://{'a' * 400}.test"),
    ],
)
def test_allowed(listed: str, origin: str) -> None:
    """The same origin in another form, a name below a pattern, or all."""
    assert allows(listed, origin, without=True)


@pytest.mark.parametrize(
    ("listed", "origin"),
    [
        ("https://example.com", "http://example.com"),
        ("https://example.com", "https://example.com:8443"),
        ("https://example.com", "https://example.com:80"),
        ("https://example.com", "https://a.example.com"),
        ("https://example.com", "https://example.com.evil.test"),
        ("https://example.com", "https://evilexample.com"),
        ("https://example.com", "https://example.com."),
        ("https://example.com", "https://example.com//"),
        ("https://example.com", "https://example.com/path"),
        ("https://example.com", "file://"),
        ("file://", "null"),
        ("file://", "file://host"),
        ("file://", "file://etc/passwd"),
        ("file://", "https://"),
        ("https://example.com", "https://user@example.com"),
        ("https://example.com", "https://example.com, https://evil.test"),
        ("https://example.com", "https://example.com\n"),
        ("https://example.com", "null"),
        ("https://example.com", ""),
        ("capacitor://localhost", "capacitor://localhost:80"),
        ("https://*.example.com", "https://example.com"),
        ("https://*.example.com", "https://evilexample.com"),
        ("https://*.example.com", "https://.example.com"),
        ("https://*.example.com", "https://*.example.com"),
        ("https://*.example.com", "http://a.example.com"),
        ("https://*.example.com", "https://a.example.com:8443"),
        ("https://*.example.com", "https://a.example.com.evil.test"),
        ("https://*.example.com", "https://evil.test/.example.com"),
        ("https://*.example.com", "https://evil.test#.example.com"),
        ("", "https://example.com"),
        ("", ""),
    ],
)
def test_refused(listed: str, origin: str) -> None:
    """Anything that is not exactly listed."""
    assert not allows(listed, origin)


@pytest.mark.parametrize("listed", ["", "*", "null", "https://example.com"])
def test_without_an_origin_the_caller_decides(listed: str) -> None:
    """The list is about pages; a client that is none sends no origin."""
    assert allows(listed, None, without=True)
    assert not allows(listed, None, without=False)


@pytest.mark.parametrize(
    "wrong",
    [
        "example.com",
        "https://",
        "https://example.com//",
        "https://example.com/path",
        "https://*",
        "https://a.*.com",
        "https://*a.com",
        "https://**.a.com",
        "https://a.com:65536",
        "https://a..com",
        "https://[::1",
        "https://[::g]",
        "https://bücher.example",
        "https://a.com b",
    ],
)
def test_a_list_that_is_wrong_names_its_part(wrong: str) -> None:
    """At the start, not when the first client is refused."""
    with pytest.raises(ValueError, match="is no origin") as caught:
        Origins.parse(f"https://good.test,{wrong}")
    assert repr(wrong) in str(caught.value)


@given(host=hosts, port=st.integers(0, 65535), scheme=st.sampled_from(["http", "https"]))
def test_an_origin_matches_itself_and_no_other_port(host: str, port: int, scheme: str) -> None:
    """Whatever host and port."""
    origin = f"{scheme}://{host}:{port}"
    assert allows(origin, origin.upper())
    assert not allows(origin, f"{scheme}://{host}:{(port + 1) % 65536}")


@given(host=hosts, below=hosts)
def test_a_pattern_is_a_suffix_of_whole_labels(host: str, below: str) -> None:
    """Names below match; the name itself and longer labels do not."""
    pattern = f"https://*.{host}"
    assert allows(pattern, f"https://{below}.{host}")
    assert not allows(pattern, f"https://{below}{host}") or f"{below}{host}".endswith(f".{host}")


@given(st.text(max_size=40))
def test_any_text_is_answered(text: str) -> None:
    """A header may hold anything."""
    assert not allows("https://example.com", text) or text.lower().startswith("https://example.com")
