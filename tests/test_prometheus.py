"""`conf/prometheus`, `conf/grafana` and `compose.yaml`: they are valid, and name what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from odinws.feed.embedded import find_nats_server
from odinws.metrics import catalogue
from odinws.shared.fields import Histogram
from tests.nats_exporter import JETSTREAM_SERVER, JETSTREAM_STREAM
from tests.prometheus import CONF, promtool
from tests.server import PATIENCE_SECONDS, ROOT, free_port, wait_for

ALERTS = yaml.safe_load((CONF / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
NAMES = [rule["alert"] for rule in RULES if "alert" in rule]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
DASHBOARD = ROOT / "conf" / "grafana" / "dashboards" / "odinws.json"


def samples() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The names of all samples of `/metrics`, and the labels they have."""
    for metric in [metric for part in catalogue.SECTIONS.values() for metric in part]:
        ends = ("_bucket", "_sum", "_count") if isinstance(metric, Histogram) else ("",)
        yield from ((metric.shown_name + end, metric.labels) for end in ends)


def named(expression: str) -> set[str]:
    """The metrics that an expression asks for."""
    return set(re.findall(r"\b(?:ws|gnatsd|jetstream)[_:][a-z_:]+", re.sub(r'"[^"]*"', "", expression)))


def expressions() -> list[str]:
    """All of the alerts and of the dashboard."""
    shared = json.loads(DASHBOARD.read_text())
    panels = [target["expr"] for panel in shared["panels"] for target in panel.get("targets", ())]
    variables = [variable["definition"] for variable in shared["templating"]["list"]]
    return [*(rule["expr"] for rule in RULES), *panels, *variables]


def test_prometheus_takes_the_configuration_and_the_rules(tmp_path: Path) -> None:
    """Prometheus's own check."""
    own = Path(shutil.copytree(CONF, tmp_path / "prometheus"))
    token = own / "admin-token"
    token.touch()
    config = own / "prometheus.yml"
    config.write_text(config.read_text().replace("/run/odinws/admin-token", str(token)))
    assert "FAILED" not in promtool("check", "config", str(config), directory=ROOT)
    assert "FAILED" not in promtool("check", "rules", "conf/prometheus/alerts.yml", directory=ROOT)


def test_each_alert_fires_and_clears() -> None:
    """With made-up series, by Prometheus's own tester; no alert is left out."""
    assert "FAILED" not in promtool("test", "rules", "conf/prometheus/tests/alerts.yml", directory=ROOT)
    seen: dict[str, list[bool]] = {name: [] for name in NAMES}
    for case in yaml.safe_load((CONF / "tests" / "alerts.yml").read_text())["tests"]:
        for moment in case["alert_rule_test"]:
            seen[moment["alertname"]].append(bool(moment["exp_alerts"]))
    assert seen == {name: [False, True, False] for name in NAMES}


@pytest.mark.parametrize("rule", [rule for rule in RULES if "alert" in rule], ids=lambda rule: rule["alert"])
def test_each_alert_has_its_paragraph(rule: dict[str, Any]) -> None:
    """In docs/operations.md, under its name, where it points to."""
    name = rule["alert"]
    text = (ROOT / "docs" / "operations.md").read_text()
    assert re.search(rf"(?m)^### {name}\n\n\w", text)
    assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
    assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_no_paragraph_is_without_its_alert() -> None:
    """One that is renamed takes its paragraph along."""
    part = (ROOT / "docs" / "operations.md").read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    assert re.findall(r"(?m)^### (.+)$", part) == [
        *sorted(re.findall(r"(?m)^### (.+)$", part), key=NAMES.index)
    ]


def test_every_metric_that_is_asked_for_exists() -> None:
    """In the exposition, among the recorded ones, or at the exporter of nats-server."""
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    asked = {name for expression in expressions() for name in named(expression)}
    ours = {name for name in asked if name.startswith("ws")}
    assert ours <= dict(samples()).keys() | recorded
    assert {name for name in asked if name.startswith("jetstream")} == {
        *JETSTREAM_SERVER,
        *JETSTREAM_STREAM,
    }
    assert len(ours) > 50


def test_no_file_names_a_metric_that_is_not_there() -> None:
    """Of Prometheus's and Grafana's configuration, texts, made-up series and links included."""
    known, found = dict(samples()).keys(), set()
    for path in [*CONF.rglob("*"), *(ROOT / "conf" / "grafana").rglob("*")]:
        if path.is_file():
            found |= set(re.findall(r"\bws_[a-z_]+", path.read_text()))
    assert found <= known
    assert len(found) > 50


def test_what_is_divided_is_put_together() -> None:
    """A total that stands in several parts, or a worker whose strategy changes, makes no second series."""
    divided = {name for name, labels in samples() if set(catalogue.PART_LABELS) & set(labels)}
    wrapped = re.compile(r"(?:sum|min|max|avg)(?:by\([\w,]+\))?\((?:(?:rate|increase)\()?$")
    for expression in expressions():
        dense = re.sub(r"\s", "", expression)
        for found in re.finditer(r"\bws_\w+", dense):
            if found[0] in divided:
                assert wrapped.search(dense[: found.start()]), (found[0], expression)


def test_nats_server_has_what_is_asked_of_it(tmp_path: Path) -> None:
    """The exporter makes a metric of each number in `/varz`. Compose's configuration is good."""
    port = free_port()
    text = (ROOT / "conf" / "nats-server-compose.conf").read_text()
    text = text.replace("0.0.0.0:8222", f"127.0.0.1:{port}").replace("0.0.0.0:4222", "127.0.0.1:-1")
    config = tmp_path / "nats-server.conf"
    config.write_text(text.replace("/data", str(tmp_path / "data")))
    with subprocess.Popen((find_nats_server(), "-c", str(config)), stderr=subprocess.DEVNULL) as process:
        try:
            varz = wait_for(lambda: _ask(f"http://127.0.0.1:{port}/varz"), 10.0, "nats-server answers")
            jsz = _ask(f"http://127.0.0.1:{port}/jsz?consumers=true&config=true")
        finally:
            process.terminate()
    asked = {name for expression in expressions() for name in named(expression)}
    for name in asked:
        if name.startswith("gnatsd_varz_"):
            assert isinstance(varz[name.removeprefix("gnatsd_varz_")], int | float)
    assert {"streams", "bytes", "config"} <= jsz.keys()
    assert jsz["config"]["max_storage"] == 2 << 30


def _ask(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            return json.load(answer)
    except OSError:
        return None


def test_the_dashboard_can_be_drawn() -> None:
    """Every panel has a title, a place that is its own, and asks the source that is provisioned."""
    shared = json.loads(DASHBOARD.read_text())
    source = yaml.safe_load((ROOT / "conf/grafana/provisioning/datasources/prometheus.yml").read_text())
    taken: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in shared["panels"]}) == len(shared["panels"])
    for panel in shared["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert panel["title"]
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == source["datasources"][0]["uid"]


def test_the_dashboard_is_of_grafanas_model() -> None:
    """Read and written again by Grafana's own library, every field is there still, with the value it had."""
    shared = json.loads(DASHBOARD.read_text())
    plugins.register_default_plugins()
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(shared)))
    unknown = {"definition", "titleFormat"}  # of variables and annotations: sources' own, so not in the model
    assert set(changed(shared, again)) == unknown


def changed(before: Any, after: Any, name: str = "") -> Iterator[str]:
    """Names of the fields of `before` that `after` has not, or not so."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from changed(value, after[key], key) if key in after else [key]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for one, other in zip(before, after, strict=True):
            yield from changed(one, other, name)
    elif before != after:
        yield name


def test_compose_bounds_each_service() -> None:
    """Memory, processes and CPU; nobody gains privileges, and only this machine reaches a port."""
    for name, service in COMPOSE["services"].items():
        assert {"mem_limit", "pids_limit", "cpus"} <= service.keys(), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
    grafana = COMPOSE["services"]["grafana"]["environment"]
    assert grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert grafana["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"


def test_the_token_of_compose_is_made_once_and_by_chance(tmp_path: Path) -> None:
    """The program that makes it, run here."""
    program = COMPOSE["services"]["admin-token"]["command"][2].replace("/run/odinws", str(tmp_path))
    tokens = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], check=True)
        tokens.append((tmp_path / "admin-token").read_text())
    assert tokens[0] == tokens[1]
    assert len(tokens[0]) >= 32
    (tmp_path / "admin-token").unlink()
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "admin-token").read_text() != tokens[0]


def test_compose_brings_up_what_is_configured() -> None:
    """Each file that is mounted is there, each port that somebody asks is of a service that has it."""
    services = COMPOSE["services"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            origin = volume.partition(":")[0]
            assert (ROOT / origin).exists() if origin.startswith(".") else origin in COMPOSE["volumes"]
        assert set(service.get("depends_on", ())) <= set(services)
    config = yaml.safe_load((CONF / "prometheus.yml").read_text())
    targets = [target for job in config["scrape_configs"] for target in job["static_configs"][0]["targets"]]
    assert targets == ["odinws:3005", "nats-exporter:7777"]
    assert {target.partition(":")[0] for target in targets} <= set(services)
    [job] = [job for job in config["scrape_configs"] if job["job_name"] == "odinws"]
    path = job["authorization"]["credentials_file"]
    assert services["odinws"]["environment"]["WS_ADMIN_TOKEN_FILE"] == path
    assert all("admin:/run/odinws:ro" in services[name]["volumes"] for name in ("odinws", "prometheus"))
    provider = yaml.safe_load((ROOT / "conf/grafana/provisioning/dashboards/odinws.yml").read_text())
    path = provider["providers"][0]["options"]["path"]
    assert f"./conf/grafana/dashboards:{path}:ro" in services["grafana"]["volumes"]
