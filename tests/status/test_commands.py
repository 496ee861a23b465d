"""`gevproxy status`, `reload`, `pause` and `resume` as processes, against a running relay."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.eventually import eventually
from tests.kit.packets import Kind, Packet
from tests.kit.peers import Assigned, Consumer, numbered, submit
from tests.kit.ports import free_port
from tests.kit.relay import ROOT, Relay, config
from tests.kit.servers import Gearmand
from tests.status.harness import QUEUE

DEADLINE = 30.0


def gevproxy(
    relay: Relay | None, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with the relay's environment, and return what it said."""
    known = relay.environment if relay else {"PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, "-m", "gevproxy", *arguments],
        cwd=ROOT,
        env={**known, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.fixture
def relay(gearmand_a: Gearmand, gearmand_b: Gearmand) -> Iterator[Relay]:
    """Give a relay with two forwards, `x` and `y`, that run."""
    queues = {f"{gearmand_a.address}/{q}": f"{gearmand_b.address}/{q}" for q in ("x", "y")}
    status_queue = f"{gearmand_a.address}/{QUEUE.decode()}"
    with Relay(config(queues, status_queue=status_queue)) as relay:
        eventually(lambda: len(relay.events("forward_state", message="running")) == 2)
        yield relay


def test_status_shows_every_forward(relay: Relay, gearmand_a: Gearmand) -> None:
    said = gevproxy(relay, "status")
    assert said.returncode == 0
    assert said.stdout.startswith("OK - gevproxy ")
    assert f"{gearmand_a.address}/x" in said.stdout
    assert f"{gearmand_a.address}/y" in said.stdout


def test_status_while_every_gearmand_is_dead(
    relay: Relay, gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    gearmand_a.kill()
    gearmand_b.kill()
    eventually(lambda: gevproxy(relay, "status").returncode == 1, what="WARNING")
    said = gevproxy(relay, "status")
    assert "target away: " in said.stdout


def test_status_as_json_counts_what_has_passed(
    relay: Relay, gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    with Consumer(gearmand_b.port, b"x") as consumer:
        submit(gearmand_a.port, numbered(b"x", 100))
        consumer.wait_for(100)

    def confirmed() -> bool:
        told = json.loads(gevproxy(relay, "status", "--json").stdout)
        forwards = {each["key"]: each for each in told["forwards"]}
        return bool(forwards[f"{gearmand_a.address}/x"]["counters"]["confirmed"] == 100)

    eventually(confirmed, what="100 confirmed")


def test_status_through_the_status_queue(relay: Relay, gearmand_a: Gearmand) -> None:
    queue = f"{gearmand_a.address}/{QUEUE.decode()}"
    said = gevproxy(None, "status", "--queue", queue)
    assert said.returncode == 0
    assert said.stdout.startswith("OK - gevproxy ")
    told = json.loads(gevproxy(None, "status", "--queue", queue, "--json").stdout)
    assert len(told["forwards"]) == len(relay.stats())


def test_status_of_a_perl_proxy(gearmand: Gearmand) -> None:
    def answer(job: Assigned) -> list[Packet]:
        line = (
            b"1:WARNING - proxy version v2.08 running. backlog contains 80 jobs.| 'backlog'=80;;;"
        )
        return [Packet(Kind.WORK_COMPLETE, (job.handle, line))]

    queue = f"{gearmand.address}/{QUEUE.decode()}"
    with Consumer(gearmand.port, QUEUE, answer=answer):
        said = gevproxy(None, "status", "--queue", queue)
        assert (said.returncode, said.stdout[:31]) == (1, "WARNING - proxy version v2.08 r")
        said = gevproxy(None, "status", "--queue", queue, "--json")
        assert (said.returncode, said.stdout) == (3, "")
        assert "no JSON" in said.stderr


def test_status_of_what_does_not_answer(gearmand: Gearmand) -> None:
    queue = f"{gearmand.address}/nobody"
    said = gevproxy(None, "status", "--queue", queue, "--timeout", "0.2")
    assert said.returncode == 3
    assert said.stdout == f"UNKNOWN - no answer on {queue} within 0.2 s: is a relay there?\n"
    said = gevproxy(None, "status", "--queue", f"127.0.0.1:{free_port()}/q")
    assert (said.returncode, said.stdout[-10:]) == (3, ": refused\n")


def test_status_of_a_host_that_takes_no_connection_keeps_its_timeout() -> None:
    """Connecting has a deadline of its own, which is longer; what is said shows which it was."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        # One waits to be accepted, and for the next ones the kernel drops all that they send.
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(address)
        queue = f"127.0.0.1:{address[1]}/q"
        said = gevproxy(None, "status", "--queue", queue, "--timeout", "0.2")
        for sock in waiting:
            sock.close()
    assert said.returncode == 3
    assert said.stdout == f"UNKNOWN - no answer on {queue} within 0.2 s: is a relay there?\n"


def test_status_of_a_job_that_fails(gearmand: Gearmand) -> None:
    def fail(job: Assigned) -> list[Packet]:
        return [Packet(Kind.WORK_FAIL, (job.handle,))]

    with Consumer(gearmand.port, QUEUE, answer=fail):
        said = gevproxy(None, "status", "--queue", f"{gearmand.address}/{QUEUE.decode()}")
    assert (said.returncode, said.stdout[:10]) == (3, "UNKNOWN - ")


@pytest.mark.parametrize(
    ("command", "code"), [(["status"], 3), (["reload"], 1), (["pause", "a:1/x"], 1)]
)
def test_without_a_daemon(tmp_path: Path, command: list[str], code: int) -> None:
    said = gevproxy(None, *command, "--socket", str(tmp_path / "control.sock"))
    assert said.returncode == code
    assert "is it running?" in said.stdout + said.stderr
    assert "Traceback" not in said.stderr


def test_a_forward_is_paused_over_a_reload_until_it_is_resumed(
    relay: Relay, gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    key = f"{gearmand_a.address}/x"
    said = gevproxy(relay, "pause", key)
    assert (said.returncode, said.stdout) == (0, f"paused: {key}\n")
    eventually(lambda: not gearmand_a.admin.queue("x").workers, what="no worker on x")
    assert gearmand_a.admin.queue("y").workers == 1
    relay.configure({**json.loads(relay.config_file.read_text()), "defaults": {"window": 7}})
    assert gevproxy(relay, "reload").returncode == 0
    eventually(lambda: gearmand_a.admin.queue("y").workers, what="y again")
    submit(gearmand_a.port, numbered(b"x", 10))
    said = gevproxy(relay, "status")
    assert said.returncode == 1
    assert "paused" in said.stdout
    assert gearmand_a.admin.queue("x").total == 10
    assert gevproxy(relay, "resume", key).returncode == 0
    with Consumer(gearmand_b.port, b"x") as consumer:
        consumer.wait_for(10)


def test_a_forward_that_is_none_cannot_be_paused(relay: Relay) -> None:
    said = gevproxy(relay, "pause", "localhost/x")
    assert said.returncode == 1
    assert "no forward localhost:4730/x" in said.stderr
    assert gevproxy(relay, "pause", "x").returncode == 2


def test_reload_says_what_changed(relay: Relay, gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    settings = json.loads(relay.config_file.read_text())
    a, b = gearmand_a.address, gearmand_b.address
    settings["queues"] = {
        f"{a}/y": {"remote_queue": f"{b}/y", "window": 5},
        f"{a}/z": f"{b}/z",
    }
    relay.configure(settings)
    said = gevproxy(relay, "reload")
    assert said.returncode == 0
    assert said.stdout.split() == [
        *("reloaded", "added", f"{a}/z", "changed", f"{a}/y", "removed", f"{a}/x")
    ]
    said = gevproxy(relay, "reload")
    assert (said.returncode, said.stdout) == (0, "reloaded\n")


def test_a_quiet_reload_tells_it_by_its_exit_code_alone(relay: Relay) -> None:
    """As the unit's ExecReload= has it: what it says would stand between the records of the log."""
    said = gevproxy(relay, "reload", "--quiet")
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    relay.configure({"queues": {}})
    said = gevproxy(relay, "reload", "--quiet")
    assert (said.returncode, said.stdout, said.stderr) == (78, "", "")
    assert relay.events("reload_refused")
    said = gevproxy(None, "reload", "--quiet", "--socket", "/nowhere/control.sock")
    assert (said.returncode, said.stdout) == (1, "")
    assert "no gevproxy listens at /nowhere/control.sock" in said.stderr


def test_reload_prints_every_problem_and_changes_nothing(
    relay: Relay, gearmand_a: Gearmand
) -> None:
    relay.configure({**json.loads(relay.config_file.read_text()), "drain": -1, "unknown": 1})
    said = gevproxy(relay, "reload")
    assert said.returncode == 78
    assert "/drain" in said.stderr
    assert "/unknown" in said.stderr
    assert gearmand_a.admin.queue("x").workers == 1
    assert gevproxy(relay, "status").returncode == 0


def test_watch_needs_a_terminal(relay: Relay) -> None:
    said = gevproxy(relay, "status", "--watch")
    assert (said.returncode, said.stdout) == (3, "")


def test_watch_redraws_until_ctrl_c(relay: Relay, gearmand_b: Gearmand) -> None:
    """And leaves the terminal as it was, with the last picture on it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gevproxy", "status", "--watch"],
        cwd=ROOT,
        env=relay.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""

    def read_until(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            seen += os.read(ours, 65536)

    read_until(b"OK - gevproxy ")
    gearmand_b.kill()
    read_until(b"WARNING - gevproxy ")
    process.send_signal(signal.SIGINT)
    read_until(b"\x1b[?1049l")
    assert process.wait(DEADLINE) == 1
    assert b"Traceback" not in seen
    assert b"KeyboardInterrupt" not in seen
    os.close(ours)
