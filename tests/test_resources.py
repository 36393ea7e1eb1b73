"""What comes with odinws beside its modules is found in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

import pytest

from odinws import resources


def test_in_a_checkout() -> None:
    """It lies beside the packages."""
    assert resources.find("locustfiles/fanout.py") == Path(__file__).parents[1] / "locustfiles" / "fanout.py"
    assert resources.find("conf/experiments").is_dir()
    with pytest.raises(FileNotFoundError, match="did not come with this odinws"):
        resources.find("nowhere.txt")


def test_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies within the package, which goes before whatever lies beside that."""
    for directory in (tmp_path / "odinws", tmp_path):
        (directory / "conf").mkdir(parents=True)
        (directory / "conf" / "flags.json").write_text("{}")
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "odinws")
    monkeypatch.setattr(resources, "PACKAGES", tmp_path)
    assert resources.find("conf/flags.json") == tmp_path / "odinws" / "conf" / "flags.json"
