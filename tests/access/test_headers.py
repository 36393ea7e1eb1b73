"""`odinws.access.headers`: fixed sets, and a page that they do not break."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

import odinws
from odinws.access.headers import page_headers, security_headers

PAGE = Path(odinws.__file__).with_name("dashboard")


def headers_of(*, page: bool) -> Mapping[str, str]:
    """Those of the page, or of all else."""
    return page_headers() if page else security_headers()


def policy(*, page: bool) -> dict[str, str]:
    """The content security policy by directive."""
    parts = headers_of(page=page)["Content-Security-Policy"].split("; ")
    return {name: values for name, _, values in (part.partition(" ") for part in parts)}


@pytest.mark.parametrize("page", [True, False])
def test_what_all_answers_say(page: bool) -> None:
    """No guessing of types, no frames, no referrer (URLs may carry a token), nothing but what is listed."""
    headers = headers_of(page=page)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == ("no-cache" if page else "no-store")
    assert policy(page=page)["default-src"] == "'none'"
    assert policy(page=page)["frame-ancestors"] == "'none'"
    assert policy(page=page)["base-uri"] == "'none'"
    assert all("unsafe" not in value and "*" not in value for value in policy(page=page).values())


def test_the_page_connects_to_its_own_host_and_to_those_that_are_named() -> None:
    """No scheme alone, which would be every host."""
    assert policy(page=True)["connect-src"] == "'self'"
    named = page_headers(("ws://127.0.0.1:3105",))["Content-Security-Policy"]
    assert "connect-src 'self' ws://127.0.0.1:3105;" in named


def test_the_sets_are_fixed() -> None:
    """They are shared by all answers."""
    with pytest.raises(TypeError):
        page_headers()["X"] = "y"  # type: ignore[index]


def test_the_page_needs_nothing_inline() -> None:
    """Scripts, styles and icon are files of its own: `'self'` is enough."""
    html = (PAGE / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|data:", html) == []
    assert re.findall(r"(?:src|href)=\"(?:[a-z]+:)?//", html) == []
    for script in PAGE.glob("*.js"):
        found = re.findall(r"\beval\(|\bFunction\(|innerHTML|\.cssText|[\"']style[\"']", script.read_text())
        assert found == [], script
    for style in PAGE.glob("*.css"):
        assert re.findall(r"@import|url\(", style.read_text()) == []
