"""The status side of a relay as a process without one: a fixed state, and faults on request."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.kit.eventually import eventually
from tests.kit.packets import Kind
from tests.kit.peers import SyncClient

ROOT = Path(__file__).parents[2]
QUEUE = b"proxy_status"
ANSWER_DEADLINE = 9.0  # seconds: check_gearman's

PROGRAM = """
from gevent import monkey
monkey.patch_all()
import gevent
import signal
import sys
from pathlib import Path
from gevent.event import Event as Happening
from gevproxy.config import parse_address
from gevproxy.control import Commands, ControlServer
from gevproxy.control_client import ControlError
from gevproxy.log import EventLog, open_log
from gevproxy.render import answer, document
from gevproxy.responder import Responder, search_in_time
from gevproxy.status import Counters, ForwardStatus, Status

FORWARD = ForwardStatus(
    key="a:4730/a-queue-with-a-name-of-some-length", source="a:4730/q", target="b:4730/q",
    asynchronous=True, reasons=(), not_running=0.0, held=0, in_flight=0, unaccounted=0, rate=0.0,
    since_confirm=None, p50=None, p99=None, counters=Counters().as_dict(),
)
STATUS = Status(version="1.2", uptime=0.0, forwards=(FORWARD,))

def reply(request):
    if request == b"fail":
        raise RuntimeError("as asked")
    return answer(STATUS, request, 300, search_in_time)

class Fragile(Responder):
    def _on_events(self, events):
        if any(getattr(event, "workload", b"") == b"crash" for event in events):
            raise RuntimeError("as asked")
        super()._on_events(events)

def pause(forward):
    if forward == "fail":
        raise RuntimeError("as asked")
    raise ControlError(f"there is no forward {forward}")

gevent.get_hub().exception_stream = None
stopped = Happening()
gevent.signal_handler(signal.SIGTERM, stopped.set)
log = EventLog(open_log())
queue, folder = sys.argv[1:]
responder = Fragile(parse_address(queue), None, reply, log) if queue else None
if responder:
    responder.start()
commands = Commands(
    status=lambda: document(STATUS, 300),
    reload=lambda: {"added": ["a:1/x"], "changed": [], "removed": []},
    pause=pause,
    resume=lambda forward: {},
)
control = ControlServer(Path(folder) if folder else None, commands, log)
control.start()
print("ready", flush=True)
while not stopped.wait(60):  # with nothing to wait for, gevent would end
    pass
control.stop()
if responder:
    responder.stop()
    while not responder.gone:
        gevent.sleep(0.01)
"""


class Harness:
    """The process; its log records are collected as they come."""

    def __init__(self, queue: str = "", folder: Path | str = "") -> None:
        self.records: list[Mapping[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, queue, str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self.reader.start()
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(10) == 0
        self.kill()

    def kill(self) -> None:
        """End it with SIGKILL, where it has not ended."""
        self.process.kill()
        self.process.wait()
        self.reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def wait_event(self, event: str, count: int = 1) -> Mapping[str, Any]:
        """Wait until there are so many records of an event, and return the last."""

        def found() -> list[Mapping[str, Any]]:
            records = [record for record in self.records if record["event"] == event]
            return records if len(records) >= count else []

        return eventually(found, what=f"{event}: {self.records}")[-1]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if not self.process.stderr.closed:
                self.records.append(json.loads(line))


def check(
    port: int, request: bytes = b"check", unique: bytes = b"check", queue: bytes = QUEUE
) -> bytes:
    """Ask as check_gearman does, and return the result."""
    with SyncClient(port) as client:
        handle = client.submit(queue, request, unique, Kind.SUBMIT_JOB_HIGH)
        *_, end = client.outcome(handle, ANSWER_DEADLINE)
    assert end.kind is Kind.WORK_COMPLETE, end
    return end.args[1]


def leave_zombies(port: int, *uniques: bytes, queue: bytes = QUEUE) -> None:
    """Ask and stop waiting, as a check that timed out."""
    with SyncClient(port) as client:
        for unique in uniques:
            client.submit(queue, b"check", unique, Kind.SUBMIT_JOB_HIGH)
