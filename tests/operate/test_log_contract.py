"""The log's contract: a record of every event, each as schema/log.schema.json describes it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from logging import getLevelName
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gevproxy.events import Event
from tests.kit.eventually import eventually
from tests.kit.packets import Kind
from tests.kit.peers import Job, SyncClient, numbered, submit
from tests.kit.ports import free_port
from tests.kit.relay import ROOT, Record, Relay, config
from tests.kit.scripted import Full, Peer, Refuses, ScriptedServer
from tests.kit.servers import Gearmand
from tests.metrics.kit import get, raw
from tests.mod_gearman.payloads import CHECK

AGED = CHECK.replace(b"core_time=1", b"core_time=0")

SCHEMA: dict[str, Any] = json.loads((ROOT / "schema" / "log.schema.json").read_text())

BUGS = """
from gevproxy.__main__ import main
import gevent
import socket
from gevent.server import StreamServer
from gevproxy import daemon
from gevproxy.daemon import Daemon
from gevproxy.forward import Forward
from gevproxy.responder import Responder
from gevproxy.status import Counters
from gevproxy.supervisor import Supervisor

tick, start = Forward.tick, Supervisor.start

def broken_tick(self, now):
    tick(self, now)
    if not self.counters.crashes:
        raise RuntimeError("a bug in a forward")

def broken_start(self):
    start(self)
    gevent.spawn(lambda: 1 / 0)

def broken_status(self):
    raise RuntimeError("a bug in the daemon")

def broken_answer(*_):
    raise RuntimeError("a bug in an answer")

settle = Responder._settle

def broken_settle(self, worker):
    settle(self, worker)
    if worker.asleep and not hasattr(Responder, "broken"):
        Responder.broken = True
        raise RuntimeError("a bug in the responder")

Forward.tick, Supervisor.start, Supervisor.log_status = broken_tick, broken_start, broken_status
Counters.missing = lambda self, held: 1
accept = StreamServer.do_read

def broken_accept(self):
    if not hasattr(self, "broken") and self.family != socket.AF_UNIX:
        self.broken = True
        raise OSError(24, "Too many open files")
    return accept(self)

StreamServer.do_read, Daemon._unready = broken_accept, broken_answer
daemon.answer, Daemon._describe, Responder._settle = broken_answer, broken_answer, broken_settle
raise SystemExit(main())
"""


class NeverWakes(ScriptedServer):
    """Never wakes a sleeper."""

    def wake(self, peer: Peer) -> None:
        """Forget to."""


class Scolds(ScriptedServer):
    """Answers every CAN_DO with an ERROR."""

    def on_packet(self, peer: Peer, packet: Any) -> None:  # noqa: ANN401 - as above it
        """Behave otherwise."""
        super().on_packet(peer, packet)
        if packet.kind is Kind.CAN_DO:
            self.reply(peer, Kind.ERROR, b"SOME_CODE", b"some text")


def test_the_schema_knows_every_event_and_its_level() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["event"]["enum"] == [*(event.id for event in Event), "foreign"]
    levels = {
        rule["if"]["properties"]["event"]["const"]: rule["then"]["properties"]["level"]["enum"]
        for rule in SCHEMA["allOf"]
    }
    for event in Event:
        assert getLevelName(event.level).lower() in levels[event.id]


@contextlib.contextmanager
def servers() -> Iterator[tuple[Gearmand, Gearmand, Refuses, Full, NeverWakes, Scolds]]:
    """Start two job servers and four that misbehave."""
    with (
        Gearmand() as a,
        Gearmand() as b,
        Refuses(lambda _: True, b"SOME_CODE") as refuses,
        Full() as full,
        NeverWakes() as dozes,
        Scolds() as scolds,
    ):
        yield a, b, refuses, full, dozes, scolds


def everything_that_happens(folder: Path) -> list[Record]:
    """Run a relay through all that can happen to it; return its records."""
    slow = folder / "slow.py"
    slow.write_text("import time\ndef f(data, job):\n    time.sleep(0.2)\n    return data\n")
    with servers() as (a, b, refuses, full, dozes, scolds):
        sync = {"async": False, "timeout": 1}
        queues: dict[str, object] = {
            f"{a.address}/plain": f"{b.address}/plain",
            f"{a.address}/slow": {
                "remote_queue": f"{b.address}/slow",
                "payload": "raw",
                "data_callback": f"{slow}:f",
            },
            f"{a.address}/refused": {"remote_queue": f"{refuses.address}/refused", **sync},
            f"{a.address}/late": {"remote_queue": f"{b.address}/late", **sync},
            f"{a.address}/full": f"{full.address}/full",
            f"{a.address}/aged": {"remote_queue": f"{b.address}/aged", "max_age": 60},
            f"{dozes.address}/dozes": f"{b.address}/dozes",
            f"{scolds.address}/scolds": f"{b.address}/scolds",
            "127.0.0.1:1/away": f"{b.address}/away",
            f"{a.address}/nowhere": "127.0.0.1:1/nowhere",
        }
        with Relay(config(queues, poll=1), "--debug") as relay:
            eventually(lambda: len(relay.events("source_up")) == 8, what="eight sources")
            dozes.offer(Job(b"dozes", b"u", b"w"))
            submit(a.port, [*numbered(b"plain", 3), *numbered(b"slow", 1), *numbered(b"full", 1)])
            submit(a.port, [Job(b"aged", b"1", b64encode(AGED)), Job(b"aged", b"2", b"bad")])
            with SyncClient(a.port) as client:
                client.call(b"refused", b"w")
                client.call(b"late", b"w")
            relay.configure({"queues": {}})
            relay.hup()
            relay.wait_event("reload_refused")
            blocked = config({**queues, f"{a.address}/plain": decrypting(b)}, poll=1)
            relay.configure(blocked)
            relay.hup()
            relay.wait_event("reloaded")
            eventually(lambda: relay.events("source_up", forward=f"{a.address}/plain")[1:])
            submit(a.port, [Job(b"plain", b"b%d" % n, b"bad") for n in range(11)])
            relay.wait_event("forward_blocked")
            submit(a.port, [Job(b"plain", b"good", b"dHlwZT1zZXJ2aWNlCg==")])
            relay.wait_event("forward_unblocked", 30.0)
            relay.wait_event("wakeup_lost", 60.0)
            relay.wait_event("late_check")
            relay.wait_event("age_unknown")
            relay.wait_event("watch_failed", 60.0)
            relay.stats()
            assert ask(relay, "pause", f"{a.address}/plain") == 0
            serve_status(relay, blocked, f"{scolds.address}/status")
            relay.wait_event("status_queue_error")
            serve_status(relay, blocked, f"{b.address}/status")
            relay.wait_event("status_queue_up", status_queue=f"{b.address}/status")
            b.restart()
            a.restart()
            relay.wait_event("target_lost")
            relay.wait_event("source_lost")
            relay.wait_event("status_queue_lost")
            serve_status(relay, blocked, "127.0.0.1:1/status")
            relay.wait_event("status_queue_away")
            relay.term()
            assert relay.wait() == 0
            return relay.records


def ask(relay: Relay, *words: str) -> int:
    """Run a command against a relay's control socket; return its exit code."""
    command = [sys.executable, "-m", "gevproxy", *words, "--socket", str(relay.control_socket)]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode


def serve_status(relay: Relay, settings: Record, queue: str) -> None:
    """Reload with a status queue."""
    mark = len(relay.records)
    relay.configure({**settings, "status_queue": queue})
    relay.hup()
    relay.wait_event("reloaded", since=mark)


def decrypting(target: Gearmand) -> Record:
    """Return a forward that refuses whatever is no Mod-Gearman text."""
    return {
        "remote_queue": f"{target.address}/plain",
        "expect": "mod_gearman",
        "rewrite": [{"set": {"a": "b"}}],
    }


def everything_that_should_not_happen() -> list[Record]:
    """Run a relay with bugs; return its records."""
    with Gearmand() as a, Gearmand() as b:
        queues = {f"{a.address}/q": f"{b.address}/q"}
        port = free_port()
        metrics = {"listen": f"127.0.0.1:{port}"}
        relay = Relay(config(queues, status_queue=f"{a.address}/status", metrics=metrics))
        relay.program = ("-c", BUGS)
        relay.start()
        with SyncClient(a.port) as client:
            client.call(b"status", b"check")
        relay.wait_event("forward_crashed")
        relay.wait_event("accounting", 20.0)
        relay.wait_event("status_queue_crashed", 20.0)
        relay.wait_event("status_queue_failed", 20.0)
        assert get(port, "/-/ready").code == 500
        assert raw(port, b"STATUS\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert ask(relay, "status") == 3
        with pytest.raises(AssertionError):
            relay.stats(5.0)
        assert relay.wait() == 1
        if relay.process.stderr:
            relay.process.stderr.close()
        assert not relay.noise
        return relay.records


def without_help() -> list[Record]:
    """Run a relay without a folder for its control socket, freeze it, and kill its watcher."""
    nowhere = {"RUNTIME_DIRECTORY": "/dev/null"}
    with Relay(config({"127.0.0.1:1/q": "127.0.0.1:2/q"}), environment=nowhere) as relay:
        relay.wait_event("control_absent")
        relay.freeze()
        relay.wait_event("loop_stalled", 30.0)
        relay.thaw()
        children = Path(f"/proc/{relay.pid}/task/{relay.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        relay.wait_event("watcher_absent")
        return relay.records


def test_a_record_of_every_event_is_as_the_schema_says(tmp_path: Path) -> None:
    """Nothing that the program can write is left out."""
    records = everything_that_happens(tmp_path)
    records += everything_that_should_not_happen() + without_help()
    validator = Draft202012Validator(SCHEMA)
    for record in records:
        assert not [error.message for error in validator.iter_errors(record)], record
    assert {event.id for event in Event} - {record["event"] for record in records} == set()
