"""The documentation says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from odinws.cli import cli
from odinws.close_codes import NATIVE, centrifugo_table, table

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def test_the_table_of_settings_is_that_of_the_code() -> None:
    """`python -m odinws settings` prints what docs/operations.md shows."""
    settings = CliRunner().invoke(cli, ["settings"]).output
    assert settings in (ROOT / "docs" / "operations.md").read_text()


def test_the_table_of_close_codes_is_that_of_the_code() -> None:
    """`python -m odinws close-codes` prints what docs/protocol.md and docs/centrifugo.md show."""
    printed = CliRunner().invoke(cli, ["close-codes"]).output
    assert printed == f"{table()}\n{centrifugo_table()}"
    assert table().count("\n") == 2 + len(NATIVE)
    assert table() in (ROOT / "docs" / "protocol.md").read_text()
    assert centrifugo_table() in (ROOT / "docs" / "centrifugo.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the repository."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]
