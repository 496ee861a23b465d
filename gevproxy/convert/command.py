"""The command `gevproxy convert`: from the Perl proxy's files to ours, or a comparison of both.

The JSON goes to standard output or a new file, everything for a person to standard error.
"""

# ruff: noqa: T201 - print is how a command line answers

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from gevproxy import config
from gevproxy.config.load import check
from gevproxy.config.source import parse
from gevproxy.convert.compare import compare
from gevproxy.convert.emit import DEFAULT_CALLBACKS, KeyFiles, document, stubs, text, write
from gevproxy.convert.evaluate import evaluate, find
from gevproxy.convert.model import Converted
from gevproxy.convert.translate import translate
from gevproxy.errors import ConfigError

DESCRIPTION: Final = """\
Reads the configuration of gearman_proxy.pl and prints it as JSON for gevproxy. What a person must
still do is named on standard error; then the exit code is 1, and 78 where nothing can be converted.

The files are Perl programs, and there is no other way to read them than to RUN them: with your
rights, everything in them, as the Perl proxy does at its start. So run this only on files that you
would start the Perl proxy with, on its host, as its user, and in the folder where it runs."""

SECONDS: Final = 10.0
"""For perl: a configuration is read in milliseconds, unless it asks a name server."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what follows `gevproxy convert`; `act` is set to `main`."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "paths",
        metavar="FILE|FOLDER",
        nargs="*",
        help="as --config of the Perl proxy: of a folder its *.cfg, then its *.conf (default: what "
        "exists of ~/.gearman_proxy, /etc/mod-gearman/gearman_proxy.cfg and "
        "$OMD_ROOT/etc/mod-gearman/proxy.cfg)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--output", metavar="PATH", type=_path, help="write the JSON to a new file, with mode 0600"
    )
    what.add_argument(
        "--check",
        metavar="PATH",
        action="append",
        help="print no JSON but in what the one in PATH (file or folder, many times) differs: "
        "exit code 0 if in nothing, else 1",
    )
    parser.add_argument(
        "--callbacks",
        metavar="PATH.py",
        type=_python_file,
        help="write a new Python file with a function for each callback that is no list of rewrite "
        "rules: it refuses its jobs until you have written it",
    )
    parser.add_argument(
        "--keys-dir",
        metavar="FOLDER",
        type=_path,
        help="move the passwords into files in this folder, with mode 0600",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=SECONDS,
        help="how long perl may run (default: 10)",
    )
    parser.set_defaults(act=main)


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:  # noqa: PLR2004 - an hour
        raise argparse.ArgumentTypeError("must be a number of seconds, up to 3600")
    return seconds


def _path(word: str) -> Path:
    """Return an absolute path: it goes into the JSON, which may end up anywhere."""
    return Path(word).absolute()


def _python_file(word: str) -> Path:
    path = _path(word)
    if path.suffix != ".py":
        raise argparse.ArgumentTypeError("the name of a Python file ends in .py")
    return path


def main(arguments: argparse.Namespace) -> int:
    """Convert or compare; return 0, 1 if something is left to do or differs, 78 if it cannot be."""
    try:
        files = find(arguments.paths, os.environ)
        evaluated = evaluate(files, environ=os.environ, seconds=arguments.timeout)
        _say("read", files)
        converted = translate(evaluated, Path.cwd())
        if arguments.check:
            return _check(converted, arguments.check)
        return _convert(converted, files, arguments)
    except ConfigError as error:
        _say("error", error.problems)
        return os.EX_CONFIG


def _check(converted: Converted, paths: Sequence[str]) -> int:
    ours = config.load(paths, environ=os.environ)
    found = compare(converted, ours, os.environ)
    for line in found.differences:
        print(line)
    _say("not compared", found.remarks)
    if not found.differences:
        print(f"no difference in {len(converted.forwards)} forwards")
    return 1 if found.differences else 0


def _convert(converted: Converted, files: Sequence[str], arguments: argparse.Namespace) -> int:
    """Write what was asked for, print the JSON, and say what is left to do."""
    keys = KeyFiles(converted.forwards, arguments.keys_dir)
    callbacks = arguments.callbacks or DEFAULT_CALLBACKS
    written = text(document(converted, files, keys, callbacks))
    functions = stubs(converted.forwards)
    new: dict[Path, bytes] = {}
    if arguments.output:
        new[arguments.output] = written.encode()
    if arguments.callbacks and functions:
        new[callbacks] = functions.encode()
    write(new, keys.files)
    if not arguments.output:
        sys.stdout.write(written)
    _say("wrote", [*new, *keys.files])

    to_do = [*converted.left_out, *converted.to_do, *_unwritten(keys, functions, arguments)]
    said = [] if arguments.callbacks else [str(callbacks)]
    to_do += _problems(written, arguments.output, [*said, *keys.inexpressible])
    notes = list(converted.notes)
    if keys.literal:
        notes.append(
            "the JSON holds a password with white space at its end, as a key file cannot: chmod 600"
            if arguments.keys_dir
            else "the JSON holds passwords: chmod 600, or convert again with --keys-dir FOLDER"
        )
    if new or keys.files:
        notes.append("what was written is readable for you alone: chown it to the relay's user")
    _say("to do", to_do)
    _say("note", notes)
    return 1 if to_do else 0


def _unwritten(keys: KeyFiles, functions: str, arguments: argparse.Namespace) -> Iterator[str]:
    """Yield what the JSON names and nobody has written."""
    if functions and not arguments.callbacks:
        yield f"{DEFAULT_CALLBACKS} is not written: convert again with --callbacks PATH.py"
    for path in keys.inexpressible:
        yield (
            f"{path} is to hold a password that a key file cannot, nor JSON: choose another"
            if arguments.keys_dir
            else f"{path} is to hold a password that JSON cannot: convert again with --keys-dir "
            "FOLDER"
        )


def _problems(written: str, path: Path | None, said: Sequence[str]) -> Iterator[str]:
    """Yield what `gevproxy check` would say, but for files that were named before."""
    for problem in check(parse(written, str(path or "the JSON")), os.environ):
        if not any(name in problem.message for name in said):
            yield str(problem)


def _say(what: str, lines: Iterable[object]) -> None:
    for line in lines:
        print(f"{what}: {line}", file=sys.stderr)
