"""`gevproxy status`, `reload`, `pause` and `resume`: what an operator asks a running daemon.

They ask through the control socket, which needs no gearmand; `status --queue` asks through the
status queue of a relay elsewhere, as check_gearman does. Plain blocking sockets, each wait with a
deadline; nothing here knows the daemon.
"""

# ruff: noqa: T201 - print is how a command line answers

import argparse
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from gevproxy.config import QueueAddress, load, parse_address
from gevproxy.control_client import ControlError, ask, find_socket
from gevproxy.errors import ConfigError, LinkError
from gevproxy.gearman import Client, PacketType, Priority, Refused, Update
from gevproxy.gearman.connection import connect, reason_of
from gevproxy.gearman.tls import Tls
from gevproxy.render import JSON_REQUEST, Level
from gevproxy.tls_files import read_tls

COMMANDS: Final = {
    "status": "show what a running relay does, with the exit code of a monitoring plugin",
    "reload": "make a running relay read its configuration again, and show what came of it",
    "pause": "make a forward leave its source until it is resumed; its jobs wait there",
    "resume": "let a paused forward go on",
}
"""Every command in this file, and what it is for."""

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 78
"""EX_CONFIG of sysexits.h, as `gevproxy check` has it."""

PATIENCE: Final = 9.0
"""Seconds: check_gearman's own, unless it is told otherwise."""

RELOAD_PATIENCE: Final = 60.0
"""Seconds for a reload, which reads files and imports callbacks."""

_REDRAW: Final = 1.0
"""Seconds between two pictures of --watch."""

_LOOK: Final = 0.1
"""Seconds until a Ctrl-C is noticed."""

# ECMA-48, and xterm's alternate screen: what stood on the terminal before comes back at the end.
_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Declare the options of one of COMMANDS; `act` is set to the function here."""
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="the relay's control socket (default: that of the system's relay, "
        "/run/gevproxy/control.sock, or where there is none that of your own, "
        "$XDG_RUNTIME_DIR/gevproxy/control.sock)",
    )
    if command == "status":
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="print everything as JSON")
        form.add_argument("--watch", action="store_true", help="redraw each second until Ctrl-C")
        parser.add_argument(
            "--queue",
            type=_address,
            metavar="HOST:PORT/QUEUE",
            help="ask a relay elsewhere through its status queue",
        )
        parser.add_argument(
            "--config",
            action="append",
            metavar="PATH",
            help="with --queue: speak TLS with its server as this configuration says (default: "
            "plain text)",
        )
        parser.add_argument(
            "--timeout",
            type=_seconds,
            default=PATIENCE,
            metavar="SECONDS",
            help="how long to wait for an answer (default: %(default)g)",
        )
    elif command == "reload":
        parser.add_argument(
            "--quiet",
            action="store_true",
            help="print nothing of the outcome, which is in the log too; the exit code tells it",
        )
    elif command in {"pause", "resume"}:
        text = "the forward's source, as `gevproxy status` shows it"
        parser.add_argument("forward", type=_address, metavar="FORWARD", help=text)
    parser.set_defaults(act=act)


def _address(text: str) -> QueueAddress:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return seconds


def act(arguments: argparse.Namespace) -> int:
    """Carry out one of COMMANDS; return the exit code."""
    arguments.socket = arguments.socket or find_socket(os.environ)
    if arguments.command == "status":
        return _status(arguments)
    try:
        if arguments.command == "reload":
            return _reload(arguments.socket, quiet=arguments.quiet)
        ask(arguments.socket, arguments.command, forward=str(arguments.forward), deadline=PATIENCE)
    except ControlError as error:
        print(f"gevproxy: {error}", file=sys.stderr)
        return EXIT_FAILED
    print(f"{arguments.command}d: {arguments.forward}")
    return 0


def _reload(path: Path, *, quiet: bool) -> int:
    """Return 0 and print what changed, or 78 and print every problem of the configuration.

    `quiet` leaves the printing out: in a unit, the log has it all and our words would stand in it.
    """
    outcome = ask(path, "reload", deadline=RELOAD_PATIENCE)
    problems = outcome.get("problems")
    if quiet:
        return EXIT_CONFIG if problems else 0
    if problems:
        print(
            *problems, "nothing was changed: the relay runs on as before", sep="\n", file=sys.stderr
        )
        return EXIT_CONFIG
    print("reloaded")
    for what in ("added", "changed", "removed"):
        for forward in outcome.get(what, ()):
            print(f"{what:<8} {forward}")
    return 0


# status


class Seen(NamedTuple):
    """An answer: the exit code, text for a person, and all as JSON where the relay gave it."""

    code: int
    text: str
    status: Any


def _status(arguments: argparse.Namespace) -> int:
    """Show the state once, or until Ctrl-C; return its level."""

    def look() -> Seen:
        if not arguments.queue:
            return _seen(ask(arguments.socket, "status", deadline=arguments.timeout))
        seen = ask_queue(arguments.queue, _tls(arguments), arguments.timeout)
        if arguments.json and seen.status is None:
            raise ControlError(f"what answers on {arguments.queue} gives a line, no JSON")
        return seen

    if arguments.watch:
        return _watch(look)
    try:
        seen = look()
    except ControlError as error:
        # A plugin speaks on stdout; there a script looks for JSON and nothing else.
        print(_unknown(error), file=sys.stderr if arguments.json else sys.stdout)
        return Level.UNKNOWN
    print(json.dumps(seen.status, indent=2) if arguments.json else seen.text)
    return seen.code


def _seen(answer: dict[str, Any]) -> Seen:
    try:
        return Seen(int(answer["code"]), str(answer["text"]), answer["status"])
    except (KeyError, TypeError, ValueError) as error:
        raise ControlError("the answer is not one of gevproxy's") from error


def _unknown(error: ControlError) -> str:
    return f"UNKNOWN - {error}"


def _tls(arguments: argparse.Namespace) -> Tls | None:
    """Return how the queue's server speaks TLS. ControlError where that cannot be read."""
    if arguments.config is None:
        return None
    try:
        servers = read_tls(load(arguments.config, environ=os.environ).servers)
    except ConfigError as error:
        raise ControlError(str(error)) from error
    return servers.get(arguments.queue.server)


def ask_queue(address: QueueAddress, tls: Tls | None, deadline: float) -> Seen:
    """Ask a relay through its status queue; the Perl proxy, and older relays, answer with a line.

    `deadline` is in seconds. ControlError where nobody answers.
    """
    result = _call(address, f"check {JSON_REQUEST}".encode(), tls, deadline)
    if not result.startswith(b"{"):
        return _of_line(result)
    try:
        return _seen(json.loads(result))
    except ValueError as error:
        raise ControlError(f"the answer of {address} is cut short") from error


def ask_line(address: QueueAddress, deadline: float) -> Seen:
    """Ask a relay as check_gearman does: `text` is its line with the performance data.

    `deadline` is in seconds. ControlError where nobody answers.
    """
    return _of_line(_call(address, b"check", None, deadline))


def _of_line(result: bytes) -> Seen:
    """Read a check's line: "CODE:TEXT|PERFDATA", the code a monitoring plugin's."""
    text = result.partition(b"\0")[0].decode(errors="backslashreplace")
    if text[1:2] == ":" and text[0] in "0123":
        return Seen(int(text[0]), text[2:], None)
    return Seen(Level.UNKNOWN, text, None)


def _call(address: QueueAddress, workload: bytes, tls: Tls | None, deadline: float) -> bytes:
    """Submit a foreground job and return its result. ControlError where there is none in time.

    In a thread, which is left behind when the time is up: looking a name up, connecting and TLS
    have deadlines of their own, or none.
    """
    outcome: Future[bytes] = Future()

    def exchange() -> None:
        try:
            outcome.set_result(_exchange(address, workload, tls, deadline))
        except BaseException as error:  # noqa: BLE001 - it is raised again by whoever waits
            outcome.set_exception(error)

    threading.Thread(target=exchange, daemon=True).start()
    try:
        return outcome.result(deadline)
    except TimeoutError as error:
        text = f"no answer on {address} within {deadline:g} s: is a relay there?"
        raise ControlError(text) from error


def _exchange(address: QueueAddress, workload: bytes, tls: Tls | None, deadline: float) -> bytes:
    """Submit the job and wait for its result. ControlError or TimeoutError where there is none.

    Without a unique: gearmand would make one job of ours and that of a check that nobody waits for
    any more, and neither is ever answered.
    """
    client: Client[None] = Client(background=False, priority=Priority.HIGH)
    client.submit(None, address.queue.encode(), b"", workload)
    end = time.monotonic() + deadline
    try:
        with connect(address.server, tls) as sock:
            while True:
                sock.settimeout(max(end - time.monotonic(), 0.001))
                if client.outbox.size:
                    sock.sendall(client.outbox.take())
                data = sock.recv(65536)
                if not data:
                    raise ControlError(f"{address.server} closed the connection")
                for event in client.receive(data):
                    if (result := _result(address, event)) is not None:
                        return result
                if client.fault is not None:
                    raise ControlError(f"{address.server}: {client.fault}")
    except TimeoutError:  # one OSError that the caller has the words for
        raise
    except LinkError as error:
        raise ControlError(f"{address.server}: {error}") from error
    except OSError as error:
        raise ControlError(f"{address.server}: {reason_of(error)}") from error


def _result(address: QueueAddress, event: object) -> bytes | None:
    """Return the result that an event brings. ControlError where it brings the end without one."""
    if isinstance(event, Refused):
        raise ControlError(f"{address.server} refused the job: {event.code}: {event.text}")
    if isinstance(event, Update):
        if event.type is PacketType.WORK_COMPLETE:
            return event.args[0]
        if event.type in {PacketType.WORK_FAIL, PacketType.WORK_EXCEPTION}:
            raise ControlError(f"{address}: the job failed: what answers there is no relay")
    return None


def _watch(look: Callable[[], Seen]) -> int:
    """Redraw each second until Ctrl-C; return the last level and leave the last picture behind."""
    if not sys.stdout.isatty():
        print("gevproxy: --watch needs a terminal", file=sys.stderr)
        return Level.UNKNOWN
    with _stop_on_signals() as stop:
        sys.stdout.write(_ENTER)
        try:
            while True:
                seen = _look_again(look)
                _draw(seen.text)
                drawn_at = time.monotonic()
                while not stop and time.monotonic() < drawn_at + _REDRAW:
                    time.sleep(_LOOK)
                if stop:
                    break
        finally:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
    print(seen.text)
    return seen.code


def _look_again(look: Callable[[], Seen]) -> Seen:
    """Look; that nobody answers is a picture too: the relay may come back."""
    try:
        return look()
    except ControlError as error:
        return Seen(Level.UNKNOWN, _unknown(error), None)


def _draw(text: str) -> None:
    """Draw over the last picture what fits on the terminal."""
    lines = [time.strftime("%H:%M:%S"), *text.splitlines()]
    shown = lines[: shutil.get_terminal_size().lines - 1]
    picture = "".join(f"{line}{_END_OF_LINE}\n" for line in shown)
    sys.stdout.write(f"{_HOME}{picture}{_END_OF_SCREEN}")
    sys.stdout.flush()


@contextmanager
def _stop_on_signals() -> Iterator[list[int]]:
    """Give a list that holds what came of SIGINT and SIGTERM: the terminal must be set right."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    try:
        yield came
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
