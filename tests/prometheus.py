"""Debian's Prometheus for tests: `promtool`, and a server that scrapes."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from odinws.harness import fetch
from odinws.harness.ports import free_port
from odinws.harness.process import Process
from tests.programs import find
from tests.server import PATIENCE_SECONDS, ROOT

CONF = ROOT / "conf" / "prometheus"
WINDOW = "5s"
PACKAGE = "prometheus"  # of Debian
SECONDS = 60.0


def promtool(*arguments: str, stdin: bytes = b"", directory: Path | None = None) -> str:
    """What promtool says; it must find no fault."""
    done = subprocess.run(
        (find("promtool", PACKAGE), *arguments),
        input=stdin,
        capture_output=True,
        timeout=SECONDS,
        cwd=directory,
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


class Prometheus(Process):
    """Debian's Prometheus with the repository's configuration and alerts, in a hurry, from `with` to its end.

    It looks once a second; every window of the alerts is `WINDOW`, and none waits longer than a second before
    it fires.

    Args:
        directory: where it keeps all it has.
        targets: by job; jobs that are not named are left out.
    """

    def __init__(self, directory: Path, targets: Mapping[str, Sequence[str]]) -> None:
        self._port = free_port()
        command = (
            find("prometheus", PACKAGE),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{self._port}",
        )
        super().__init__(command, directory / "log", directory=directory)
        config = yaml.safe_load((CONF / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        jobs = [job for job in config["scrape_configs"] if job["job_name"] in targets]
        for job in jobs:
            job.pop("authorization", None)  # our servers ask for no token
            job["static_configs"] = [{"targets": list(targets[job["job_name"]])}]
        config["scrape_configs"] = jobs
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        rules = (CONF / "alerts.yml").read_text()
        rules = re.sub(r"\[\d+[smh]\]", f"[{WINDOW}]", rules)
        rules = re.sub(r"(?m)^( +for:) .*$", r"\1 1s", rules)
        (directory / "alerts.yml").write_text(rules)

    def __enter__(self) -> Self:
        self.start()
        self.wait_until(lambda: fetch.answers(self._port, "/-/ready"), SECONDS, "ready")
        return self

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query, as the API has them."""
        body = json.loads(
            fetch.body(self._port, "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        )
        found: list[dict[str, Any]] = body["data"]["result"]
        return found

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts = json.loads(fetch.body(self._port, "/api/v1/alerts"))["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def expect(self, *names: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until all of these have fired, each at some moment."""
        left = set(names)

        def seen() -> bool:
            left.difference_update(self.firing())
            return not left

        self._wait(seen, seconds, lambda: f"these fire: {sorted(left)}; now {sorted(self.firing())}")

    def expect_cleared(self, *names: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until none of these fires."""
        self._wait(
            lambda: not self.firing() & set(names),
            seconds,
            lambda: f"these clear: {sorted(self.firing() & set(names))}",
        )

    @staticmethod
    def _wait(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what()}"
            time.sleep(0.2)
