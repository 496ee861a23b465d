"""`gevproxy dead-letters`: look at what was refused, send it on its way again, or throw it away.

What is printed is safe for a terminal, whatever a letter holds. How letters are sent again is in
`replay.py`, how they lie on disk in `dead_letters.py`.
"""

# ruff: noqa: T201 - print is how a command line answers

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gevproxy import config
from gevproxy.dead_letters import DeadLetterError, DeadLetters, Entry, Letter
from gevproxy.errors import ConfigError
from gevproxy.gearman import Server
from gevproxy.gearman.tls import Tls
from gevproxy.replay import replay
from gevproxy.tls_files import read_tls

_CONFIRM: Final = "Remove them for ever? Type yes: "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what follows `gevproxy dead-letters`; `act` is set to `main`."""
    parser.set_defaults(act=main)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|show|replay|purge")

    show_all = verbs.add_parser("list", help="a line for each letter, oldest first, and a summary")
    _add_filters(show_all)
    show_all.add_argument("--json", action="store_true", help="one JSON object a line instead")
    show_all.set_defaults(run=_list)

    show = verbs.add_parser("show", help="everything about one letter, its payload too")
    show.add_argument("ids", metavar="ID", nargs=1)
    show.add_argument("--payload", action="store_true", help="write the payload's bytes, no more")
    show.set_defaults(run=_show, forward=None, limit=None)

    replay = verbs.add_parser(
        "replay",
        help="submit letters to their source queue again",
        description="Submit letters to their source queue again and remove those that it has "
        "confirmed. Mend first what they were refused for. Killed in the middle, it may have "
        "submitted letters that are not removed yet; they keep their unique.",
    )
    _add_choice(replay)
    replay.set_defaults(run=_replay)

    purge = verbs.add_parser("purge", help="remove letters for ever")
    _add_choice(purge)
    purge.add_argument("--yes", action="store_true", help="do not ask")
    purge.set_defaults(run=_purge)

    for verb in (show_all, show, replay, purge):
        verb.add_argument("--folder", metavar="PATH", help="the folder of the dead letters")
        verb.add_argument(
            "--config",
            action="append",
            metavar="PATH",
            help="take the folder, and how servers speak TLS, from this configuration "
            "(default: as `gevproxy run`)",
        )


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="*", help="as `list` shows it")
    parser.add_argument("--all", action="store_true", help="all letters")
    _add_filters(parser)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--forward", metavar="KEY", type=_forward_key, help="letters of this forward (its source)"
    )
    parser.add_argument(
        "--limit", metavar="N", type=_positive, help="no more than the oldest N of them"
    )


def _forward_key(text: str) -> str:
    """Bring a forward's key into its one spelling."""
    try:
        return str(config.parse_address(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("must be a number from 1")
    return int(text)


def main(arguments: argparse.Namespace) -> int:
    """Carry out the verb; return the exit code: 0 done, 1 not or not all, 78 configuration."""
    try:
        return int(arguments.run(arguments, DeadLetters(_folder(arguments))))
    except ConfigError as error:
        _complain(*map(str, error.problems))
        if arguments.folder is None:
            _complain("or name the folder with --folder PATH")
        return os.EX_CONFIG
    except DeadLetterError as error:
        _complain(str(error))
    except KeyboardInterrupt:
        _complain("interrupted; what was confirmed by then has been removed")
    return 1


def _folder(arguments: argparse.Namespace) -> Path:
    """Return the folder that is named, or that the configuration knows."""
    if arguments.folder is not None:
        return Path(arguments.folder)
    folder = config.load(arguments.config, environ=os.environ).dead_letters
    if folder is None:
        raise DeadLetterError("the configuration names no folder: name it with --folder PATH")
    return folder


def _tls(arguments: argparse.Namespace) -> Mapping[Server, Tls]:
    """Return how sources speak TLS: the folder alone may be named without any configuration."""
    named = arguments.folder is None or arguments.config is not None
    if not named and not any(path.exists() for path in config.DEFAULT_PATHS):
        return {}
    return read_tls(config.load(arguments.config, environ=os.environ).servers)


class _Choice:
    """Which letters a command means. Asked about each in turn, as it counts them."""

    def __init__(self, arguments: argparse.Namespace, *, everything: bool) -> None:
        self.ids = frozenset(arguments.ids if "ids" in arguments else ())
        self.forward: str | None = arguments.forward
        self.limit: int | None = arguments.limit
        if self.ids and everything:
            raise DeadLetterError("name letters by their ID, or take --all: not both")
        if not self.ids and not everything and self.forward is None:
            raise DeadLetterError("which letters? Name them by ID or --forward KEY, or take --all")
        self.count = 0
        self._seen: set[str] = set()

    def takes(self, entry: Entry) -> bool:
        """Tell whether a letter is meant. A damaged line has no forward."""
        if self.ids:
            if entry.id not in self.ids:
                return False
            self._seen.add(entry.id)
        if self.forward is not None and (not entry.letter or entry.letter.forward != self.forward):
            return False
        if self.limit is not None and self.count >= self.limit:
            return False
        self.count += 1
        return True

    def report_unknown(self) -> bool:
        """Complain of IDs that no letter has; tell whether there are none."""
        unknown = sorted(self.ids - self._seen)
        _complain(*(f"no dead letter has the ID {_printable(id_)}" for id_ in unknown))
        return not unknown


class _Row(NamedTuple):
    """What the table shows of a letter; its payload is not kept."""

    id: str
    time: str
    size: int
    forward: str
    reason: str


def _list(arguments: argparse.Namespace, letters: DeadLetters) -> int:
    choice = _Choice(arguments, everything=True)
    rows: list[_Row] = []
    for entry in _entries(letters, choice):
        letter = entry.letter
        if letter is None:
            _complain(f"{entry.id}: this line is damaged; `purge {entry.id}` removes it")
        elif arguments.json:
            print(json.dumps({"id": entry.id, **_described(letter)}))
        else:
            time, forward = f"{letter.time:%Y-%m-%d %H:%M:%SZ}", _printable(letter.forward)
            reason = _printable(letter.reason)
            rows.append(_Row(entry.id, time, len(letter.payload), forward, reason))
    if not arguments.json:
        _print_table(letters.folder, rows)
    return 0


def _print_table(folder: Path, rows: Sequence[_Row]) -> None:
    """Print the letters, and how many each forward has."""
    if not rows:
        missing = "" if folder.is_dir() else ": there is no such folder"
        print(f"no dead letters in {folder}{missing}")
        return
    width = max(len(row.forward) for row in rows)
    print(f"{'ID':12}  {'TIME':20}  {'BYTES':>9}  {'FORWARD':{width}}  REASON")
    for id_, time, size, forward, reason in rows:
        print(f"{id_:12}  {time:20}  {size:>9}  {forward:{width}}  {reason}")
    print()
    for forward, count in Counter(row.forward for row in rows).most_common():
        print(f"{count:>9}  {forward}")
    print(f"{len(rows):>9}  in {folder}, {sum(row.size for row in rows)} bytes of payload")


def _described(letter: Letter) -> dict[str, str | int]:
    """Return all but the payload, as texts that a terminal bears."""
    return {
        "time": letter.time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "forward": _printable(letter.forward),
        "source": _printable(letter.source),
        "target": _printable(letter.target),
        "handle": _printable(letter.handle.decode(errors="backslashreplace")),
        "unique": _printable(letter.unique.decode(errors="backslashreplace")),
        "reason": _printable(letter.reason),
        "bytes": len(letter.payload),
    }


def _printable(text: str) -> str:
    """Escape what could play tricks on a terminal, line ends too."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _show(arguments: argparse.Namespace, letters: DeadLetters) -> int:
    choice = _Choice(arguments, everything=False)
    for entry in _entries(letters, choice):
        if entry.letter is None:
            _complain(f"{entry.id}: this line is damaged")
            return 1
        if arguments.payload:
            sys.stdout.buffer.write(entry.letter.payload)
            sys.stdout.flush()
            return 0
        for name, value in {"id": entry.id, **_described(entry.letter)}.items():
            print(f"{name + ':':9}{value}")
        print()
        for line in entry.letter.payload.decode(errors="backslashreplace").split("\n"):
            print(_printable(line))
        return 0
    choice.report_unknown()
    return 1


def _entries(letters: DeadLetters, choice: _Choice) -> Iterator[Entry]:
    """Return what is meant of all segments."""
    for segment in letters.segments():
        yield from filter(choice.takes, letters.read(segment))


def _purge(arguments: argparse.Namespace, letters: DeadLetters) -> int:
    choice = _Choice(arguments, everything=arguments.all)
    with letters.alone():
        letters.close_current()  # what arrives while somebody thinks about the question stays
        doomed = {
            segment: [entry.offset for entry in letters.read(segment) if choice.takes(entry)]
            for segment in letters.closed()
        }
        print(f"{choice.count} dead letters in {letters.folder}")
        if choice.count and not arguments.yes and not _is_confirmed():
            _complain("nothing was removed")
            return 1
        for segment, offsets in doomed.items():
            letters.remove(segment, offsets)
    print(f"removed {choice.count}")
    return 0 if choice.report_unknown() else 1


def _is_confirmed() -> bool:
    """Ask a person; where nobody is there to answer, the answer is no."""
    try:
        return input(_CONFIRM).strip() == "yes"
    except EOFError:
        print()
        return False


def _replay(arguments: argparse.Namespace, letters: DeadLetters) -> int:
    choice = _Choice(arguments, everything=arguments.all)
    result = replay(letters, choice.takes, _tls(arguments))
    joined = (
        f" ({result.coalesced} joined a job of the same unique that the queue already held)"
        if result.coalesced
        else ""
    )
    left = choice.count - result.replayed
    print(f"replayed {result.replayed}{joined}, left {left}")
    for why, count in result.refusals.most_common():
        _complain(f"{count} refused: {_printable(why)}")
    for server, reason in result.failed.items():
        _complain(f"{server} failed: {_printable(reason)}; its letters are left")
    well = choice.report_unknown()
    return 0 if well and not left else 1


def _complain(*lines: str) -> None:
    """Say on stderr what is wrong."""
    for line in lines:
        print(line, file=sys.stderr)
