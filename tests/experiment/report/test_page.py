"""The page: in a real browser, without a server, with the figures of result.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from odinws.experiment.kinds import End, Record, Run, Trial
from odinws.experiment.measures import MEASURES
from odinws.experiment.record import writing
from odinws.experiment.report import finish
from odinws.experiment.result import percent
from tests.browser import Browser, Page
from tests.experiment.synthetic import plan, run

SECONDS = 60.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def _reported(directory: Path, records: list[Record]) -> tuple[str, dict[str, Any]]:
    with writing(directory) as write:
        for record in records:
            write(record)
    finish(directory)
    return (directory / "report.html").as_uri(), json.loads((directory / "result.json").read_text())


def _drawn(page: Page, measure: str) -> None:
    page.until(f"document.body.dataset.drawn === {json.dumps(measure)}", SECONDS, f"{measure} is drawn")


def test_the_page_agrees_with_the_result(browser: Browser, tmp_path: Path) -> None:
    """The answer first, then every row, with the same figures; nothing is asked of any host; no error."""
    factors = {"b": {"cpu_us_per_message": 1.3}, "c": {"lost": 2.0}}
    url, result = _reported(tmp_path, run(plan(3), 1, factors))
    with browser.page(url) as page:
        _drawn(page, "cpu_us_per_message")
        assert page.evaluate("document.querySelector('main').innerText").startswith(result["answer"])
        assert (
            page.evaluate("document.getElementById('verdict').textContent") == result["verdict"] == "failed"
        )
        found = "document.querySelectorAll('#measures tbody tr')"
        rows = page.evaluate(f"[...{found}].map(row => ({{...row.dataset, text: row.innerText}}))")
        assert len(rows) == len(result["measures"]) == 2 * len(MEASURES)
        for row, expected in zip(rows, result["measures"], strict=True):
            assert (row["measure"], row["arm"]) == (expected["measure"], expected["arm"])
            for name in ("shift", "p", "interval"):
                assert json.loads(row[name]) == expected[name]
            assert expected["verdict"] in row["text"]
            if expected["shift"] is not None:
                assert percent(expected["shift"]) in row["text"]
        assert page.errors == []
        assert page.failures == []
        assert page.requests == [url]


def test_why_connections_failed(tmp_path: Path) -> None:
    """By trial; what a server said is text. Without such trials there is no such table."""
    records = run(plan(), 1)
    assert 'id="errors"' not in _text(tmp_path / "sound", records)
    records = [
        msgspec.structs.replace(record, errors={"refused with 503 (<b>)": 1895})
        if isinstance(record, Trial) and (record.arm, record.round) == ("b", 3)
        else record
        for record in records
    ]
    found = _text(tmp_path / "failed", records).partition('id="errors"')[2].partition("</table>")[0]
    for cell in (">3<", ">b<", ">1,895<", ">refused with 503 (&lt;b&gt;)<"):
        assert cell in found
    assert found.count("1,895") == 1


def _text(directory: Path, records: list[Record]) -> str:
    _reported(directory, records)
    return (directory / "report.html").read_text()


def test_pictures_show_what_was_recorded(browser: Browser, tmp_path: Path) -> None:
    """Rounds, seconds and samples as they are in the records; another measure can be chosen."""
    records = run(plan(), 1)
    url, _ = _reported(tmp_path, records)
    raw = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    trials = [each for each in raw if each["kind"] == "trial" and each["arm"] == "b"]
    with browser.page(url, dark=True) as page:
        _drawn(page, "cpu_us_per_message")
        rounds = page.evaluate("document.getElementById('by-round').data.map(t => [t.name, t.x, t.y])")
        assert [trace[0] for trace in rounds] == ["a", "b"]
        assert rounds[1][1] == [trial["round"] for trial in trials]
        expected = [trial["values"]["cpu_us_per_message"] for trial in trials]
        assert rounds[1][2] == pytest.approx(expected, rel=1e-4)
        lines = page.evaluate("document.getElementById('over-time').data.map(t => [t.name, t.x.length])")
        assert lines == [["a", 18]] * 6 + [["b", 18]] * 6
        boxes = page.evaluate("document.getElementById('distribution').data.map(t => [t.type, t.y.length])")
        assert boxes == [["box", 90]] * 2  # without the warm-up
        page.evaluate("(choice.value = 'delivery_p99_ms', choice.dispatchEvent(new Event('change')))")
        _drawn(page, "delivery_p99_ms")
        shares = page.evaluate("document.getElementById('distribution').data[1].y")
        counts = [
            sum(column)
            for column in zip(*(t["histograms"]["delivery"]["counts"] for t in trials), strict=True)
        ]
        reached = [100 * sum(counts[: n + 1]) / sum(counts) for n in range(len(counts) - 1)]
        assert shares == pytest.approx(reached, rel=1e-3)
        assert page.errors == []


def test_a_run_with_nothing_in_it(browser: Browser, tmp_path: Path) -> None:
    """A page all the same, marked as partial, and no error."""
    url, result = _reported(tmp_path, [*run(plan(), 1)[:1], End(status="partial", why="<b>Ctrl-C</b>")])
    assert result["status"] == "partial"
    with browser.page(url) as page:
        assert page.evaluate("document.getElementById('status').textContent") == "partial"
        assert page.evaluate("document.querySelector('h1').textContent").startswith(
            "Partial, <b>Ctrl-C</b>: "
        )
        assert page.errors == []


def test_secrets_stay_at_home(tmp_path: Path) -> None:
    """A report is handed on, so what looks like a secret is not in it."""
    records = run(plan(), 1)
    (first,) = [record for record in records if isinstance(record, Run)]
    first.plan.arms[1].settings["WS_JWT_SECRET"] = first.settings["b"]["WS_JWT_SECRET"] = "swordfish"  # noqa: S105
    _reported(tmp_path, records)
    text = (tmp_path / "report.html").read_text()
    assert "swordfish" not in text
    assert text.count("WS_JWT_SECRET") == 2
