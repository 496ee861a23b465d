"""The demo: exact counts with either job server, its exit codes, and nothing left behind."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.demo.kit import WITHOUT_GEAR, Demo

NOWHERE = "/nonexistent"  # a PATH without gearmand
CHILDREN = 4  # two job servers, the relay and the process that watches its loop
ENDLESS = "10000000"  # jobs that last until something happens


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    """Give a PATH on which the demo finds this job server."""
    if request.param == "geard":
        return NOWHERE
    request.getfixturevalue("has_gearmand")
    return os.environ["PATH"]


@pytest.mark.parametrize(
    ("server", "path"), [("gearmand", "gearmand"), ("geard", "geard")], indirect=["path"]
)
def test_every_result_comes_back(tmp_path: Path, server: str, path: str) -> None:
    with Demo(tmp_path, "--jobs", "3000", path=path) as demo:
        assert demo.wait() == 0, demo.text
        assert f"Two job servers ({server})" in demo.text
        assert [demo.row(name) for name in ("sent", "results back", "lost")] == [3000, 3000, 0]
        assert demo.row("jobs/s") > 0
        assert re.search(r"^  status +OK - proxy version v\S+ running\.$", demo.text, re.MULTILINE)
        assert "repeats" not in demo.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ends_all_when_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    with Demo(tmp_path, "--jobs", ENDLESS, path=NOWHERE) as demo:
        demo.wait_for("are submitted at A")
        assert len(demo.children()) == CHILDREN
        demo.process.send_signal(number)
        assert demo.wait() == 1
        assert "interrupted" in demo.text


def test_keeps_all_running_until_interrupted(tmp_path: Path) -> None:
    with Demo(tmp_path, "--jobs", "1", "--keep", path=NOWHERE) as demo:
        demo.wait_for("left running")
        assert len(demo.children()) == CHILDREN
        [config] = demo.files.glob("*/gevproxy.json")
        assert config.read_text() in demo.text
        [relay] = demo.children("gevproxy run")
        assert str(config) in Path(f"/proc/{relay}/cmdline").read_text()
        demo.process.send_signal(signal.SIGINT)
        assert demo.wait() == 0


def test_fails_when_the_relay_dies(tmp_path: Path) -> None:
    with Demo(tmp_path, "--jobs", ENDLESS, path=NOWHERE) as demo:
        demo.wait_for("are submitted at A")
        [relay] = demo.children("gevproxy run")
        os.kill(relay, signal.SIGKILL)
        assert demo.wait() == 1
        assert "the relay has ended with exit code -9" in demo.text


def test_fails_when_a_job_server_dies(tmp_path: Path) -> None:
    with Demo(tmp_path, "--jobs", ENDLESS, path=NOWHERE) as demo:
        demo.wait_for("are submitted at A")
        os.kill(demo.children("import gear")[0], signal.SIGKILL)
        assert demo.wait() == 1
        assert "is over" in demo.text


def test_counts_what_does_not_come_back_as_lost(tmp_path: Path) -> None:
    """A frozen relay does not even end on SIGTERM; the demo does, and counts."""
    with Demo(tmp_path, "--jobs", ENDLESS, "--patience", "1", path=NOWHERE) as demo:
        demo.wait_for("are submitted at A")
        os.kill(demo.children("gevproxy run")[0], signal.SIGSTOP)
        assert demo.wait() == 1
        assert "no progress for 1 s" in demo.text
        assert demo.row("lost") == demo.row("sent") - demo.row("results back") > 0
        assert "UNKNOWN - no answer on" in demo.text


def test_names_both_remedies_without_a_job_server(tmp_path: Path) -> None:
    program = (sys.executable, "-c", WITHOUT_GEAR)
    with Demo(tmp_path, path=NOWHERE, program=program) as demo:
        assert demo.wait() == 1
        assert "apt-get install gearman-job-server" in demo.text
        assert "pip install 'gevproxy[demo]'" in demo.text


@pytest.mark.parametrize("jobs", ["0", "-1", "many"])
def test_wants_a_number_of_jobs(tmp_path: Path, jobs: str) -> None:
    with Demo(tmp_path, f"--jobs={jobs}") as demo:
        assert demo.wait() == 2
        assert "argument --jobs" in demo.text
