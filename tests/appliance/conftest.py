"""Fixtures of the appliance: packages as they are shipped, installed on a Debian that has booted.

Nothing here runs with the other tests: name the folder (`make test-appliance`). A machine that
cannot boot beds skips with the reason, and fails where $CI is set.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.appliance.bed import Bed, prune
from tests.appliance.roots import NEEDED, SUITES, BedError, host, locked
from tests.appliance.traffic import SOURCE, TARGET, Traffic, finish
from tests.kit.eventually import eventually

ABORTED = "Fatal Python error: Aborted"
"""The first line of what faulthandler writes; it ends where the next record begins."""

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

DEBIAN = {"bookworm": "12", "trixie": "13"}

BUDGET = 2400
"""Seconds for a test: the first one makes root file systems and packages too."""

MEASURED = "measured"
"""What a figure is filed under in a test's report."""

LONGEST_FIRST = ("test_molecule", "test_service", "test_package")

GEARMAND_B = f"""\
[Unit]
Description=The gearmand of the other site

[Service]
ExecStart=/usr/sbin/gearmand --listen=127.0.0.1 --port={TARGET} --log-file=none
User=gearman

[Install]
WantedBy=multi-user.target
"""

FORWARDS = {
    f"127.0.0.1:{SOURCE}/checks": f"127.0.0.1:{TARGET}/checks",
    f"127.0.0.1:{TARGET}/results": f"127.0.0.1:{SOURCE}/results",
}


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave this folder alone unless it, or something in it, is named."""
    return None if is_named(config) else True


def is_named(config: pytest.Config) -> bool:
    """Whether this folder, or something in it, is named on the command line."""
    named = [(config.invocation_params.dir / str(each).split("::")[0]) for each in config.args]
    return any(HERE in (path, *path.parents) for path in named)


def pytest_configure(config: pytest.Config) -> None:
    """Let one run at a time have the beds: they have the same names in each."""
    if is_named(config) and "PYTEST_XDIST_WORKER" not in os.environ:
        alone = ExitStack()
        alone.enter_context(locked("run"))
        config.add_cleanup(alone.close)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder the time that they need; what takes long begins first."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(BUDGET))
    # (A stem that is not among them is found at their end.)
    items.sort(key=lambda item: [*LONGEST_FIRST, item.path.stem].index(item.path.stem))


class OneProcessABed(LoadScopeScheduling):  # type: ignore[misc] # it publishes no types
    """The tests of a file on one Debian share a bed, and so a process."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        if "/molecule/" in file:
            # A process that has no more than two tests is given those of another bed to wait behind
            # them, and the first of these takes longer than all others.
            return "molecule"
        return f"{file} {next((suite for suite in SUITES if suite in test), '')}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneProcessABed:  # noqa: ANN401
    """Tell xdist how tests are handed out."""
    return OneProcessABed(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what the bed's journal says about the relay when a test has failed."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    for value in getattr(item, "funcargs", {}).values():
        # After the test, the bed may be gone already.
        if (
            report.failed
            and report.when != "teardown"
            and isinstance(value, Relay)
            and ("leader" in value.bed.facts)
        ):
            command = ("journalctl", "--no-pager", "-n40", "-ugevproxy*")
            text = value.bed.run(*command, check=False).stdout
            report.sections.append((f"journal of {value.bed.name}", text))
            break
    return report  # type: ignore[return-value]


def skip(reason: str) -> None:
    """Skip, or fail where tests may not be skipped."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def means() -> None:
    """Skip where no bed can be booted; clean up what a killed run has left."""
    if os.geteuid() != 0:
        skip("beds need root")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        skip(f"beds need {', '.join(missing)}: make test-appliance installs them")
    try:
        host("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "true")
    except BedError as error:
        skip(f"beds need namespaces of their own: {error}")
    prune()


def build(into: Path, *options: str) -> dict[str, Path]:
    """Build packages; return them by suite."""
    _build("deb", into, *options)
    return by_suite(into)


def by_suite(folder: Path) -> dict[str, Path]:
    """Return the packages in a folder by suite."""
    found = ((suite, folder.glob(f"*+deb{number}_*")) for suite, number in DEBIAN.items())
    return {suite: file for suite, files in found for file in files}


def build_wheelhouse(into: Path) -> Path:
    """Build the tarball for hosts without an index."""
    _build("wheelhouse", into)
    return next(into.glob("*.tar.gz"))


def _build(*words: str | Path) -> None:
    what, into, *options = map(str, words)
    script = str(ROOT / "packaging/build.py")
    command = [sys.executable, script, what, "--into", into, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


Made = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made(means: None, tmp_path_factory: pytest.TempPathFactory) -> Made:  # noqa: ARG001
    """Give a function that fills a folder once for all processes of a run, and returns it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, unfinished = shared / name, shared / f"{name}.new"
        with locked("made"):
            if not folder.exists():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                fill(unfinished)
                unfinished.rename(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def packages(made: Made) -> dict[str, Path]:
    """Build the packages of this work tree, by suite."""
    return by_suite(made("packages", build))


@pytest.fixture(scope="session")
def wheelhouse(made: Made) -> Path:
    """Build the tarball for hosts without an index."""
    return next(made("wheelhouse", build_wheelhouse).iterdir())


@pytest.fixture(scope="session")
def previous(made: Made, packages: dict[str, Path]) -> dict[str, Path]:
    """Give packages that call themselves an older version, by suite."""
    folder = next(iter(packages.values())).parent

    def repack(into: Path) -> None:
        subprocess.run([HERE / "repack.sh", folder, into, "0.0.1", "works"], check=True)

    return by_suite(made("previous", repack))


@pytest.fixture(scope="session", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """Name the Debian of a bed."""
    return str(request.param)


@pytest.fixture(scope="module")
def fresh(
    suite: str,
    means: None,  # noqa: ARG001 - asked for its check
    request: pytest.FixtureRequest,
) -> Iterator["Relay"]:
    """Boot a bed with two gearmands and without gevproxy; one for each file of tests."""
    name = f"{request.path.stem.removeprefix('test_')}-{DEBIAN[suite]}"
    bed = Bed.up(name, suite, owner=os.getpid())
    try:
        bed.write("etc/systemd/system/gearmand-b.service", GEARMAND_B)
        bed.run("systemctl", "daemon-reload")
        bed.run("systemctl", "enable", "--now", "gearmand-b")
        yield Relay(bed)
    finally:
        bed.down()


@dataclass(frozen=True, slots=True)
class Relay:
    """gevproxy in a bed, used as an operator uses it."""

    bed: Bed

    @property
    def traffic(self) -> Traffic:
        """What sends and takes jobs."""
        return Traffic(self.bed)

    def install(self, package: Path) -> str:
        """Install a package with apt; return what it said."""
        shutil.copy(package, self.bed.root / "root")
        apt = ("apt-get", "-q", "-y", "--no-install-recommends", "--allow-downgrades")
        done = self.bed.run(*apt, "install", f"/root/{package.name}")
        return done.stdout + done.stderr

    def configure(self, queues: dict[str, Any] | None = None, **settings: Any) -> None:  # noqa: ANN401
        """Write the configuration; who is to read it must be told."""
        text = json.dumps({"queues": FORWARDS if queues is None else queues, **settings})
        self.bed.write("etc/gevproxy/gevproxy.json", text)

    def systemctl(self, verb: str, unit: str = "gevproxy") -> int:
        """Call systemctl; return its exit code."""
        return self.bed.run("systemctl", verb, unit, check=False).returncode

    def show(self, what: str, unit: str = "gevproxy") -> str:
        """Return a property of the unit."""
        return self.bed.out("systemctl", "show", "--value", f"--property={what}", unit)

    @property
    def pid(self) -> int:
        """The daemon's process in the bed, or 0."""
        return int(self.show("MainPID"))

    def is_running(self, unit: str = "gevproxy") -> bool:
        """Whether systemd takes it for started: READY=1 has come."""
        return self.show("ActiveState", unit) == "active"

    def wait_until_running(self, deadline: float = 60.0) -> None:
        """Wait for READY=1."""
        eventually(self.is_running, deadline, what="gevproxy is active")

    def log_lines(self) -> list[str]:
        """Return what the program itself has written to the journal, a line each.

        Without the stacks that it writes when the watchdog ends it, which are no records.
        """
        # What the daemon has said may still be in its pipe to the journal.
        self.bed.run("journalctl", "--sync")
        lines = self.bed.out("journalctl", "--no-pager", "-tgevproxy", "-ocat").splitlines()
        kept: list[str] = []
        in_stack = False
        for line in lines:
            in_stack = line == ABORTED or (in_stack and not line.startswith("{"))
            if not in_stack:
                kept.append(line)
        return kept

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the log's records of an event."""
        records = [json.loads(line) for line in self.log_lines()]
        return [record for record in records if record["event"] == event]

    def forwards(self) -> list[dict[str, Any]]:
        """Return what `gevproxy status` has of each forward."""
        done = self.bed.run("gevproxy", "status", "--json", check=False)  # its exit code is a level
        found: list[dict[str, Any]] = json.loads(done.stdout)["forwards"]
        return found

    def received(self) -> int:
        """Return how many jobs it has taken since it started."""
        return sum(int(forward["counters"]["received"]) for forward in self.forwards())

    def wait_until_connected(self) -> None:
        """Wait until every forward runs, which READY=1 does not wait for."""
        eventually(
            lambda: not any(forward["reasons"] for forward in self.forwards()),
            60.0,
            what="every forward runs",
        )

    def trickle(self, count: int, prefix: str) -> "subprocess.Popen[str]":
        """Let checks come to the source, the first of them taken by now, until `finish`."""
        before = self.received()
        sent = self.traffic.start("trickle", SOURCE, "checks", count, prefix)
        eventually(lambda: self.received() > before, 60.0, what="checks flow")
        return sent

    def passes(self, count: int = 100, prefix: str = "p") -> None:
        """Send checks to the other site and their results back, and see that all arrive."""
        traffic = self.traffic
        work = traffic.start("work", TARGET, "checks", count, prefix, "results")
        traffic.submit(SOURCE, "checks", count, prefix)
        assert traffic.take(SOURCE, "results", count, prefix) == [count, count]
        finish(work)

    def jobs_waiting(self, port: int, queue: str) -> int:
        """Return how many jobs a gearmand has in a queue."""
        for line in self.bed.out("gearadmin", f"--port={port}", "--status").splitlines():
            name, total, *_ = line.split("\t")
            if name == queue:
                return int(total)
        return 0


@pytest.fixture(scope="module")
def installed(fresh: Relay, packages: dict[str, Path]) -> Relay:
    """Give a bed in which the package is installed, configured and started."""
    fresh.install(packages[fresh.bed.suite])
    fresh.configure()
    fresh.bed.run("systemctl", "start", "gevproxy")
    return fresh


@pytest.fixture
def relay(installed: Relay) -> Iterator[Relay]:
    """Give a running relay, and leave one for the next test."""
    restore(installed)
    yield installed
    restore(installed)


def restore(relay: Relay) -> None:
    """Bring everything back to where the first test found it."""
    relay.configure()
    relay.bed.run("systemctl", "enable", "--now", "gearmand-b", "gearman-job-server", "gevproxy")
    if relay.systemctl("reload") != 0:  # whatever the test has made of it
        relay.bed.run("systemctl", "restart", "gevproxy")


Measure = Callable[[str, str], None]


@pytest.fixture
def measured(suite: str, record_property: Callable[[str, object], None]) -> Measure:
    """Give a function that shows a figure, at the end, to whoever runs the tests."""

    def note(what: str, figure: str) -> None:
        record_property(MEASURED, f"Debian {DEBIAN[suite]}: {what}: {figure}")

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured, in whichever process that was."""
    reports = [
        report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)
    ]
    figures = {
        str(each) for report in reports for what, each in report.user_properties if what == MEASURED
    }
    for figure in sorted(figures):
        terminalreporter.write_line(figure)
