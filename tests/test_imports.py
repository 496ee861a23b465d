"""The floors of the house: which module may know which. CONTRIBUTING.md has them with reasons."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = {
    "gevproxy": 0,
    "gevproxy.errors": 0,
    "gevproxy.events": 0,
    "gevproxy.log": 0,
    "gevproxy.backoff": 0,
    "gevproxy.watcher": 0,
    "gevproxy.rights": 0,
    "gevproxy.gearman.packet": 1,
    "gevproxy.gearman.buffer": 1,
    "gevproxy.gearman.outbox": 1,
    "gevproxy.gearman.job": 1,
    "gevproxy.gearman.certificate": 1,
    "gevproxy.gearman.peer": 2,
    "gevproxy.gearman.worker": 2,
    "gevproxy.gearman.client": 2,
    "gevproxy.gearman.admin": 2,
    "gevproxy.window": 2,
    "gevproxy.shared": 2,
    "gevproxy.refusals": 2,
    "gevproxy.depths": 2,
    "gevproxy.grabs": 2,
    "gevproxy.expiry": 2,
    "gevproxy.perfdata_filter": 2,
    "gevproxy.comeback": 2,
    "gevproxy.report": 2,
    "gevproxy.status": 2,
    "gevproxy.render": 2,
    "gevproxy.metrics": 2,
    "gevproxy.stages": 2,
    "gevproxy.letter_folder": 2,
    "gevproxy.dead_letters": 2,
    "gevproxy.stuck": 2,
    "gevproxy.config": 2,
    "gevproxy.gearman.tls": 3,
    "gevproxy.gearman.connection": 3,
    "gevproxy.gearman.link": 3,
    "gevproxy.gearman": 3,
    "gevproxy.control_client": 3,
    "gevproxy.convert": 3,
    "gevproxy.tls_files": 3,
    "gevproxy.facts": 4,
    "gevproxy.forward": 4,
    "gevproxy.links": 4,
    "gevproxy.replies": 4,
    "gevproxy.late_checks": 4,
    "gevproxy.watch": 4,
    "gevproxy.letterbox": 4,
    "gevproxy.rejects": 4,
    "gevproxy.intake": 4,
    "gevproxy.probe": 4,
    "gevproxy.replay": 4,
    "gevproxy.dead_letters_command": 4,
    "gevproxy.responder": 4,
    "gevproxy.status_command": 4,
    "gevproxy.listener": 4,
    "gevproxy.control": 5,
    "gevproxy.metrics_server": 5,
    "gevproxy.supervisor": 5,
    "gevproxy.heart": 6,
    "gevproxy.daemon": 6,
    "gevproxy.demo": 6,
    "gevproxy.cli": 7,
    "gevproxy.__main__": 7,
}
"""A module's own floor, or that of the nearest package above it."""

PURE, CONNECTION = 2, 3

IO = {"gevent", "greenlet", "select", "selectors", "socket", "ssl", "subprocess", "threading"}
"""What the pure floors do without: they take bytes and give events."""


def parents(name: str) -> Iterator[str]:
    """Yield a dotted name and what it is in: a.b.c, a.b, a."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def floor(module: str) -> int:
    return next(FLOORS[name] for name in parents(module) if name in FLOORS)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


FILES = {module_name(path): path for path in sorted((ROOT / "gevproxy").rglob("*.py"))}


def imports(module: str) -> set[str]:
    """Return the modules that a module names in its imports, wherever they stand in it."""
    found = set[str]()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in FILES else str(node.module))
    return found


@pytest.mark.parametrize("module", FILES)
def test_every_module_has_a_floor(module: str) -> None:
    """Only the package itself may have the floor of `gevproxy`."""
    named = next(name for name in parents(module) if name in FLOORS)
    assert named != "gevproxy" or module == "gevproxy", "add it to FLOORS and CONTRIBUTING.md"


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module: str) -> None:
    ours = {name for name in imports(module) if name in FILES}
    assert {name: floor(name) for name in ours if floor(name) > floor(module)} == {}


def test_nothing_imports_itself_in_a_circle() -> None:
    TopologicalSorter({module: imports(module) for module in FILES}).prepare()


@pytest.mark.parametrize(
    "module", [name for name in FILES if floor(name) <= PURE and name != "gevproxy.watcher"]
)
def test_pure_floors_do_no_io(module: str) -> None:
    assert {name.partition(".")[0] for name in imports(module)} & IO == set()


@pytest.mark.parametrize("module", [name for name in FILES if floor(name) == CONNECTION])
def test_connections_use_the_standard_library_alone(module: str) -> None:
    tops = {name.partition(".")[0] for name in imports(module)}
    assert tops <= sys.stdlib_module_names | {"gevproxy"}


def test_the_watcher_runs_by_itself() -> None:
    """It is started by its path, so nothing of the project is there for it."""
    assert {name.partition(".")[0] for name in imports("gevproxy.watcher")} <= (
        sys.stdlib_module_names
    )


def test_gevent_stays_out_up_to_the_connections() -> None:
    """Not even by way of another package: gevproxy.gearman runs on plain threads."""
    modules = [name for name in FILES if floor(name) <= CONNECTION]
    code = f"import sys, {', '.join(modules)}; sys.exit('gevent' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
