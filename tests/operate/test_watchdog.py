"""A loop that stands still is named, with forward and stage, and systemd hears no more of it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.eventually import eventually
from tests.kit.peers import Job, drain, numbered, submit
from tests.kit.relay import ROOT, Record, Relay, config
from tests.kit.servers import Gearmand
from tests.kit.systemd import Manager

NOTICED = 30.0  # seconds; the bound is 5, the rest is for a busy machine
EVIL = b"a" * 64 + b"b"

CALLBACKS = """
import ctypes
import gevent.event

libc = ctypes.CDLL(None)

def sleeps_in_c(data, job):
    while data.startswith(b"aaa"):
        libc.sleep(1000)
    return data

def takes_2_seconds(data, job):
    libc.usleep(2_000_000)
    return data

def takes_12_seconds(data, job):
    libc.usleep(12_000_000)
    return data

def waits(data, job):
    if data.startswith(b"aaa"):
        gevent.event.Event().wait()
    return data
"""

IMPATIENT = """
from gevproxy.__main__ import main
from gevproxy import supervisor

supervisor.STANDS_STILL = 3.0
raise SystemExit(main())
"""

STUCK: dict[str, tuple[str, Record]] = {
    "in C": ("data_callback", {"data_callback": "sleeps_in_c"}),
    "pattern": ("rewrite", {"rewrite": [{"pattern": "^(a+)+$", "replace": "c"}]}),
}


@contextlib.contextmanager
def watched(
    folder: Path, source: Gearmand, target: Gearmand, *program: str, **options: object
) -> Iterator[tuple[Relay, Manager]]:
    """Run a relay with a forward `sick` that has these options, and one `well` beside it."""
    (folder / "callbacks.py").write_text(CALLBACKS)
    if "data_callback" in options:
        options["data_callback"] = f"{folder / 'callbacks.py'}:{options['data_callback']}"
    sick = {"remote_queue": f"{target.address}/sick", "payload": "raw", **options}
    queues = {f"{source.address}/sick": sick, f"{source.address}/well": f"{target.address}/well"}
    relay = Relay(config(queues))
    relay.program = program or relay.program
    relay.environment["NOTIFY_SOCKET"] = str(folder / "notify")
    with Manager(folder / "notify") as manager, relay:
        eventually(lambda: len(relay.events("source_up")) == 2, what="two sources")
        yield relay, manager


@pytest.mark.parametrize("how", STUCK)
def test_a_loop_that_stands_still_is_named_and_ended(
    tmp_path: Path, gearmand_a: Gearmand, gearmand_b: Gearmand, how: str
) -> None:
    """Whether the interpreter's lock is held or not; SIGABRT, as from systemd, shows the stack."""
    stage, options = STUCK[how]
    with watched(tmp_path, gearmand_a, gearmand_b, **options) as (relay, manager):
        submit(gearmand_a.port, [Job(b"sick", b"evil", EVIL)])
        record = relay.wait_event("loop_stalled", NOTICED)
        assert record["forward"] == f"{gearmand_a.address}/sick"
        assert record["stage"] == stage
        assert record["level"] == "error"
        assert record["seconds"] >= 5
        assert stage in record["message"]
        beats = manager.count("WATCHDOG=1")
        with pytest.raises(AssertionError):
            relay.stats(3.0)
        assert manager.count("WATCHDOG=1") == beats
        os.kill(relay.pid, signal.SIGABRT)
        assert relay.wait() == -signal.SIGABRT
        stacks, relay.noise = "".join(relay.noise), []
        assert "Fatal Python error: Aborted" in stacks
        assert "pipeline.py" in stacks
        assert EVIL.decode() not in stacks


def test_a_callback_that_waits_for_ever_costs_its_own_forward_a_restart(
    tmp_path: Path, gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """The loop turns and the forward ticks; only the job does not come out of its stage.

    If it does so each time that the job comes back, the forward takes none any more. To kill the
    process would not help, and hurt all others.
    """
    sick = f"{gearmand_a.address}/sick"
    with watched(tmp_path, gearmand_a, gearmand_b, "-c", IMPATIENT, data_callback="waits") as (
        relay,
        manager,
    ):
        submit(gearmand_a.port, [Job(b"sick", b"evil", EVIL)])
        record = relay.wait_event("forward_crashed", NOTICED)
        assert record["forward"] == sick
        assert "a job in its data_callback stands still" in record["message"]
        submit(gearmand_a.port, numbered(b"well", 1000))
        assert len(drain(gearmand_b.port, b"well", 1000)) == 1000
        eventually(lambda: len(relay.events("forward_crashed")) == 3, NOTICED)
        eventually(lambda: "blocked: a job" in str(relay.stats()[sick]["reasons"]), NOTICED)
        beats = manager.count("WATCHDOG=1")
        eventually(lambda: manager.count("WATCHDOG=1") > beats + 3, what="signs of life")
        assert gearmand_a.admin.queue("sick") == (1, 0, 0)
        submit(gearmand_a.port, numbered(b"well", 1000))
        assert len(drain(gearmand_b.port, b"well", 1000)) == 1000
        stats = relay.stats()
        assert stats[sick]["counters"]["crashes"] == 3
        assert all(status["unaccounted"] == 0 for status in stats.values())
        well = stats[f"{gearmand_a.address}/well"]["counters"]
        assert well["source_losses"] == well["target_losses"] == well["crashes"] == 0
        assert not relay.events("accounting")
        assert not relay.events("loop_stalled")


def test_after_the_watchdog_has_killed_us_the_forward_named_stays_away(
    tmp_path: Path, gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """The others go on; its job would have the relay killed again and again. `resume` ends it."""
    sick = f"{gearmand_a.address}/sick"
    with watched(tmp_path, gearmand_a, gearmand_b, data_callback="sleeps_in_c") as (relay, _):
        marker = relay.state_folder / "stuck.jsonl"
        submit(gearmand_a.port, [Job(b"sick", b"evil", EVIL)])
        eventually(marker.exists, NOTICED, what="the line for the next start")
        os.kill(relay.pid, signal.SIGABRT)
        relay.wait()
        relay.noise.clear()
        relay.restart()
        mark = relay.lived
        record = relay.wait_event("forward_state", since=mark, forward=sick)
        assert "blocked: the relay stood still in its stage data_callback" in record["message"]
        submit(gearmand_a.port, numbered(b"well", 1000))
        assert len(drain(gearmand_b.port, b"well", 1000)) == 1000
        assert gearmand_a.admin.queue("sick") == (1, 0, 0)
        assert drain(gearmand_a.port, b"sick", 1)
        relay.kill()  # no end in order: it stays away, unless the callback is another
        code = tmp_path / "callbacks.py"
        code.write_text(CALLBACKS.replace("libc.sleep", "libc.usleep"))
        relay.restart()
        submit(gearmand_a.port, numbered(b"sick", 10))
        assert len(drain(gearmand_b.port, b"sick", 10)) == 10
        relay.kill()
        code.write_text(CALLBACKS)
        relay.restart()
        eventually(lambda: "blocked" in str(relay.stats()[sick]["reasons"]))
        call(relay, "resume", sick)
        assert not marker.exists()
        submit(gearmand_a.port, numbered(b"sick", 10))
        assert len(drain(gearmand_b.port, b"sick", 10)) == 10


def test_a_loop_that_goes_on_takes_the_line_back(
    tmp_path: Path, gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """It was slow, and no more: a kill for another reason blames nobody."""
    with watched(tmp_path, gearmand_a, gearmand_b, data_callback="takes_12_seconds") as (relay, _):
        marker = relay.state_folder / "stuck.jsonl"
        submit(gearmand_a.port, [Job(b"sick", b"u", b"w")])
        eventually(marker.exists, NOTICED)
        assert len(drain(gearmand_b.port, b"sick", 1)) == 1
        eventually(lambda: not marker.read_text())


def call(relay: Relay, *words: str) -> None:
    """Run a command that asks the relay."""
    command = [sys.executable, "-m", "gevproxy", *words, "--socket", str(relay.control_socket)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def test_a_restart_that_helps_is_forgotten(
    tmp_path: Path, gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Where another takes the job, the forward goes on and takes what comes."""
    with watched(tmp_path, gearmand_a, gearmand_b, "-c", IMPATIENT, data_callback="waits") as (
        relay,
        _,
    ):
        submit(gearmand_a.port, [Job(b"sick", b"evil", EVIL)])
        relay.wait_event("callback_slow", NOTICED)
        drain(gearmand_a.port, b"sick", 1)
        submit(gearmand_a.port, numbered(b"sick", 10))
        assert len(drain(gearmand_b.port, b"sick", 10)) == 10
        assert len(relay.events("forward_crashed")) == 1


def test_a_callback_of_two_seconds_is_logged_and_lives(
    tmp_path: Path, gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """It is named as slow; that is no loop that stands still."""
    with watched(tmp_path, gearmand_a, gearmand_b, data_callback="takes_2_seconds") as (relay, _):
        submit(gearmand_a.port, [Job(b"sick", b"u", b"w")])
        assert len(drain(gearmand_b.port, b"sick", 1)) == 1
        record = relay.wait_event("callback_slow")
        assert "takes_2_seconds" in record["message"]
        assert record["seconds"] >= 2
        assert not relay.events("loop_stalled")
        assert not relay.events("forward_crashed")


def test_a_process_that_is_stopped_says_so_in_its_log_file(tmp_path: Path) -> None:
    """In a file that was moved away as well; and that it goes on."""
    log = tmp_path / "log"
    with Relay(config({"127.0.0.1:1/q": "127.0.0.1:2/q"}, log_file=str(log))) as relay:
        eventually(lambda: log.exists() and "forward_state" in log.read_text())
        log.rename(tmp_path / "old")
        relay.freeze()
        eventually(lambda: log.exists() and "stopped by a signal" in log.read_text(), NOTICED)
        relay.thaw()
        eventually(lambda: "the loop goes on" in log.read_text())
        relay.process.terminate()
        assert relay.wait() == 0


def test_the_watching_process_is_kept_and_ends_with_the_daemon(tmp_path: Path) -> None:
    """One that has been killed is started anew; a killed daemon leaves none behind."""
    del tmp_path
    with Relay(config({"127.0.0.1:1/q": "127.0.0.1:2/q"})) as relay:
        relay.wait_event("daemon_started")
        (first,) = eventually(lambda: children(relay.pid))
        os.kill(first, signal.SIGKILL)
        relay.wait_event("watcher_absent")
        (second,) = eventually(lambda: set(children(relay.pid)) - {first}, 30.0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGABRT):
            os.kill(second, number)  # as systemd sends them to all processes of a service
        relay.kill()
        relay.wait()
        eventually(lambda: not Path(f"/proc/{second}").exists())


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
