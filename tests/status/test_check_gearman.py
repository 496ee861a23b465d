"""Every state of the status line, asked for through libgearman, as check_gearman asks.

No package of Debian has check_gearman, but its library is there with the command `gearman`: a
foreground job of high priority with the unique `check`, for which it waits nine seconds. What
check_gearman does with the result is three lines, and stands here.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.kit.eventually import eventually
from tests.kit.means import lack
from tests.kit.peers import Consumer, numbered, submit
from tests.kit.relay import Relay, config
from tests.kit.servers import Gearmand
from tests.kit.status_line import Line, read
from tests.status.harness import QUEUE, leave_zombies
from tests.status.test_commands import gevproxy

PATIENCE = 9_000  # milliseconds
DEADLINE = 30.0
HELD = 5  # jobs that are under way when their target dies
OLD = [
    *("backlog", "bytes_in", "bytes_out", "queues", "server", "total_errors", "total_jobs"),
    *("check_results::bytes_out", "check_results::jobs", "service::bytes_out", "service::jobs"),
]


class Site(NamedTuple):
    """Checks go from A to B, results come back, and A has the status queue."""

    relay: Relay
    a: Gearmand
    b: Gearmand


def check_gearman(site: Site, text: str = "check") -> tuple[int, Line]:
    """Return the exit code, and what is printed, read as a dashboard does."""
    where = ["-h", "127.0.0.1", "-p", str(site.a.port), "-f", QUEUE.decode()]
    done = subprocess.run(
        ["gearman", *where, "-I", "-u", "check", "-t", str(PATIENCE), text],
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    result = done.stdout.partition(b"\0")[0].decode()
    assert result[1] == ":", result
    return int(result[0]), read(result)


def wait_for(site: Site, holds: Callable[[int, Line], object]) -> Line:
    """Check until a condition holds, and return the line."""
    seen: list[Line] = []

    def look() -> bool:
        code, line = check_gearman(site)
        seen.append(line)
        return bool(holds(code, line))

    eventually(look, DEADLINE, what=f"another line than {seen[-1:]}")
    return seen[-1]


@pytest.fixture
def site(gearmand_a: Gearmand, gearmand_b: Gearmand) -> Iterator[Site]:
    """Give a relay that runs."""
    if shutil.which("gearman") is None:
        lack("the command gearman is not installed (Debian: gearman-tools)")
    a, b = gearmand_a, gearmand_b
    queues = {
        f"{a.address}/service": f"{b.address}/service",
        f"{b.address}/check_results": f"{a.address}/check_results",
    }
    more = {"status_queue": f"{a.address}/{QUEUE.decode()}", "status": {"critical_after": 3}}
    leave_zombies(a.port, b"check")  # of a check that timed out before the relay came
    with Relay(config(queues, **more)) as relay:
        # Until that is answered, gearmand joins every other to it and answers neither.
        eventually(lambda: a.admin.queue(QUEUE.decode()).total == 0, what="an empty queue")
        site = Site(relay, a, b)
        wait_for(site, lambda code, _: code == 0)
        yield site


def test_ok_filtered_and_not_and_what_is_no_filter(site: Site) -> None:
    code, line = check_gearman(site)
    assert (code, line.word, line.text, line.failed, line.backlog) == (0, "OK", "", None, None)
    assert list(line.metrics)[: len(OLD)] == OLD
    assert (line.metrics["server"], line.metrics["queues"]) == ("2", "2")
    code, line = check_gearman(site, "check perfdatafilter=^(server|queues|total_|bytes_)")
    assert (code, line.text) == (0, "")
    assert list(line.metrics) == [
        *("bytes_in", "bytes_out", "queues", "server", "total_errors", "total_jobs")
    ]
    assert check_gearman(site, "check perfdatafilter=^none$") == (
        0,
        Line(0, "OK", "", {}, None, None),
    )
    for wrong in ("(", "(?u)(?a)x", "x" * 300):
        code, line = check_gearman(site, f"check perfdatafilter={wrong}")
        assert (code, line.word, line.metrics) == (3, "UNKNOWN", {})
        assert line.text.startswith(" perfdatafilter is ")
        assert check_gearman(site)[0] == 0


def test_warning_and_critical_and_all_is_well_again(site: Site) -> None:
    """B is gone with jobs under way: for one forward the target, for the other one the source."""
    service, results = f"{site.a.address}/service", f"{site.b.address}/check_results"
    site.b.freeze()
    submit(site.a.port, numbered(b"service", HELD))
    wait_for(site, lambda _, line: line.metrics[f"{service}::in_flight"] == str(HELD))
    site.b.kill()
    line = wait_for(site, lambda code, line: code == 1 and line.text.count("away: refused") == 2)
    assert (line.word, line.failed, line.backlog) == ("WARNING", (1, [site.b.address]), HELD)
    assert line.metrics["backlog"] == str(HELD)
    assert f" {service}: target away: refused." in line.text
    assert f" {results}: source away: refused." in line.text
    line = wait_for(site, lambda code, _: code == 2)
    assert (line.word, line.failed, line.backlog) == ("CRITICAL", (1, [site.b.address]), HELD)
    filtered = check_gearman(site, "check perfdatafilter=^backlog$")
    assert filtered == (2, line._replace(metrics={"backlog": str(HELD)}))
    site.b.start()
    with Consumer(site.b.port, b"service") as consumer:
        consumer.wait_for(HELD)
    line = wait_for(site, lambda code, _: code == 0)
    assert (line.text, line.metrics["backlog"], line.metrics["service::jobs"]) == ("", "0", "5c")


def test_a_paused_forward_is_a_warning(site: Site) -> None:
    key = f"{site.a.address}/service"
    assert gevproxy(site.relay, "pause", key).returncode == 0
    line = wait_for(site, lambda code, _: code == 1)
    assert (line.text, line.failed, line.backlog) == (f" {key}: paused.", None, None)
    assert gevproxy(site.relay, "resume", key).returncode == 0
    wait_for(site, lambda code, _: code == 0)
