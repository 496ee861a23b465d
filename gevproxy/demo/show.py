"""The demo as a person sees it: the configuration, a line of progress, the table at the end."""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from gevproxy.config import QueueAddress
from gevproxy.control_client import SOCKET_NAME, ControlError
from gevproxy.demo.processes import DemoError, Process, find_job_server, start_relay
from gevproxy.demo.traffic import CHECKS, RESULTS, Tally, Traffic
from gevproxy.gearman import Server
from gevproxy.status_command import ask_line

STATUS: Final = "gevproxy_status"
"""The relay's status queue, at A."""

JOBS: Final = 20_000

PATIENCE: Final = 30
"""Seconds without progress after which what is missing counts as lost."""

_LOOK: Final = 0.1
"""Seconds between two looks at the traffic, and between two progress lines on a terminal."""

_SELDOM: Final = 5.0
"""Seconds between two progress lines where there is no terminal."""

_ANSWER: Final = 3.0
"""Seconds within which the relay says how it is."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the demo's options."""
    parser.add_argument(
        "--jobs",
        type=_positive,
        default=JOBS,
        metavar="N",
        help="how many checks to send (default: %(default)s)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave the job servers and the relay running until Ctrl-C, to look around",
    )
    parser.add_argument(
        "--patience",
        type=_positive,
        default=PATIENCE,
        metavar="SECONDS",
        help="give up after so long without progress (default: %(default)s)",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def main(arguments: argparse.Namespace) -> int:
    """Show the demo; return 0 where every result came back, else 1."""
    screen = Screen(sys.stdout)
    with _stop_on_signals() as stop, ExitStack() as stack:
        try:
            stage = _set_up(stack, screen)
            traffic = Traffic(stage.near, stage.far, arguments.jobs)
            stack.callback(traffic.stop)
            trouble = _watch(traffic, stage.relay, arguments.patience, screen, stop)
            traffic.stop()
            screen.say(table(traffic.tally, traffic.seconds, _status(stage.status_queue)))
            if arguments.keep and not stop.asked:
                screen.say(_look_around(stage))
                trouble = _wait(stage.relay, stop) or trouble
        except DemoError as error:
            trouble = str(error)
    if trouble:
        sys.stderr.write(f"The demo failed: {trouble}\n")
    return 1 if trouble else 0


class Stage(NamedTuple):
    """What the demo plays on."""

    near: Server
    far: Server
    relay: Process
    config: Path
    log: Path
    status_queue: QueueAddress


def _set_up(stack: ExitStack, screen: "Screen") -> Stage:
    """Start two job servers and the relay; `stack` ends them, then removes their files."""
    kind, start_server = find_job_server()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gevproxy-demo-")))
    near = start_server("A", folder, stack)
    far = start_server("B", folder, stack)
    screen.say(f"Two job servers ({kind}): A at {near}, B at {far}.")
    status_queue = QueueAddress(near, STATUS)
    text = config_text(near, far)
    config, log = folder / "gevproxy.json", folder / "gevproxy.log"
    config.write_text(text)
    relay = start_relay(config, log, stack)
    screen.say(f"The relay between them, process {relay.pid}, runs with this configuration:\n")
    screen.say(text)
    return Stage(near, far, relay, config, log, status_queue)


def config_text(near: Server, far: Server) -> str:
    """Return the relay's configuration: checks from A to B, results from B to A."""
    queues = {f"{near}/{CHECKS}": f"{far}/{CHECKS}", f"{far}/{RESULTS}": f"{near}/{RESULTS}"}
    return json.dumps({"status_queue": f"{near}/{STATUS}", "queues": queues}, indent=2) + "\n"


def _watch(
    traffic: Traffic, relay: Process, patience: float, screen: "Screen", stop: "Stop"
) -> str:
    """Let the checks cross and show how far they are; return what keeps some back, else "".

    DemoError when a person ends it: then nothing can be said of the rest.
    """
    tally, jobs = traffic.tally, traffic.jobs
    screen.say(f"{jobs:,} checks are submitted at A; a worker at B answers each.")
    traffic.start()
    trouble, steps, moved_at = "", 0, time.monotonic()
    while not (traffic.complete or trouble):
        time.sleep(_LOOK)
        now = time.monotonic()
        screen.progress(f"sent {tally.sent:,}   results back {tally.back:,} of {jobs:,}", now)
        if tally.sent + tally.results > steps:
            steps, moved_at = tally.sent + tally.results, now
        elif now - moved_at >= patience:
            trouble = f"no progress for {patience} s"
        trouble = traffic.fault or relay.ended() or trouble
        if stop.asked:
            screen.progress("", now)
            raise DemoError("interrupted")
    screen.progress("", now)
    return trouble


def _wait(relay: Process, stop: "Stop") -> str:
    """Wait until asked to stop; return what went wrong meanwhile, else ""."""
    trouble = ""
    while not (stop.asked or trouble):
        time.sleep(_LOOK)
        trouble = relay.ended()
    return trouble


def _status(queue: QueueAddress) -> str:
    """Return what check_gearman says of the relay, without the performance data."""
    try:
        seen = ask_line(queue, _ANSWER)
    except ControlError as error:
        return f"UNKNOWN - {error}"
    return seen.text.partition("|")[0].strip()


def table(tally: Tally, seconds: float, status: str) -> str:
    """Return what became of the checks, one thing a line; last what the relay's status is."""
    rows = {"sent": tally.sent, "results back": tally.back, "lost": tally.sent - tally.back}
    if tally.repeats:
        rows["repeats"] = tally.repeats
    rows["jobs/s"] = round(tally.back / seconds) if seconds else 0
    lines = [f"  {name:<14}{value:>12,}" for name, value in rows.items()]
    return "\n".join([*lines, f"  status        {status}"]) + "\n"


def _look_around(stage: Stage) -> str:
    """Return what a person may try while everything runs."""
    near, far = (f"-h {server.host} -p {server.port}" for server in stage[:2])
    return f"""\
All of it is left running, its queues empty. Ctrl-C ends it and removes the files.

  # The queues of A, then of B: jobs, jobs being worked on, workers (Debian: gearman-tools)
  gearadmin {near} --status
  gearadmin {far} --status
  # Who is connected to A; the relay is called gevproxy->{stage.far}
  gearadmin {near} --workers
  # A job for A that crosses to B
  gearman {near} -b -f {CHECKS} hello
  # The relay's state, through its control socket, and through its status queue as from afar
  gevproxy status --socket {stage.config.parent / SOCKET_NAME}
  gevproxy status --queue {stage.status_queue}
  # Its log
  tail {stage.log}
  # Its configuration
  cat {stage.config}
"""


class Screen:
    """Where the demo shows itself: a terminal, or a file or pipe."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._next_at: float | None = None

    def say(self, text: str) -> None:
        """Write a line."""
        self._out.write(f"{text}\n")
        self._out.flush()

    def progress(self, text: str, now: float) -> None:
        """Show a line that the next one replaces; where nothing can be replaced, only seldom."""
        if self._terminal:
            self._out.write(f"\r\x1b[K{text}")  # ECMA-48: erase to the end of the line
            self._out.flush()
        elif self._next_at is None:
            self._next_at = now + _SELDOM
        elif text and now >= self._next_at:
            self._next_at = now + _SELDOM
            self.say(text)


class Stop:
    """Whether a person, or the system, asked the demo to stop."""

    asked = False


@contextmanager
def _stop_on_signals() -> Iterator[Stop]:
    """Let signals only set a flag: nothing may cut the way out short and leave processes behind."""
    stop = Stop()

    def ask(*_: object) -> None:
        stop.asked = True

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
