"""`gevproxy check`: exit codes, and `--connect` against every kind of far end."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.peers import numbered, submit
from tests.kit.pipe import Pipe
from tests.kit.ports import free_port
from tests.kit.scripted import AcceptsAndCloses, Garbage
from tests.kit.servers import Geard, Gearmand

DEADLINE = 60


def ran(*options: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `gevproxy check` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "gevproxy", "check", *map(str, options)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def check(folder: Path, source: str, target: str, *options: str) -> tuple[int, str]:
    """Check a config of one forward; return exit code and output."""
    file = folder / "gevproxy.json"
    file.write_text(json.dumps({"queues": {f"{source}/q": f"{target}/q"}}))
    done = ran("--config", file, *options)
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


# --- check --as USER ------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

FORWARD = {"remote_queue": "127.0.0.1:4731/q"}


def check_as(user: str, *folders: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Check files and folders with the rights of a user."""
    options = [word for folder in folders for word in ("--config", folder)]
    return ran("--as", user, *options, **environment)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that everybody can look into, as nobody can into pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def write(folder: Path, name: str, **options: object) -> Path:
    """Write a configuration of one forward."""
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"queues": {f"127.0.0.1:4730/{name}": {**FORWARD, **options}}}))
    return file


@needs_root
def test_a_key_that_root_can_read_and_the_daemon_cannot_is_a_problem(open_folder: Path) -> None:
    (open_folder / "key").write_text("secret")
    (open_folder / "key").chmod(0o600)
    file = write(open_folder, "q", encrypt="file:key")
    done = check_as("nobody", file)
    assert done.returncode == 78
    assert f"the key file {open_folder}/key cannot be read: Permission denied" in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert check_as("root", file).returncode == 0


@needs_root
def test_a_callback_is_imported_with_the_rights_of_the_user(open_folder: Path) -> None:
    (open_folder / "who.py").write_text(
        "import os\n"
        "assert os.getresuid() == os.getresgid() == (65534,) * 3 and os.getgroups() == [65534]\n"
        "def same(data, job):\n    return data\n"
    )
    done = check_as("nobody", write(open_folder, "q", data_callback="who.py:same"))
    assert (done.returncode, done.stderr) == (0, "")


@needs_root
def test_a_credential_is_unverifiable_outside_the_unit(open_folder: Path) -> None:
    """But is looked at where there are some; and several files are one configuration."""
    files = [
        write(open_folder, "a", encrypt="credential:one"),
        write(open_folder, "b", decrypt=["credential:one", "credential:two"]),
    ]
    done = check_as("nobody", *files)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "ok: 2 forwards",
        "note: credential:one is unverifiable outside the unit",
        "note: credential:two is unverifiable outside the unit",
    ]
    (open_folder / "one").write_text("secret")
    done = check_as("nobody", *files, CREDENTIALS_DIRECTORY=str(open_folder))
    assert done.returncode == 78
    assert 'the credential "two" cannot be read' in done.stderr


def test_a_key_file_of_two_lines_is_warned_of(tmp_path: Path) -> None:
    """It works, with the first line; whoever wrote the second may have meant that."""
    key = tmp_path / "key"
    key.write_text("s3cret\nsomething s3cret\n")
    key.chmod(0o600)
    good = tmp_path / "good"
    good.write_text("s3cret \n\n")
    good.chmod(0o600)
    file = write(tmp_path, "q", decrypt=["file:key", "file:good"], encrypt="file:key")
    done = ran("--config", file)
    assert (done.returncode, done.stderr) == (0, "")
    warning = "has more than one line, and only the first is the key: remove the others"
    assert done.stdout == f"ok: 1 forwards\nwarning: the key file {key} {warning}\n"


def test_a_folder_for_dead_letters_that_is_open_to_others_is_warned_of(tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    folder.mkdir()
    folder.chmod(0o750)
    file = tmp_path / "gevproxy.json"
    queues = {"127.0.0.1:4730/q": FORWARD}
    file.write_text(json.dumps({"queues": queues, "dead_letters": "letters"}))
    done = ran("--config", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\nwarning: the folder of dead letters {folder} is open to others" in done.stdout


def test_nobody_becomes_who_there_is_not(open_folder: Path) -> None:
    done = check_as("no-such-user", open_folder)
    assert done.returncode == 2
    assert "there is no user 'no-such-user' on this host" in done.stderr


@needs_root
def test_only_root_becomes_somebody_else(open_folder: Path) -> None:
    # Loaded as root: nobody else may be able to look into the folder of this environment.
    code = (
        "import os, sys\n"
        "from gevproxy.__main__ import main\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "sys.exit(main(['check', '--as', 'root', '--config', sys.argv[1]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(open_folder)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "only root can check with the rights of root: use sudo" in done.stderr
