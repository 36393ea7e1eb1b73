"""The rules of `docs/design.md` about who may know whom, read from the imports of the source."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# Packages and modules at the top, lowest first: each may import only those before it.
# `docs/design.md` says what each of them is, in the same order.
LAYERS = (
    "strategies",
    "odinws",
    "odinws.close_codes",
    "odinws.errors",
    "odinws.client",
    "odinws.histogram",
    "odinws.resources",
    "odinws.swarm",
    "odinws.recycling",
    "odinws.logs",
    "odinws.scheduling",
    "odinws.cgroup",
    "odinws.assignment",
    "odinws.strategy_check",
    "odinws.messages",
    "odinws.access",
    "odinws.settings",
    "odinws.shared",
    "odinws.feed",
    "odinws.connections",
    "odinws.fanout",
    "odinws.admission",
    "odinws.metrics",
    "odinws.monitoring",
    "odinws.debug",
    "odinws.rollout",
    "odinws.services",
    "odinws.http",
    "odinws.app",
    "odinws.worker",
    "odinws.admin_socket",
    "odinws.companion",
    "odinws.deployment",
    "odinws.gunicorn_conf",
    "odinws.check",
    "odinws.conformance",
    "odinws.strategies_cli",
    "odinws.harness",
    "odinws.simulation",
    "odinws.lab",
    "odinws.experiment",
    "odinws.cli",
    "odinws.__main__",
)

PURE = {
    "odinws.access.channels",
    "odinws.access.channels_file",
    "odinws.access.errors",
    "odinws.access.headers",
    "odinws.access.origin",
    "odinws.access.peer",
    "odinws.access.patterns",
    "odinws.access.permissions",
    "odinws.access.rates",
    "odinws.admission.guard",
    "odinws.assignment",
    "odinws.close_codes",
    "odinws.connections.ledger",
    "odinws.connections.outbox",
    "odinws.connections.wheel",
    "odinws.connections.work",
    "odinws.debug.profile",
    "odinws.debug.verbs",
    "odinws.errors",
    "odinws.experiment.causes",
    "odinws.experiment.checking",
    "odinws.experiment.kinds",
    "odinws.experiment.measures",
    "odinws.experiment.plan",
    "odinws.experiment.result",
    "odinws.experiment.samples",
    "odinws.experiment.statistics",
    "odinws.experiment.verdict",
    "odinws.fanout.backlog",
    "odinws.fanout.observer",
    "odinws.fanout.ring",
    "odinws.feed.cursor",
    "odinws.feed.events",
    "odinws.feed.simulator",
    "odinws.harness.statistics",
    "odinws.histogram",
    "odinws.messages.centrifugo",
    "odinws.messages.centrifugo_protobuf",
    "odinws.messages.deflate",
    "odinws.messages.frames",
    "odinws.messages.json_format",
    "odinws.messages.protocol",
    "odinws.messages.unread_json",
    "odinws.messages.wire_format",
    "odinws.recycling",
    "odinws.rollout.comparison",
    "odinws.rollout.members",
    "odinws.rollout.targeting",
    "odinws.shared.fields",
    "odinws.shared.shards",
    "odinws.simulation.model",
    "odinws.simulation.scenarios",
    "strategies.hashing",
}
# What a pure module must not even import: the world outside, or the time in it.
IMPURE = {
    "asyncio",
    "datetime",
    "gevent",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "secrets",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "structlog",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "urllib",
}
# Third-party libraries that are known in some places only: where greenlets or sockets live, at the edge.
ONLY_IN = {
    "gevent": {
        "odinws.conformance",
        "odinws.conformance.histories",
        "odinws.conformance.model",
        "odinws.conformance.promises",
        "odinws.monitoring.stats_broadcaster",
        "odinws.monitoring.audit",
        "odinws.admission.balance",
        "odinws.connections.clients",
        "odinws.debug.agent",
        "odinws.debug.greenlets",
        "odinws.debug.heap",
        "odinws.debug.sampler",
        "odinws.debug.views",
        "odinws.feed.nats",
        "odinws.feed.greenlet_loop",
        "odinws.feed.session",
        "odinws.feed.tap",
        "odinws.connections.connection",
        "odinws.connections.ready",
        "odinws.http.admin",
        "odinws.http.handover",
        "odinws.http.listener",
        "odinws.fanout.following",
        "odinws.fanout.hub",
        "odinws.admission.load",
        "odinws.monitoring.reconciliation",
        "odinws.fanout.recovery",
        "odinws.fanout.resizing",
        "odinws.services",
        "odinws.http.tls",
        "odinws.scheduling",
        "odinws.swarm.engine",
        "odinws.swarm.run",
        "odinws.swarm.scenario",
        "odinws.worker",
    },
    "geventwebsocket": {"odinws.http.handover", "odinws.worker"},
    "gunicorn": {"odinws.deployment", "odinws.http.handover", "odinws.http.listener", "odinws.worker"},
    "flask": {
        "odinws.app",
        "odinws.http.admin",
        "odinws.http.application",
        "odinws.http.debug",
        "odinws.http.routes",
        "odinws.http.streams",
    },
    "werkzeug": {"odinws.app", "odinws.http.application", "odinws.http.routes", "odinws.http.streams"},
    "prometheus_client": {"odinws.harness.prometheus", "odinws.metrics.collector", "odinws.metrics.text"},
    "jwt": {"odinws.access.keys", "odinws.access.tokens"},
    "cryptography": {"odinws.access.keys"},
    "nats": {
        "odinws.check",
        "odinws.feed.history",
        "odinws.feed.nats",
        "odinws.feed.publisher",
        "odinws.feed.refusals",
        "odinws.feed.session",
        "odinws.feed.stream",
        "odinws.feed.tap",
        "odinws.experiment.feed",
        "odinws.lab.redelivery",
        "odinws.fanout.recovery",
    },
    "google": {"odinws.messages.centrifugo_protobuf"},
    "websockets": {"odinws.client.base"},
    "click": {
        "odinws.cli",
        "odinws.debug.cli",
        "odinws.experiment.commands",
        "odinws.rollout.commands",
        "odinws.strategies_cli",
    },
    "rich": {
        "odinws.cli",
        "odinws.debug.cli",
        "odinws.debug.tables",
        "odinws.debug.top",
        "odinws.experiment.commands",
        "odinws.experiment.progress",
        "odinws.experiment.report.terminal",
    },
    "numpy": {"odinws.harness.statistics", "odinws.experiment.statistics"},
    "scipy": {"odinws.harness.statistics", "odinws.experiment.statistics"},
    "plotly": {"odinws.experiment.report.page"},
    "jinja2": {"odinws.experiment.report.page"},
    "tomlkit": {"odinws.experiment.report.page"},
    "openfeature": {"odinws.rollout.evaluation"},
    "jsonschema": {"odinws.rollout.flags"},
    "mmh3": {"odinws.rollout.targeting"},
    "cbor2": {"odinws.rollout.targeting"},
    "hypothesis": {"odinws.conformance.histories"},
    "threading": {
        "odinws.client.threaded",
        "odinws.conformance.model",
        "strategies.locks",
        "strategies.mailbox",
    },
}
# They read the environment, or give it to their children.
ENVIRONMENT = {
    "odinws.admin_socket",  # the descriptor that an arbiter gives to its successor
    "odinws.check",
    "odinws.debug.http_client",  # the token, for commands
    "odinws.deployment",  # gives gunicorn's own variables back to it
    "odinws.harness.server",
    "odinws.lab.cluster",
    "odinws.settings.model",
}
# Concrete parts of a worker that only its composition root puts together.
PARTS = {
    "odinws.connections.centrifugo_commands",
    "odinws.connections.clients",
    "odinws.connections.commands",
    "odinws.fanout.hub",
}
ROOTS = {"odinws.services"}
# Those that look after all connections of a worker from outside.
WARDENS = {
    "odinws.monitoring.audit",
    "odinws.debug.views",
    "odinws.fanout.recovery",
    "odinws.monitoring.reconciliation",
    "odinws.admission.balance",
}


class Import(NamedTuple):
    """One imported module.

    Attributes:
        module: its full name, also for a relative import.
        names: what was taken from it; empty for `import module`.
        runs: whether it is imported at run time, not for types only.
        early: whether it is imported with the module, not by a function.
    """

    module: str
    names: tuple[str, ...]
    runs: bool
    early: bool


def sources() -> dict[str, Path]:
    """Every module of the product by its full name."""
    found = {}
    for package in ("odinws", "strategies"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, source: str) -> Iterator[Import]:
    """What a module imports, wherever it stands in the source."""
    yield from _walk(ast.parse(source), module, runs=True, early=True)


def _walk(node: ast.AST, module: str, *, runs: bool, early: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, (), runs, early)
    elif isinstance(node, ast.ImportFrom):
        base = module.split(".")[: -node.level] if node.level else []
        full = ".".join([*base, *([node.module] if node.module else [])])
        yield Import(full, tuple(alias.name for alias in node.names), runs, early)
    elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for statement in node.body:
            yield from _walk(statement, module, runs=False, early=early)
        for statement in node.orelse:
            yield from _walk(statement, module, runs=runs, early=early)
    else:
        inner = early and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from _walk(child, module, runs=runs, early=inner)


SOURCES = sources()
IMPORTS = {module: list(imports_of(module, path.read_text())) for module, path in SOURCES.items()}
modules = pytest.mark.parametrize("module", SOURCES)


def top(name: str) -> str:
    """The top package of a module."""
    return name.partition(".")[0]


def ours(found: Import) -> set[str]:
    """The modules of the product that an import names: submodules taken from a package included."""
    taken = {f"{found.module}.{name}" for name in found.names}
    submodules = taken & set(SOURCES)
    # `from odinws import frames` needs the package only to reach the module.
    return submodules if taken and submodules == taken else submodules | ({found.module} & set(SOURCES))


def imported(module: str) -> set[str]:
    """All other modules of the product that a module imports, at whatever time."""
    return {name for found in IMPORTS[module] for name in ours(found)} - {module}


def layer(module: str) -> str:
    """The package or module at the top that a module belongs to."""
    return "strategies" if top(module) == "strategies" else ".".join(module.split(".")[:2])


def cycle(graph: Mapping[str, Iterable[str]]) -> str:
    """A circle in words; "": there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(error.args[1])
    return ""


# -- the reader itself -----------------------------------------------------------------------------


def test_the_reader_of_imports() -> None:
    """All forms are seen: plain, from, relative, in functions, and for types only."""
    source = """
import a.b, c as d
from e import f, g
from . import h
from .i import j
if TYPE_CHECKING:
    import k
else:
    import l
def function():
    import m
"""
    assert list(imports_of("pack.mod", source)) == [
        Import("a.b", (), True, True),
        Import("c", (), True, True),
        Import("e", ("f", "g"), True, True),
        Import("pack", ("h",), True, True),
        Import("pack.i", ("j",), True, True),
        Import("k", (), False, True),
        Import("l", (), True, True),
        Import("m", (), True, False),
    ]


def test_the_lists_are_of_modules_that_exist() -> None:
    """A module that is renamed does not silently leave its rule behind."""
    named = PURE | PARTS | ROOTS | {module for places in ONLY_IN.values() for module in places}
    assert named <= set(SOURCES)


# -- who may know whom -----------------------------------------------------------------------------


@modules
def test_strategies_know_only_themselves_and_the_standard_library(module: str) -> None:
    """A registry knows no socket library, no server, and nothing of odinws."""
    if top(module) != "strategies":
        return
    for found in IMPORTS[module]:
        assert top(found.module) == "strategies" or top(found.module) in sys.stdlib_module_names


@modules
def test_nobody_outside_names_a_concrete_strategy(module: str) -> None:
    """odinws makes strategies by name and uses their interface."""
    if top(module) == "strategies":
        return
    for found in IMPORTS[module]:
        if top(found.module) == "strategies":
            assert ours(found) <= {"strategies", "strategies.base"}


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_take_nothing_from_the_world(module: str) -> None:
    """No socket, clock, environment, logger or greenlet, not even through another module of ours."""
    for found in IMPORTS[module]:
        assert top(found.module) not in IMPURE
        if top(found.module) in ("odinws", "strategies"):
            assert ours(found) <= PURE
        else:
            allowed = {"cbor2", "google", "mmh3", "msgspec", "numpy", "scipy"}
            assert top(found.module) in sys.stdlib_module_names | allowed


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_do_no_input_or_output(module: str) -> None:
    """Nor by the built-in functions."""
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("open", "print", "input", "exec", "eval", "__import__")


@modules
def test_libraries_stay_in_their_places(module: str) -> None:
    """gevent where greenlets or sockets live, Flask in routes and app, Prometheus in metrics, and so on."""
    for found in IMPORTS[module]:
        places = ONLY_IN.get(top(found.module))
        assert places is None or module in places, f"{found.module} is not for {module}"


def test_locations_are_used() -> None:
    """A place that does not need its library any more leaves the list."""
    for library, places in ONLY_IN.items():
        users = {module for module in SOURCES if any(top(i.module) == library for i in IMPORTS[module])}
        assert places - users <= {"odinws.app"}  # Flask's place, also of what belongs to Flask


@modules
def test_concrete_parts_meet_in_services(module: str) -> None:
    """Only the composition root knows which hub serves which connections."""
    if module in ROOTS:
        return
    for found in IMPORTS[module]:
        known = {"odinws.connections.clients", "odinws.fanout.hub"} if module in WARDENS else set()
        if module == "odinws.connections.centrifugo_commands":  # it extends them
            known = {"odinws.connections.commands"}
        assert not ours(found) & (PARTS - known), f"{module} knows {found.module}"


@modules
def test_a_layer_imports_only_those_below_it(module: str) -> None:
    """Also for types only, and within a function: what one must know to read a package stands before it."""
    here = LAYERS.index(layer(module))
    for name in imported(module):
        assert LAYERS.index(layer(name)) <= here, f"{module} imports {name}, which is of a higher layer"


def test_every_package_has_its_layer() -> None:
    """And every layer is there; so no package imports one that imports it."""
    assert len(set(LAYERS)) == len(LAYERS)
    assert {layer(module) for module in SOURCES} == set(LAYERS)
    graph: dict[str, set[str]] = {name: set() for name in LAYERS}
    for module in SOURCES:
        graph[layer(module)] |= {layer(name) for name in imported(module)} - {layer(module)}
    assert cycle(graph) == ""


def test_the_design_has_the_layers() -> None:
    """In the same order, each with a line that says what it is."""
    text = (ROOT / "docs" / "design.md").read_text()
    section = text.partition("\n## Layers\n")[2].partition("\n## ")[0]
    assert tuple(re.findall(r"^- `([a-z_.]+)`: \S", section, re.MULTILINE)) == LAYERS


def test_no_module_imports_one_that_imports_it() -> None:
    """Also for types only, and within a function."""
    assert cycle({module: imported(module) for module in SOURCES}) == ""


@modules
def test_the_environment_is_read_in_settings_only(module: str) -> None:
    """One place knows the names; the others take settings."""
    if module in ENVIRONMENT:
        return
    source = ast.parse(SOURCES[module].read_text())
    for node in ast.walk(source):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in ("environ", "environb", "getenv", "putenv", "unsetenv")
    for found in IMPORTS[module]:
        assert found.module != "os" or not {"environ", "getenv"} & set(found.names)


@modules
def test_locks_are_looked_up_when_they_are_made(module: str) -> None:
    """gunicorn patches `threading` after our import, so no name may be taken from it."""
    for found in IMPORTS[module]:
        assert found.module not in ("threading", "_thread") or found.names == ()


def test_locustfiles_speak_only_the_wire_format() -> None:
    """A load test that shares code with the server would share its mistakes.

    But clients that come back do so as the public client library does.
    """
    allowed = ("odinws.swarm", "odinws.harness", "odinws.histogram", "odinws.client")
    for path in [*(ROOT / "locustfiles").rglob("*.py"), *(ROOT / "odinws" / "swarm").rglob("*.py")]:
        for found in imports_of(path.stem, path.read_text()):
            names = [found.module] if found.module != "odinws" else [f"odinws.{name}" for name in found.names]
            for name in names:
                assert top(name) not in ("strategies", "tests", "bench"), path
                assert top(name) != "odinws" or f"{name}.".startswith(tuple(f"{x}." for x in allowed)), path


# -- form ------------------------------------------------------------------------------------------


@modules
def test_modules_are_named_after_what_they_are(module: str) -> None:
    """There is no drawer for odds and ends."""
    assert module.rpartition(".")[2] not in ("utils", "util", "helpers", "helper", "common", "misc")


@modules
def test_modules_say_what_they_are(module: str) -> None:
    """Each begins with a docstring, unless it is empty."""
    tree = ast.parse(SOURCES[module].read_text())
    assert ast.get_docstring(tree) or not tree.body


@modules
def test_exceptions_are_caught_narrowly(module: str) -> None:
    """A broad `except Exception` stands only where a defect must cost one client, session or worker."""
    wide = {
        "odinws.client.base",
        "odinws.client.threaded",
        "odinws.conformance",
        "odinws.connections.clients",
        "odinws.connections.connection",
        "odinws.connections.ready",
        "odinws.debug.agent",
        "odinws.feed.nats",
        "odinws.feed.tap",
        "odinws.fanout.hub",
        "odinws.http.application",
        "odinws.worker",
        "strategies",
        "strategies.mailbox",
    }
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            assert caught != "everything"
            assert caught != "Exception" or module in wide
