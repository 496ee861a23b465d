"""`gevproxy check`: exit codes, and `--connect` against every kind of far end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.peers import numbered, submit
from tests.kit.pipe import Pipe
from tests.kit.ports import free_port
from tests.kit.scripted import AcceptsAndCloses, Garbage
from tests.kit.servers import Geard, Gearmand

DEADLINE = 60


def check(folder: Path, source: str, target: str, *options: str) -> tuple[int, str]:
    """Check a config of one forward; return exit code and output."""
    file = folder / "gevproxy.json"
    file.write_text(json.dumps({"queues": {f"{source}/q": f"{target}/q"}}))
    done = subprocess.run(
        [sys.executable, "-m", "gevproxy", "check", "--config", str(file), *options],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_good_config_is_ok_and_nothing_is_connected(tmp_path: Path) -> None:
    port = free_port()
    assert check(tmp_path, f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}") == (0, "ok: 1 forwards\n")


def test_a_bad_config_ends_with_78_and_names_the_place(tmp_path: Path) -> None:
    code, output = check(tmp_path, "127.0.0.1:99999", "127.0.0.1:1")
    assert code == 78
    assert f"{tmp_path}/gevproxy.json:1: /queues/127.0.0.1:99999~1q" in output


def test_a_good_pair(tmp_path: Path, gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """Version, round trip, jobs that wait, workers that are there."""
    submit(gearmand_a.port, numbered(b"q", 3))
    code, output = check(tmp_path, gearmand_a.address, gearmand_b.address, "--connect")
    assert code == 0, output
    assert f"source ok      {gearmand_a.address}: gearmand 1." in output
    assert "q: 3 jobs waiting, 0 relays or workers" in output
    assert f"target ok      {gearmand_b.address}: gearmand 1." in output
    assert "q: no such queue yet" in output
    assert gearmand_a.admin.queue("q").total == 3


def test_geard_is_a_gearman_server_too(tmp_path: Path) -> None:
    with Geard() as geard:
        code, output = check(
            tmp_path, geard.address, geard.address.replace("1:", "2:"), "--connect"
        )
    assert code == 1  # the target is nobody's address
    assert f"source ok      {geard.address}" in output


def test_a_closed_port(tmp_path: Path, gearmand_a: Gearmand) -> None:
    target = f"127.0.0.1:{free_port()}"
    code, output = check(tmp_path, gearmand_a.address, target, "--connect")
    assert code == 1
    assert f"target FAILED  {target}: connect: refused (nothing listens there" in output
    assert f"source ok      {gearmand_a.address}" in output


def test_a_black_hole(tmp_path: Path, gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """The connect succeeds at the pipe, and then nothing comes back."""
    with Pipe(gearmand_b.port) as pipe:
        pipe.blackhole()
        code, output = check(tmp_path, gearmand_a.address, pipe.address, "--connect")
    assert code == 1
    assert f"target FAILED  {pipe.address}: ping: no answer within 5 s" in output


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (Garbage, "wrong magic b'HTTP': no Gearman server?"),
        (AcceptsAndCloses, "reset by peer before it was answered: no Gearman server?"),
    ],
)
def test_a_port_that_is_no_gearmand(
    tmp_path: Path, gearmand_a: Gearmand, server: type[Garbage | AcceptsAndCloses], words: str
) -> None:
    with server() as stranger:
        code, output = check(tmp_path, gearmand_a.address, stranger.address, "--connect")
    assert code == 1
    assert words in output


def test_a_name_that_does_not_exist(tmp_path: Path, gearmand_a: Gearmand) -> None:
    code, output = check(tmp_path, gearmand_a.address, "no-such-host.invalid:4730", "--connect")
    assert code == 1
    assert "no-such-host.invalid:4730: connect: name not found" in output
