"""The documentation says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from odinws.cli import cli
from odinws.close_codes import CloseReason

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def test_the_table_of_settings_is_that_of_the_code() -> None:
    """`python -m odinws settings` prints what docs/operations.md shows."""
    table = CliRunner().invoke(cli, ["settings"]).output
    assert table in (ROOT / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("reason", [r for r in CloseReason if r is not CloseReason.GONE], ids=str)
def test_every_close_code_is_in_the_protocol(reason: CloseReason) -> None:
    """Code and label stand in the table of docs/protocol.md."""
    text = (ROOT / "docs" / "protocol.md").read_text()
    assert re.search(rf"\| [\d, ]*{reason.code}[\d, ]* \|.*`{reason.label}`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the repository."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]
