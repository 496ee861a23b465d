"""The program itself as a process, with a config of the test's and its log as records."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.kit.eventually import eventually
from tests.kit.servers import freeze

ROOT = Path(__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
EXIT_DEADLINE = 20.0  # seconds for an orderly end of a test's relay
INSIST = 0.5  # seconds between two SIGTERM; the second closes at once

Record = dict[str, Any]


def config(queues: Mapping[str, Any], **options: Any) -> Record:  # noqa: ANN401 - JSON
    """Return a config of these forwards and further options of the top level.

    Queues are not polled unless a test asks for it: a scripted server counts its connections.
    """
    return {"queues": dict(queues), "poll": 0, **options}


class Relay:
    """`gevproxy run` with one config file; its log lines are collected as they come."""

    program: Sequence[str] = ("-m", "gevproxy")  # what Python runs; a test may run it with a bug
    prefix: Sequence[str] = ()  # of the command: another network

    def __init__(
        self,
        settings: Mapping[str, Any],
        *arguments: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="relay-"))
        self.config_file = self.folder / "gevproxy.json"
        self.arguments = arguments
        self.environment = {**os.environ, **self._folders(), **(environment or {})}
        self.environment.pop("NOTIFY_SOCKET", None)
        self.records: list[Record] = []
        self.noise: list[str] = []  # lines that are no JSON object
        self.excused = False  # its end was the test's doing, whatever the exit code
        self.lived = 0  # records of earlier lives
        self.configure(settings)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._end()
                assert not self.noise, f"not JSON on stderr: {self.noise}"
        finally:
            self.kill()
            self.process.wait()
            self.reader.join()
            if self.process.stderr:
                self.process.stderr.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self.process.pid

    @property
    def state_folder(self) -> Path:
        """Return the folder for dead letters."""
        return self.folder / "state"

    @property
    def control_socket(self) -> Path:
        """Return where the control socket is."""
        return self.folder / "run" / "control.sock"

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Write the config file anew, at one stroke; a running relay reads it on `hup`."""
        new = self.config_file.with_suffix(".new")
        new.write_text(json.dumps(settings, indent=2))
        new.replace(self.config_file)

    def start(self) -> None:
        """Start the program."""
        self.excused = False
        self.lived = len(self.records)
        command = [sys.executable, *self.program, "run", "--config", str(self.config_file)]
        self.process = subprocess.Popen(
            [*self.prefix, *command, *self.arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self.reader.start()

    def restart(self) -> None:
        """Start again after an end; the records of the earlier life stay."""
        self.process.wait(EXIT_DEADLINE)
        self.reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.start()

    def term(self) -> None:
        """Send SIGTERM: stop in order."""
        self._signal(signal.SIGTERM)

    def hup(self) -> None:
        """Send SIGHUP: read the config again."""
        self._signal(signal.SIGHUP)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.excused = True
        self.process.kill()

    def freeze(self) -> None:
        """Stop its clock."""
        freeze(self.pid)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def wait(self, deadline: float = EXIT_DEADLINE) -> int:
        """Wait for its end and return the exit code, which is the test's to judge."""
        self.excused = True
        code = self.process.wait(deadline)
        self.reader.join()
        return code

    def events(self, event: str, since: int = 0, **fields: object) -> list[Record]:
        """Return the records of an event with these fields, from the given index on."""
        return [
            record
            for record in self.records[since:]
            if record.get("event") == event
            and all(record.get(name) == value for name, value in fields.items())
        ]

    def wait_event(
        self, event: str, deadline: float = 10.0, since: int = 0, **fields: object
    ) -> Record:
        """Wait for such a record and return the first."""
        return eventually(
            lambda: self.events(event, since, **fields),
            deadline,
            what=f"event {event} {fields}; the log ends with {self.records[-5:]}",
        )[0]

    def stats(self, deadline: float = 10.0) -> dict[str, Record]:
        """Ask for the state and the counters of every forward, by the forward's key."""
        mark = len(self.records)
        self._signal(signal.SIGUSR1)
        self.wait_event("daemon_status", deadline, mark)
        return {record["forward"]: record for record in self.events("forward_status", mark)}

    def rss(self) -> int:
        """Return its resident memory in bytes."""
        return self._memory("VmRSS")

    def peak_rss(self) -> int:
        """Return the most resident memory that it ever had, in bytes."""
        return self._memory("VmHWM")

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def _memory(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

    def _folders(self) -> dict[str, str]:
        folders = {"STATE_DIRECTORY": self.state_folder, "RUNTIME_DIRECTORY": self.folder / "run"}
        for folder in folders.values():
            folder.mkdir(mode=0o700)
        return {name: str(folder) for name, folder in folders.items()}

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal, but not before the first record: until then no handler may be set."""
        eventually(
            lambda: len(self.records) > self.lived or self.process.poll() is not None,
            what="a first record",
        )
        self.process.send_signal(number)

    def _end(self) -> None:
        code = self.process.poll()
        if code is not None:
            assert self.excused or code == 0, f"exit code {code}: {self.records[-5:]}"
            return
        self.thaw()
        for _ in range(int(EXIT_DEADLINE / INSIST)):
            self.term()
            try:
                code = self.process.wait(INSIST)
            except subprocess.TimeoutExpired:
                continue
            assert code == 0, f"exit code {code}; the log ends with {self.records[-5:]}"
            return
        raise AssertionError(f"no end within {EXIT_DEADLINE} s of SIGTERM: {self.records[-5:]}")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                record = None
            if isinstance(record, dict):
                self.records.append(record)
            else:
                self.noise.append(line)
