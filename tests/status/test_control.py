"""The control socket: who is heard, for how long, and whose socket it is."""

import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gevproxy.control_client import MAX_REQUEST, ControlError, ask, find_socket
from tests.status.harness import Harness

DEADLINE = 10.0
NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder whose name leaves room: a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="run-") as name:
        yield Path(name)


def connect(folder: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(DEADLINE)
    sock.connect(str(folder / "control.sock"))
    return sock


def talk(folder: Path, question: bytes) -> Any:  # noqa: ANN401 - JSON
    """Send bytes as they are and return the answer."""
    with connect(folder) as sock:
        sock.sendall(question)
        sock.shutdown(socket.SHUT_WR)
        return json.loads(sock.makefile().readline())


def status(folder: Path) -> dict[str, Any]:
    return ask(folder / "control.sock", "status", deadline=DEADLINE)


# Who is heard


def test_a_question_is_answered(folder: Path) -> None:
    with Harness(folder=folder):
        answer = status(folder)
        assert (answer["code"], answer["status"]["version"]) == (0, "1.2")
        assert ask(folder / "control.sock", "reload", deadline=DEADLINE)["added"] == ["a:1/x"]
        assert ask(folder / "control.sock", "resume", forward="a:1/x", deadline=DEADLINE) == {}


def test_only_its_user_may_ask(folder: Path) -> None:
    with Harness(folder=folder):
        mode = (folder / "control.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600


def test_what_changes_something_is_logged_with_its_user(folder: Path) -> None:
    with Harness(folder=folder) as harness:
        status(folder)
        ask(folder / "control.sock", "resume", forward="a:1/x", deadline=DEADLINE)
        record = harness.wait_event("control_command")
        assert record["message"] == "resume"
        assert (record["forward"], record["uid"]) == ("a:1/x", os.getuid())
        assert record["pid"] == os.getpid()


def test_a_refusal_is_an_error_with_its_reason(folder: Path) -> None:
    with Harness(folder=folder), pytest.raises(ControlError, match="no forward a:1/y"):
        ask(folder / "control.sock", "pause", forward="a:1/y", deadline=DEADLINE)


def test_an_unexpected_error_is_a_record_and_the_next_question_is_answered(folder: Path) -> None:
    with Harness(folder=folder) as harness:
        with pytest.raises(ControlError, match="its log"):
            ask(folder / "control.sock", "pause", forward="fail", deadline=DEADLINE)
        assert "as asked" in harness.wait_event("control_failed")["traceback"]
        assert status(folder)["code"] == 0


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"\n",
        b"{",
        b"{\n",
        b"[]\n",
        b"null\n",
        b"\xff\n",
        b"[" * 5000 + b"\n",
        b'{"command": "status"}',
        b'{"command": 1}\n',
        b'{"command": "stop"}\n',
        b'{"command": "pause", "forward": ["a:1/x"]}\n',
        b'{"command": "' + b"x" * MAX_REQUEST + b'"}\n',
    ],
)
def test_what_is_no_question_gets_an_error(folder: Path, question: bytes) -> None:
    with Harness(folder=folder):
        assert talk(folder, question)["error"]
        assert status(folder)["code"] == 0


def test_those_who_say_nothing_do_not_keep_the_next_waiting_for_ever(folder: Path) -> None:
    with Harness(folder=folder):
        silent = [connect(folder) for _ in range(12)]
        assert status(folder)["code"] == 0
        for sock in silent:
            sock.close()


def test_those_who_hang_up_do_no_harm(folder: Path) -> None:
    with Harness(folder=folder):
        for question in (b"", b'{"command', b'{"command": "status"}\n'):
            with connect(folder) as sock:
                sock.sendall(question)
        assert status(folder)["code"] == 0


def test_an_answer_that_never_ends_is_waited_for_no_longer_than_asked(folder: Path) -> None:
    """However often something comes: here a blank, from whoever took the daemon's place."""
    path = folder / "control.sock"
    asked = threading.Event()

    def dribble(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            while not asked.wait(0.05):
                sock.sendall(b" ")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=dribble, args=(listener,))
        thread.start()
        watchdog = threading.Timer(DEADLINE, asked.set)
        watchdog.start()
        try:
            with pytest.raises(ControlError, match=r"no answer from \S+ within 0\.3 s"):
                ask(path, "status", deadline=0.3)
        finally:
            asked.set()
            watchdog.cancel()
            thread.join()


# Whose socket it is


def test_it_is_gone_after_a_stop(folder: Path) -> None:
    with Harness(folder=folder):
        pass
    assert not list(folder.iterdir())


def test_a_dead_daemons_socket_is_replaced(folder: Path) -> None:
    with Harness(folder=folder) as dead:
        dead.kill()
        assert (folder / "control.sock").is_socket()
        with pytest.raises(ControlError, match="no gevproxy listens"):
            status(folder)
        with Harness(folder=folder):
            assert status(folder)["code"] == 0


def test_a_live_daemons_socket_is_left_alone(folder: Path) -> None:
    with Harness(folder=folder):
        with Harness(folder=folder) as second:
            assert "another gevproxy" in second.wait_event("control_absent")["message"]
        assert status(folder)["code"] == 0


def test_a_file_in_its_place_is_left_alone(folder: Path) -> None:
    (folder / "control.sock").write_text("mine")
    with Harness(folder=folder) as harness:
        harness.wait_event("control_absent")
    assert (folder / "control.sock").read_text() == "mine"


def test_the_folder_is_made_for_its_user_alone(folder: Path) -> None:
    inner = folder / "gevproxy"
    with Harness(folder=inner):
        assert stat.S_IMODE(inner.stat().st_mode) == 0o700
        assert status(inner)["code"] == 0


@pytest.mark.parametrize("name", ["", "/proc/nowhere", "x" * 100])
def test_without_a_folder_there_is_a_record_and_no_socket(folder: Path, name: str) -> None:
    with Harness(folder=folder / name if name else "") as harness:
        harness.wait_event("control_absent")


# The asking side


class Answers:
    """A socket that answers one connection with these bytes, or never."""

    def __init__(self, path: Path, answer: bytes | None) -> None:
        self.answer = answer
        self.done = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        self.listener.close()

    def _run(self) -> None:
        sock, _ = self.listener.accept()
        with sock:
            sock.recv(65536)
            if self.answer is None:
                self.done.wait()
            else:
                sock.sendall(self.answer)


@pytest.mark.parametrize("answer", [b"", b'{"code": 0', b"[]\n", b"\xff\n"])
def test_an_answer_that_is_none_is_an_error(folder: Path, answer: bytes) -> None:
    with Answers(folder / "control.sock", answer), pytest.raises(ControlError, match="the answer"):
        status(folder)


def test_an_answer_that_does_not_come_is_an_error(folder: Path) -> None:
    with (
        Answers(folder / "control.sock", None),
        pytest.raises(ControlError, match=r"within 0\.1 s"),
    ):
        ask(folder / "control.sock", "status", deadline=0.1)


def test_no_permission_is_an_error_that_says_so(folder: Path) -> None:
    with Harness(folder=folder):
        (folder / "control.sock").chmod(0)
        own = os.geteuid()
        if own == 0:
            os.seteuid(NOBODY)  # root may do everything
        try:
            with pytest.raises(ControlError, match="no permission"):
                status(folder)
        finally:
            os.seteuid(own)


def test_where_to_ask(folder: Path) -> None:
    """$RUNTIME_DIRECTORY decides; else the system's socket comes before our own."""
    system, own = folder / "system", folder / "own"
    (own / "gevproxy").mkdir(parents=True)
    system.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(own)}
    assert find_socket({}, system) == system / "control.sock"
    assert find_socket(environ, system) == system / "control.sock"
    (own / "gevproxy" / "control.sock").touch()
    assert find_socket(environ, system) == own / "gevproxy" / "control.sock"
    (system / "control.sock").touch()
    assert find_socket(environ, system) == system / "control.sock"
    environ["RUNTIME_DIRECTORY"] = "/run/one:/run/two"
    assert find_socket(environ, system) == Path("/run/one/control.sock")
