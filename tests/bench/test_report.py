"""The table and the picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.report import picture, ratio_text, show
from bench.summary import Ratio, rows
from tests.bench.results import impossible, result, void

RESULTS: list[Any] = [
    *(result("c-loop", number, 2.0 + number / 10) for number in (1, 2)),
    *(result("odinws:sync-dict", number, 3.0 + number / 10) for number in (1, 2)),
    void("node-ws", 1, "client used 95% of a core"),
    impossible("gorilla", 1, "open files"),
    result("c-loop", 1, None, "idle", cpu_user_us_per_message=None, cpu_system_us_per_message=None),
]


def shown(missing: dict[str, str], results: list[Any] = RESULTS) -> str:
    """What a console of 200 columns shows of results."""
    out = io.StringIO()
    show(Console(file=out, width=200), rows(results, "c-loop"), missing, "c-loop")
    return out.getvalue()


def test_the_table_has_scenarios_arms_and_ratios() -> None:
    """Each scenario is a table; cheaper arms stand above dearer ones."""
    text = shown({})
    assert "single: one channel" in text
    assert "idle: 10,000 connections" in text
    assert text.index("│ c-loop") < text.index("│ odinws:sync-dict") < text.index("│ node-ws")
    assert "1.47" in text, "3.1 to 2.1 and 3.2 to 2.2"


def test_what_is_void_or_missing_is_said() -> None:
    """No arm disappears without a word."""
    text = shown({"uwebsockets": "npm is not installed"})
    assert "node-ws: void: client used 95% of a core" in text
    assert "gorilla: impossible: open files" in text
    assert "missing: uwebsockets: npm is not installed" in text


def test_baselines_and_what_a_scenario_shows_besides() -> None:
    """A second table has the arm against itself, and the figures that the scenario asks for."""
    pair = [
        result("a", 1, 2.0, "compressed-off"),
        result("a", 1, 3.0, "compressed", wire_bytes_per_message=99),
    ]
    text = shown({}, pair)
    assert "CPU/msg x compressed-off" in text
    assert "p99 x compressed-off" in text
    assert "wire B/msg" in text
    assert "1.50" in text
    assert "x single" not in text, "it is not in the run"


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (None, "-"),
        (Ratio(1.5, 1.5, 1.5, 0.0, 1), "1.50"),
        (Ratio(1.5, 1.2, 1.8, 0.9375, 5), "1.50\n1.20-1.80 (94%)"),
        (Ratio(1.5, 1.2, 1.8, 0.96875, 6), "1.50\n1.20-1.80"),
    ],
)
def test_a_weak_interval_says_so(ratio: Ratio | None, text: str) -> None:
    """Confidence below 95 % is stated; one round has no interval at all."""
    assert ratio_text(ratio) == text


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    """The picture is drawn, arms without figures and all."""
    path = tmp_path / "picture.png"
    picture(path, rows(RESULTS, "c-loop"))
    assert path.read_bytes().startswith(b"\x89PNG")
