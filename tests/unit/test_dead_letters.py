"""Dead letters in files: the lines, the cap, the disk that fails, the crash that tears."""

import contextlib
import errno
import json
import os
import re
import stat
import subprocess
import sys
import threading
from base64 import b64encode
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gevproxy import letter_folder
from gevproxy.dead_letters import DeadLetterError, DeadLetters, Letter, decode, encode
from tests.dead_letters.letters import content, letter, letters, written
from tests.kit.eventually import eventually
from tests.kit.means import lack

ROOT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder that does not exist yet."""
    return tmp_path / "state"


# Lines.


@given(
    st.builds(
        Letter,
        time=st.datetimes(
            min_value=datetime(1970, 1, 2),  # noqa: DTZ001 - the zone comes with it
            timezones=st.just(timezone(timedelta(hours=2))),
        ),
        forward=st.text(),
        source=st.text(),
        target=st.text(),
        handle=st.binary(),
        unique=st.binary(),
        reason=st.text(),
        payload=st.binary(),
    )
)
def test_any_bytes_come_back_as_they_were(each: Letter) -> None:
    line = encode(each)
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert decode(line) == each


def test_a_line_can_be_read_by_anything_that_knows_json() -> None:
    fields = json.loads(encode(letter(7)))
    assert fields == {
        "time": "2026-10-06T12:00:07.123456Z",
        "forward": "127.0.0.1:4730/q",
        "source": "127.0.0.1:4730/q",
        "target": "127.0.0.2:4730/q",
        "handle": "H:a:7",
        "unique": "unique-7",
        "reason": "stage decrypt: wrong key?",
        "payload": b64encode(b"payload 7").decode(),
    }


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\0\0\0\n",
        b"[]\n",
        b"{}\n",
        encode(letter())[:-10],
        encode(letter()).replace(b'"H:a:0"', b"17"),
        encode(letter()).replace(b"H:a:0", b"\\u20ac"),
        encode(letter()).replace(b'"payload": "', b'"payload": "*'),
        encode(letter()).replace(b"2026-10-06", b"yesterday"),
        encode(letter()).replace(b"2026-10-06T12:00:00.123456Z", b"0001-01-01T00:00:00+02:00"),
        b"[" * 100_000 + b"\n",
    ],
)
def test_what_is_no_letter_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="no dead letter"):
        decode(line)


# Writing.


def test_what_was_written_is_read_in_order(folder: Path) -> None:
    box = DeadLetters(folder)
    box.write(letters(3))
    box.write([letter(3)])
    assert written(folder) == letters(4)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_folder_and_file_are_their_owners_alone(folder: Path) -> None:
    """Whatever the umask."""
    before = os.umask(0)
    try:
        DeadLetters(folder / "deep").write(letters(1))
    finally:
        os.umask(before)
    assert mode(folder / "deep") == 0o700
    assert mode(folder / "deep" / "dead-letters.jsonl") == 0o600


@pytest.mark.parametrize("before", [0o755, 0o750, 0o777, 0o701])
def test_a_folder_of_ours_is_closed_to_others_with_the_next_letter(
    folder: Path, before: int
) -> None:
    """One made by hand, and one with letters in it; what was written stays readable for us."""
    folder.mkdir()
    folder.chmod(before)
    box = DeadLetters(folder)
    box.write(letters(1))
    assert mode(folder) == 0o700
    box.close_current()
    box.write([letter(1)])
    folder.chmod(before)
    (folder / "dead-letters.jsonl").chmod(0o644)
    box.write([letter(2)])
    assert (mode(folder), mode(folder / "dead-letters.jsonl")) == (0o700, 0o600)
    assert written(folder) == letters(3)


def test_a_folder_that_holds_anything_else_keeps_its_mode_and_is_warned_of(folder: Path) -> None:
    """Or a relay that runs as root would close /var/log to everybody."""
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "syslog").touch()
    DeadLetters(folder).write(letters(1))
    assert (mode(folder), mode(folder / "dead-letters.jsonl")) == (0o755, 0o600)
    said = letter_folder.warning(folder)
    assert said is not None
    assert f"{folder} is open to others (mode 755): chmod 700 {folder}, or name one" in said
    folder.chmod(0o700)
    assert letter_folder.warning(folder) is None
    assert letter_folder.warning(folder / "missing") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_ours_to_close(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    os.chown(folder, 65534, 65534)
    DeadLetters(folder).write(letters(1))
    assert mode(folder) == 0o755


def test_a_batch_is_on_disk_when_write_returns(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fsync for a batch, after its last byte; the names of file and folder before it."""
    synced: list[tuple[Path, int]] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        fsync(fd)
        path = Path(f"/proc/self/fd/{fd}").readlink()
        synced.append((path, path.stat().st_size if path.is_file() else 0))

    monkeypatch.setattr(os, "fsync", watched)
    box = DeadLetters(folder)
    file = folder / "dead-letters.jsonl"
    box.write(letters(100))
    assert synced == [(folder.parent, 0), (folder, 0), (file, file.stat().st_size)]
    box.write(letters(100))
    assert synced[3:] == [(file, file.stat().st_size)]


# The cap and the disk.


def test_full_means_all_or_nothing(folder: Path) -> None:
    size = len(encode(letter()))
    box = DeadLetters(folder, cap=3 * size)
    box.write(letters(2))
    before = content(folder)
    with pytest.raises(DeadLetterError, match=r"full \(\d+ bytes\).*gevproxy dead-letters list"):
        box.write(letters(2))
    assert content(folder) == before
    box.write(letters(1))


def test_closed_segments_count_for_the_cap(folder: Path) -> None:
    box = DeadLetters(folder, cap=3 * len(encode(letter())))
    box.write(letters(2))
    box.close_current()
    with pytest.raises(DeadLetterError, match="full"):
        box.write(letters(2))
    with box.alone():
        box.remove(box.closed()[0], [0])
    box.write(letters(2))


def test_a_file_where_the_folder_should_be(folder: Path) -> None:
    folder.touch()
    with pytest.raises(DeadLetterError, match=f"cannot be written in {folder}: Not a directory"):
        DeadLetters(folder).write(letters(1))


def test_a_disk_that_is_full(folder: Path) -> None:
    folder.mkdir()
    device = Path("/dev/full").stat().st_rdev
    try:
        os.mknod(folder / "dead-letters.jsonl", 0o600 | stat.S_IFCHR, device)
    except PermissionError:
        lack("a device node cannot be made without root")
    with pytest.raises(DeadLetterError, match="No space left on device"):
        DeadLetters(folder).write(letters(1))


WRITES_TO_A_LIMIT = """
import resource, sys
from pathlib import Path
from gevproxy.dead_letters import DeadLetterError, DeadLetters
from tests.dead_letters.letters import letter, letters

resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
box = DeadLetters(Path(sys.argv[1]))
box.write(letters(5))
for batch in (letters(100), [letter(payload=bytes(10_000))]):
    try:
        box.write(batch)
    except DeadLetterError as error:
        print(error)
box.write(letters(1))
"""


def test_a_write_that_fails_in_the_middle_leaves_nothing(folder: Path) -> None:
    """The kernel takes half a line and then no more; what comes next is whole again."""
    command = [sys.executable, "-c", WRITES_TO_A_LIMIT, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("File too large") == 2
    assert written(folder) == [*letters(5), letter(0)]


def test_an_fsync_that_fails_is_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = DeadLetters(folder)
    box.write(letters(1))

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DeadLetterError, match="Input/output error"):
        box.write(letters(2))
    assert written(folder) == letters(1)


# Crashes.


@pytest.mark.parametrize("tail", [encode(letter(9))[:-1], b"{", b"\0" * 4096])
def test_a_torn_line_is_no_letter_and_the_next_append_cuts_it_off(
    folder: Path, tail: bytes
) -> None:
    box = DeadLetters(folder)
    box.write(letters(2))
    file = folder / "dead-letters.jsonl"
    with file.open("ab") as torn:
        torn.write(tail)
    assert written(folder) == letters(2)
    box.write([letter(2)])
    assert written(folder) == letters(3)
    assert file.read_bytes() == b"".join(map(encode, letters(3)))


def test_a_torn_line_does_not_come_into_a_closed_segment(folder: Path) -> None:
    folder.mkdir()
    (folder / "dead-letters.jsonl").write_bytes(encode(letter()) + b'{"time"')
    box = DeadLetters(folder)
    box.close_current()
    assert [path.read_bytes() for path in box.closed()] == [encode(letter())]


def test_a_line_that_is_damaged_does_not_hide_the_others(folder: Path) -> None:
    folder.mkdir()
    first, second = encode(letter(0)), encode(letter(1))
    (folder / "dead-letters.jsonl").write_bytes(first + b"\0\0\n" + second)
    box = DeadLetters(folder)
    entries = list(box.read(box.segments()[0]))
    assert [entry.letter for entry in entries] == [letter(0), None, letter(1)]
    assert [entry.offset for entry in entries] == [0, len(first), len(first) + 3]


WRITES_UNTIL_KILLED = """
import itertools, sys
from pathlib import Path
from gevproxy.dead_letters import DeadLetters
from tests.dead_letters.letters import letter

box = DeadLetters(Path(sys.argv[1]))
for number in itertools.count(int(sys.argv[2])):
    box.write([letter(number)])
    print(number, flush=True)
"""


def test_what_was_confirmed_before_a_kill_is_there(folder: Path) -> None:
    confirmed: list[int] = []
    for _ in range(5):
        first = confirmed[-1] + 2 if confirmed else 0  # one may be written and not confirmed
        with subprocess.Popen(
            [sys.executable, "-c", WRITES_UNTIL_KILLED, str(folder), str(first)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            confirmed += [int(writer.stdout.readline()) for _ in range(20)]
            writer.kill()
            confirmed += [int(line) for line in writer.stdout]
    found = [int(each.unique.removeprefix(b"unique-")) for each in written(folder)]
    assert found == sorted(set(found))
    assert set(confirmed) <= set(found)
    assert len(found) - len(confirmed) <= 5


# Segments.


def test_closing_sets_the_current_segment_aside(folder: Path) -> None:
    box = DeadLetters(folder)
    box.close_current()
    assert box.segments() == []
    for number in range(3):
        box.write([letter(number)])
        box.close_current()
        box.close_current()  # nothing is there to be closed
    box.write([letter(3)])
    assert len(box.closed()) == 3
    assert box.segments() == [*box.closed(), folder / "dead-letters.jsonl"]
    assert all(
        re.fullmatch(r"dead-letters\.\d{8}T\d{6}\.\d{6}Z\.jsonl", path.name)
        for path in box.closed()
    )
    assert written(folder) == letters(4)


def test_other_files_in_the_folder_are_none_of_ours(folder: Path) -> None:
    box = DeadLetters(folder)
    box.write(letters(1))
    for name in (
        "other.jsonl",
        "dead-letters.jsonl.bak",
        ".dead-letters.jsonl.new",
        "dead-letters",
    ):
        (folder / name).write_text("x")
    assert box.segments() == [folder / "dead-letters.jsonl"]


def test_a_writer_that_waits_for_a_segment_being_closed_begins_the_next(folder: Path) -> None:
    """It holds the old file open: what it wrote there would be taken for replayed and removed."""
    box = DeadLetters(folder)
    box.write([letter(0)])
    with box._locked_current():
        late = threading.Thread(target=DeadLetters(folder).write, args=([letter(1)],))
        late.start()
        eventually(lambda: _waits_for_a_lock(folder / "dead-letters.jsonl"))
        closed = folder / "dead-letters.20261006T120000.000000Z.jsonl"
        (folder / "dead-letters.jsonl").rename(closed)
    late.join()
    assert [entry.letter for entry in box.read(closed)] == [letter(0)]
    assert written(folder) == letters(2)


def _waits_for_a_lock(file: Path) -> bool:
    """Tell whether somebody waits for the lock of a file; the kernel lists such with an arrow."""
    inode = f":{file.stat().st_ino} "
    locks = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and inode in line for line in locks)


def test_ids_stay_when_other_letters_go(folder: Path) -> None:
    box = DeadLetters(folder)
    box.write(letters(3))
    box.close_current()
    segment = box.closed()[0]
    before = list(box.read(segment))
    assert len({entry.id for entry in before}) == 3
    with box.alone():
        box.remove(segment, [before[1].offset])
    assert [entry.id for entry in box.read(segment)] == [before[0].id, before[2].id]


def test_what_remains_keeps_owner_and_mode(folder: Path) -> None:
    box = DeadLetters(folder)
    box.write(letters(2))
    box.close_current()
    segment = box.closed()[0]
    segment.chmod(0o640)
    owner = (NOBODY, NOBODY) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(segment, *owner)
    with box.alone():
        box.remove(segment, [0])
    status = segment.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (*owner, 0o640)
    assert written(folder) == [letter(1)]
    with box.alone():
        box.remove(segment, [0])
    assert content(folder) == {}


def test_a_removal_that_fails_changes_nothing(folder: Path) -> None:
    """A folder stands where the rest should be written."""
    box = DeadLetters(folder)
    box.write(letters(2))
    box.close_current()
    segment = box.closed()[0]
    (folder / f".{segment.name}.new").mkdir()
    with box.alone(), pytest.raises(DeadLetterError, match="cannot be removed"):
        box.remove(segment, [0])
    assert written(folder) == letters(2)


def test_the_leftover_of_a_killed_removal_is_no_hindrance(folder: Path, tmp_path: Path) -> None:
    """And a link there is not followed: the command may run as root in another user's folder."""
    box = DeadLetters(folder)
    box.write(letters(2))
    box.close_current()
    segment = box.closed()[0]
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (folder / f".{segment.name}.new").symlink_to(victim)
    with box.alone():
        box.remove(segment, [0])
    assert written(folder) == [letter(1)]
    assert victim.read_text() == "precious"
    assert list(content(folder)) == [segment.name]


def test_only_one_remover_at_a_time(folder: Path) -> None:
    folder.mkdir()
    with DeadLetters(folder).alone():
        with pytest.raises(DeadLetterError, match="another replay or purge"):
            with_lock(folder)
        DeadLetters(folder).write(letters(1))  # a writer is no remover
    with_lock(folder)


def with_lock(folder: Path) -> None:
    with DeadLetters(folder).alone():
        pass


def test_a_folder_that_may_not_be_read(folder: Path) -> None:
    folder.touch()
    box = DeadLetters(folder)
    with pytest.raises(DeadLetterError, match="Not a directory"):
        box.segments()
    with pytest.raises(DeadLetterError, match="Not a directory"):
        with_lock(folder)


def test_many_writers_share_a_folder(folder: Path) -> None:
    """While somebody closes segments all the time."""
    stopped = threading.Event()

    def close() -> None:
        while not stopped.is_set():
            DeadLetters(folder).close_current()

    def write(first: int) -> None:
        box = DeadLetters(folder)
        for number in range(first, first + 50):
            box.write([letter(number)])

    closer = threading.Thread(target=close)
    writers = [threading.Thread(target=write, args=(50 * n,)) for n in range(4)]
    with contextlib.ExitStack() as stack:
        stack.callback(closer.join)
        stack.callback(stopped.set)
        for thread in (closer, *writers):
            thread.start()
        for thread in writers:
            thread.join()
    assert sorted(written(folder), key=lambda each: each.time) == letters(200)


def test_a_link_in_the_place_of_the_segment_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """Root may replay in a folder of the relay's user, who must not reach root's files that way."""
    other = tmp_path / "other"
    other.write_bytes(b"no line end")
    folder.mkdir(exist_ok=True)
    (folder / "dead-letters.jsonl").symlink_to(other)
    with pytest.raises(DeadLetterError):
        DeadLetters(folder).close_current()
    assert other.read_bytes() == b"no line end"
