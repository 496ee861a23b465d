"""`gevproxy dead-letters replay`: exact sets at real job servers, and sources that fail."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from gevproxy.dead_letters import DeadLetters, Letter
from gevproxy.replay import WINDOW, WINDOW_BYTES, Result, replay
from tests.dead_letters.command import dead_letters
from tests.dead_letters.letters import content, letter, letters, written
from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, Job, Seen, drain, seen, submit
from tests.kit.pipe import Pipe
from tests.kit.ports import free_port
from tests.kit.scripted import AcceptsAndCloses, Garbage, Refuses, ScriptedServer, Silent
from tests.kit.scripted import Peer as ScriptedPeer
from tests.kit.servers import Gearmand

ROOT = Path(__file__).parents[2]
LARGE = 10 * 1024 * 1024  # bytes; a check's output may be as long


def jobs(those: list[Letter]) -> Counter[Seen]:
    """Return what a consumer should see of letters."""
    return Counter(seen(Job(b"q", each.unique, each.payload)) for each in those)


def took(server: Gearmand, count: int, queue: bytes = b"q") -> Counter[Seen]:
    """Take so many jobs off a queue, and see that there are no more."""
    found = Counter(drain(server.port, queue, count))
    eventually(lambda: server.admin.queue(queue.decode()).total == 0)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder that does not exist yet."""
    return tmp_path / "state"


def everything(folder: Path, deadline: float = 10.0) -> Result:
    """Replay all letters of a folder."""
    return replay(DeadLetters(folder), lambda _: True, {}, deadline=deadline)


# What is replayed, and what goes.


def test_all_come_back_to_their_source_and_leave_the_folder(
    gearmand: Gearmand, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the background, at their source and not their target, with their unique, in order."""
    those = letters(2500, f"{gearmand.address}/q")
    box = DeadLetters(folder)
    box.write(those[:1000])
    box.close_current()
    box.write(those[1000:])
    assert dead_letters(folder, "replay", "--all") == 0
    assert capsys.readouterr().out == "replayed 2500, left 0\n"
    assert content(folder) == {}
    assert gearmand.admin.queue("q") == (2500, 0, 0)
    assert drain(gearmand.port, b"q", 2500) == list(jobs(those))


def test_payloads_of_any_bytes_and_size(gearmand: Gearmand, folder: Path) -> None:
    source = f"{gearmand.address}/q"
    those = [
        letter(0, source, bytes(range(256)) * 10),
        letter(1, source, b""),
        letter(2, source, os.urandom(LARGE)),
        letter(3, source, os.urandom(LARGE)),
        letter(4, source, b"\xa0"),
    ]
    DeadLetters(folder).write(those)
    assert everything(folder).replayed == 5
    assert took(gearmand, 5) == jobs(those)


def test_every_letter_finds_its_own_source_and_queue(
    gearmand_a: Gearmand, gearmand_b: Gearmand, folder: Path
) -> None:
    places = [(gearmand_a, b"one"), (gearmand_b, b"one"), (gearmand_a, b"two")]
    those = [
        letter(number, f"{places[number % 3][0].address}/{places[number % 3][1].decode()}")
        for number in range(300)
    ]
    DeadLetters(folder).write(those)
    assert everything(folder).replayed == 300
    for position, (server, queue) in enumerate(places):
        assert took(server, 100, queue) == jobs(those[position::3])


def test_some(gearmand: Gearmand, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By ID, by forward, the oldest first; an ID that is unknown is a failure."""
    those = letters(4, f"{gearmand.address}/q")
    box = DeadLetters(folder)
    box.write([*those, letter(9, "127.0.0.1:1/other")])
    first, *_ = (entry.id for entry in box.read(box.segments()[0]))
    assert dead_letters(folder, "replay", first) == 0
    assert dead_letters(folder, "replay", "--forward", those[0].source, "--limit", "2") == 0
    assert written(folder) == [those[3], letter(9, "127.0.0.1:1/other")]
    assert dead_letters(folder, "replay", first) == 1
    assert f"no dead letter has the ID {first}" in capsys.readouterr().err
    assert took(gearmand, 3) == jobs(those[:3])


def test_nothing_to_replay_is_well(folder: Path) -> None:
    folder.mkdir()
    assert dead_letters(folder, "replay", "--all") == 0


def test_what_remains_keeps_owner_and_mode(gearmand: Gearmand, folder: Path) -> None:
    """The command is run by root, the relay is not: it must be able to read what is left."""
    DeadLetters(folder).write([letter(0, f"{gearmand.address}/q"), letter(1, "127.0.0.1:1/q")])
    owner = (65534, 65534) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(folder / "dead-letters.jsonl", *owner)
    (folder / "dead-letters.jsonl").chmod(0o640)
    assert everything(folder).replayed == 1
    (segment,) = DeadLetters(folder).closed()
    status = segment.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (*owner, 0o640)


def test_a_job_that_the_queue_already_holds_is_named(
    gearmand: Gearmand, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One unique, one job: gearmand keeps the payload that was there first."""
    submit(gearmand.port, [Job(b"q", b"unique-1", b"fresh")])
    DeadLetters(folder).write(letters(3, f"{gearmand.address}/q"))
    assert dead_letters(folder, "replay", "--all") == 0
    assert "replayed 3 (1 joined a job of the same unique" in capsys.readouterr().out
    expected = jobs([letter(0), letter(1, payload=b"fresh"), letter(2)])
    assert took(gearmand, 3) == expected


# What fails.


def test_a_source_that_is_away_loses_nothing(
    gearmand: Gearmand, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the letters of another source are replayed all the same."""
    away = f"127.0.0.1:{free_port()}"
    lost = letters(3, f"{away}/q")
    found = [letter(number, f"{gearmand.address}/q") for number in range(3, 6)]
    DeadLetters(folder).write([each for pair in zip(lost, found, strict=True) for each in pair])
    assert dead_letters(folder, "replay", "--all") == 1
    output = capsys.readouterr()
    assert output.out == "replayed 3, left 3\n"
    assert output.err == f"{away} failed: refused; its letters are left\n"
    assert written(folder) == lost
    assert took(gearmand, 3) == jobs(found)


class ConfirmsSome(ScriptedServer):
    """Confirms so many jobs and hangs up."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def on_submit(self, peer: ScriptedPeer, job: Job) -> None:
        """Confirm, or hang up."""
        if len(self.submitted) < self.count:
            self.confirm(peer, job)
        elif peer in self.peers:
            self.hang_up(peer)


def test_exactly_what_was_confirmed_goes(folder: Path) -> None:
    with ConfirmsSome(7) as server:
        those = letters(20, f"{server.address}/q")
        DeadLetters(folder).write(those)
        result = everything(folder)
    assert (result.replayed, len(result.failed)) == (7, 1)
    assert server.submitted == [Job(b"q", each.unique, each.payload) for each in those[:7]]
    assert written(folder) == those[7:]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (AcceptsAndCloses, "closed by peer|reset by peer"),
        (Garbage, "magic"),
        (Silent, "no answer"),
    ],
)
def test_a_port_that_is_no_gearmand(
    folder: Path, kind: type[AcceptsAndCloses | Garbage | Silent], words: str
) -> None:
    with kind() as server:
        DeadLetters(folder).write(letters(3, f"{server.address}/q"))
        result = everything(folder, deadline=0.2)
    assert result.replayed == 0
    (why,) = result.failed.values()
    assert re.search(words, why)
    assert written(folder) == letters(3, f"{server.address}/q")


@pytest.mark.parametrize(("size", "sent"), [(10, WINDOW), (WINDOW_BYTES // 2, 2)])
def test_no_more_than_a_window_is_under_way(folder: Path, size: int, sent: int) -> None:
    """In letters and in bytes."""
    with Silent() as server:
        source = f"{server.address}/q"
        those = [letter(number, source, bytes(size)) for number in range(sent + 5)]
        DeadLetters(folder).write(those)
        assert everything(folder, deadline=1.0).replayed == 0
        assert len(server.received) == sent
    assert written(folder) == those


def test_a_source_that_refuses_some(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Refuses(lambda job: job.unique == b"unique-1", b"NO", b"not \x1b[2J") as server:
        those = letters(3, f"{server.address}/q")
        DeadLetters(folder).write(those)
        assert dead_letters(folder, "replay", "--all") == 1
    output = capsys.readouterr()
    assert output.out == "replayed 2, left 1\n"
    assert output.err == "1 refused: NO: not \\x1b[2J\n"
    assert written(folder) == [those[1]]


def test_what_is_confirmed_of_one_segment_removes_nothing_from_another(folder: Path) -> None:
    with Refuses(lambda job: job.unique == b"unique-1", b"NO") as server:
        those = letters(2, f"{server.address}/q")  # their lines begin at the same offset
        box = DeadLetters(folder)
        for each in those:
            box.write([each])
            box.close_current()
        assert everything(folder).replayed == 1
    assert written(folder) == [those[1]]


def test_a_queue_that_is_full(gearmand: Gearmand, folder: Path) -> None:
    first = Job(b"q", b"first", b"")
    submit(gearmand.port, [first])
    gearmand.admin.maxqueue("q", 3)
    those = letters(5, f"{gearmand.address}/q")
    DeadLetters(folder).write(those)
    result = everything(folder)
    assert (result.replayed, result.refusals.total()) == (2, 3)
    assert written(folder) == those[2:]
    assert took(gearmand, 3) == Counter([seen(first)]) + jobs(those[:2])


def test_a_slow_link_is_no_failure(gearmand: Gearmand, folder: Path) -> None:
    """The deadline counts from the last progress, not from the start."""
    with Pipe(gearmand.port, delay=0.02, rate=2_000_000) as pipe:
        those = [letter(n, f"{pipe.address}/q", os.urandom(1_000_000)) for n in range(8)]
        DeadLetters(folder).write(those)
        assert everything(folder, deadline=2.0).replayed == 8
    assert took(gearmand, 8) == jobs(those)


def test_lines_that_are_none_stay_and_hinder_nothing(
    gearmand: Gearmand, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged one, and letters that a person has spoiled."""
    source = f"{gearmand.address}/q"
    spoiled = [letter(1, "nowhere"), letter(2, source.replace("/q", "/"))]
    DeadLetters(folder).write([letter(0, source), *spoiled])
    with (folder / "dead-letters.jsonl").open("ab") as file:
        file.write(b"{}\n")
    DeadLetters(folder).write([letter(3, source)])
    assert dead_letters(folder, "replay", "--all") == 1
    output = capsys.readouterr()
    assert output.out == "replayed 2, left 3\n"
    assert "1 refused: the line is damaged" in output.err
    (segment,) = DeadLetters(folder).closed()
    assert len(list(DeadLetters(folder).read(segment))) == 3
    assert took(gearmand, 2) == jobs([letter(0), letter(3)])


# Others at work in the folder.


def test_a_second_replay_is_kept_out(
    gearmand: Gearmand, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    those = letters(3, f"{gearmand.address}/q")
    DeadLetters(folder).write(those)
    with DeadLetters(folder).alone():
        assert dead_letters(folder, "replay", "--all") == 1
    assert "another replay or purge is at work" in capsys.readouterr().err
    assert written(folder) == those
    assert gearmand.admin.queue("q").total == 0


def test_replays_at_once_submit_nothing_twice(gearmand: Gearmand, folder: Path) -> None:
    those = letters(2000, f"{gearmand.address}/q")
    DeadLetters(folder).write(those)
    with contextlib.ExitStack() as stack:
        replays = [stack.enter_context(command(folder)) for _ in range(4)]
        codes = [each.wait(60) for each in replays]
    assert 0 in codes
    assert took(gearmand, 2000) == jobs(those)


def test_the_relay_writes_while_replays_run(gearmand: Gearmand, folder: Path) -> None:
    """Every letter arrives exactly once, whichever segment it was written to."""
    those = letters(1000, f"{gearmand.address}/q")
    box = DeadLetters(folder)
    box.write(those[:1])

    def write() -> None:
        for begin in range(1, 1000, 3):
            DeadLetters(folder).write(those[begin : begin + 3])

    writer = threading.Thread(target=write)
    with Consumer(gearmand.port, b"q") as consumer:
        writer.start()
        replayed = rounds = 0
        while writer.is_alive():
            replayed += everything(folder).replayed
            rounds += 1
        writer.join()
        replayed += everything(folder).replayed
        assert rounds > 1
        assert replayed == 1000
        assert Counter(consumer.wait_for(1000)) == jobs(those)
    assert content(folder) == {}
    assert gearmand.admin.queue("q").total == 0


def command(folder: Path) -> subprocess.Popen[str]:
    """Start a replay of all letters as a process that heeds SIGINT.

    What a shell has started in the background ignores it, and hands that on to its children.
    """
    verb = ("dead-letters", "replay")
    return subprocess.Popen(
        [
            "env",
            "--default-signal=INT",
            sys.executable,
            "-m",
            "gevproxy",
            *verb,
            "--all",
            "--folder",
            str(folder),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class StopsConfirming(ScriptedServer):
    """Confirms so many jobs and then says nothing more."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.stuck = False

    def on_submit(self, peer: ScriptedPeer, job: Job) -> None:
        """Confirm, or be silent."""
        if len(self.submitted) < self.count:
            self.confirm(peer, job)
        else:
            self.stuck = True


def one_at_a_time(source: str) -> list[Letter]:
    """Return letters so large that each is sent only when the one before it is booked."""
    return [letter(number, source, bytes(WINDOW_BYTES)) for number in range(5)]


def test_an_interrupt_keeps_count_of_what_was_confirmed(folder: Path) -> None:
    with StopsConfirming(3) as server:
        those = one_at_a_time(f"{server.address}/q")
        DeadLetters(folder).write(those)
        with command(folder) as process:
            eventually(lambda: server.stuck)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.endswith("interrupted; what was confirmed by then has been removed\n")
    assert "Traceback" not in errors
    assert written(folder) == those[3:]


def test_a_kill_repeats_and_loses_nothing(folder: Path) -> None:
    with StopsConfirming(3) as server:
        those = one_at_a_time(f"{server.address}/q")
        DeadLetters(folder).write(those)
        with command(folder) as process:
            eventually(lambda: server.stuck)
            process.kill()
            process.communicate(timeout=30)
        assert written(folder) == those
        server.count = 100
        assert everything(folder).replayed == 5
    uniques = [job.unique for job in server.submitted]
    assert uniques == [each.unique for each in (*those[:3], *those)]
    assert content(folder) == {}
