"""The log as an operator keeps it: a file that logrotate moves or truncates, and --debug."""

import json
import shutil
import subprocess
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, drain, numbered, submit
from tests.kit.relay import Record, Relay, config
from tests.kit.servers import Gearmand

ROUNDS = 20


def records(folder: Path) -> list[Record]:
    """Return the records of a log and of its rotated files; each line must be a whole record."""
    return [json.loads(line) for file in folder.iterdir() for line in file.read_text().splitlines()]


def has_passed(folder: Path, count: int) -> bool:
    """Tell whether so many jobs have their record."""
    return len([r for r in records(folder) if r["event"] == "job_passed"]) == count


def rotate(folder: Path, log: Path, way: str) -> None:
    """Rotate a log with logrotate itself."""
    settings = folder / "logrotate.conf"
    settings.write_text(f"{log} {{\n rotate 100\n size 1\n missingok\n {way}\n}}\n")
    settings.chmod(0o600)
    command = ["logrotate", "--force", "--state", str(folder / "state"), str(settings)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")
@pytest.mark.parametrize("way", ["create 0600", "nocreate", "copytruncate"])
def test_logrotate_loses_no_record(
    gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path, way: str
) -> None:
    """A record of each job, in one of the files, and each once.

    copytruncate itself loses what is written between its copy and its truncation, so there the
    relay is quiet while it rotates.
    """
    logs = tmp_path / "logs"
    logs.mkdir()
    log = logs / "gevproxy.log"
    settings = config(
        {f"{gearmand_a.address}/q": f"{gearmand_b.address}/q"}, log_file=str(log), debug=True
    )
    count = 0
    with Relay(settings) as relay, Consumer(gearmand_b.port, b"q") as consumer:
        eventually(lambda: "source_up" in log.read_text() if log.exists() else False)
        for n in range(ROUNDS):
            submit(gearmand_a.port, list(numbered(b"q", 50 * (n + 1)))[count:])
            count = 50 * (n + 1)
            if way == "copytruncate":
                consumer.wait_for(count)
                eventually(partial(has_passed, logs, count), what="a record of each job")
            rotate(tmp_path, log, way)
        consumer.wait_for(count)
        eventually(lambda: gearmand_a.admin.queue("q").total == 0)
        relay.process.terminate()
        assert relay.wait() == 0
    uniques = Counter(r["unique"] for r in records(logs) if r["event"] == "job_passed")
    assert uniques == Counter(f"u{n}" for n in range(count))
    assert len(list(logs.iterdir())) > ROUNDS / 2


def test_debug_adds_a_record_for_each_job_and_changes_nothing_else(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    settings = config({f"{gearmand_a.address}/q": f"{gearmand_b.address}/q"})
    events: list[Counter[str]] = []
    for options in ([], ["--debug"]):
        with Relay(settings, *options) as relay:
            relay.wait_event("source_up")
            submit(gearmand_a.port, numbered(b"q", 30))
            assert len(drain(gearmand_b.port, b"q", 30)) == 30
            eventually(lambda: gearmand_a.admin.queue("q").total == 0)
            relay.term()
            relay.wait()
            events.append(Counter(record["event"] for record in relay.records))
    assert events[1] - events[0] == Counter({"job_passed": 30})
    assert not events[0] - events[1]


def test_logfile_overrides_the_config(
    gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path
) -> None:
    log = tmp_path / "other.log"
    queues = {f"{gearmand_a.address}/q": f"{gearmand_b.address}/q"}
    with Relay(config(queues, log_file="stdout"), "--logfile", str(log)) as relay:
        eventually(lambda: "source_up" in log.read_text() if log.exists() else False)
        relay.process.terminate()
        assert relay.wait() == 0
        assert not relay.records


def test_a_log_that_cannot_be_opened_is_a_config_problem(tmp_path: Path) -> None:
    """Said on stderr, with exit code 78."""
    queues = {"127.0.0.1:1/q": "127.0.0.1:2/q"}
    relay = Relay(config(queues, log_file=str(tmp_path / "no" / "folder" / "log")))
    relay.start()
    assert relay.wait() == 78
    (problem,) = relay.records
    assert problem["pointer"] == "/log_file"
    assert "No such file or directory" in problem["message"]
    if relay.process.stderr:
        relay.process.stderr.close()
