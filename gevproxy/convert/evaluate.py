"""Finds the Perl proxy's configuration and has `perl` evaluate it: the files are Perl programs.

They run with the rights of whoever runs `gevproxy convert`, in a process of their own and for a
limited time. What they print is thrown away, and so are Perl's messages: both may quote a password.
"""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gevproxy.errors import ConfigError, Problem

PATTERNS: Final = ("*.cfg", "*.conf")
"""What the Perl proxy reads in a folder, in this order."""

_SCRIPT: Final = Path(__file__).with_name("evaluate.pl")

_MODULES: Final = ("-MJSON::PP", "-MB::Deparse")
"""Of Perl's core; Debian's bare perl-base lacks them."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is written; line 0 is the whole file."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Value:
    """A value of Perl's: `kind` is `text`, `undef`, `code`, `undefined sub`, `HASH`, ..."""

    kind: str
    text: bytes = field(default=b"", repr=False)  # it may be a password
    code: int = -1  # the position in `Evaluated.codes`

    @property
    def true(self) -> bool:
        """Whether Perl takes it for true."""
        return self.kind != "undef" and (self.kind != "text" or self.text not in (b"", b"0"))


@dataclass(frozen=True, slots=True)
class Code:
    """A callback as B::Deparse writes it; `scalars` are the values of what it only reads."""

    text: str
    name: str
    place: Place
    scalars: Mapping[str, bytes | None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Queue:
    """An entry of `$queues`. Two with the same `same` share one hash; `first` was overwritten."""

    key: str
    value: Value
    place: Place
    options: Mapping[str, Value]
    same: int | None
    first: Place | None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the files have defined, and what they asked for in vain, each with its place."""

    files: tuple[str, ...]
    queues: tuple[Queue, ...]
    codes: tuple[Code, ...]
    log_file: Value
    debug: Value
    status_queue: Value
    missing: tuple[tuple[Place, str], ...]
    unset: tuple[tuple[Place, str], ...]
    lost: tuple[tuple[Place, str, str], ...]  # where, which queue, and the file that dropped it


def find(paths: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return the files to evaluate, in the Perl proxy's order; its search path where none is named.

    Raises ConfigError where a named path leads to none, or nothing is on the search path.
    """
    if not paths:
        places = _search_path(environ)
        if found := [str(place) for place in places if place.is_file()]:
            return found
        names = ", ".join(map(str, places))
        raise _error(str(places[0]), f"none of {names} exists: name the Perl configuration")
    files: list[str] = []
    problems: list[Problem] = []
    for name in paths:
        path = Path(name).absolute()
        try:
            found = _files(path)
        except OSError as error:
            problems.append(Problem(name, 0, "", f"cannot be read: {error.strerror}"))
            continue
        if not found:
            folder = f"the folder holds no {' and no '.join(PATTERNS)}"
            what = folder if path.is_dir() else "there is no such file"
            problems.append(Problem(name, 0, "", what))
        files += found
    if problems:
        raise ConfigError(tuple(problems))
    return files


def _search_path(environ: Mapping[str, str]) -> list[Path]:
    """Return where the Perl proxy looks by itself; it reads all of them that are there."""
    places = [Path("/etc/mod-gearman/gearman_proxy.cfg")]
    if home := environ.get("HOME"):
        places.insert(0, Path(home) / ".gearman_proxy")
    if site := environ.get("OMD_ROOT"):
        places.append(Path(site) / "etc/mod-gearman/proxy.cfg")
    return places


def _files(path: Path) -> list[str]:
    """Return a folder's files, or the file itself; nothing if there is none. May raise OSError."""
    if not path.is_dir():
        found = [path] if path.exists() else []
    else:
        names = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
        found = [entry for pattern in PATTERNS for entry in names if entry.match(pattern)]
    for file in found:
        file.open("rb").close()
    return [str(file) for file in found]


def evaluate(files: Sequence[str], *, environ: Mapping[str, str], seconds: float) -> Evaluated:
    """Evaluate the files in one run of perl. Raises ConfigError, which quotes none of them."""
    result = _run(files, environ, seconds)
    if errors := result["errors"]:
        raise ConfigError(tuple(_problem(error) for error in errors))
    if result["shape"] != "HASH":
        raise _error(files[-1], "after this file $queues is no hash: the Perl proxy needs {...}")
    evaluated = Evaluated(
        files=tuple(files),
        queues=tuple(_queue(queue) for queue in result["queues"]),
        codes=tuple(_code(code) for code in result["codes"]),
        log_file=_value(result["logfile"]),
        debug=_value(result["debug"]),
        status_queue=_value(result["statusqueue"]),
        missing=tuple((_place(each), _text(each["text"])) for each in result["missing"]),
        unset=tuple((_place(each), _text(each["text"])) for each in result["unset"]),
        lost=tuple(
            (_place(each), _text(each["text"]), _text(each["by"])) for each in result["lost"]
        ),
    )
    if not evaluated.queues:
        raise ConfigError(_no_queues(evaluated))
    return evaluated


def _no_queues(evaluated: Evaluated) -> tuple[Problem, ...]:
    where = " or ".join(evaluated.files)
    hint = 'queues are set as $queues->{"host:port/queue"}; %queues or "my $queues" is not seen'
    first = Problem(where, 0, "", f"no queues are configured: {hint}")
    missing = (
        Problem(place.file, place.line, "", f"{file} is not found from here, in this folder")
        for place, file in evaluated.missing
    )
    return (first, *missing)


def _run(files: Sequence[str], environ: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """Run perl and return what it says. All that it has started ends with it in a time-out."""
    # The order of a hash's keys would differ from run to run, and so what a loop overwrites.
    environment = {**environ, "PERL_HASH_SEED": "0", "PERL_PERTURB_KEYS": "0"}
    try:
        process = subprocess.Popen(
            ["perl", str(_SCRIPT), *files],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise _error(
            files[0],
            f"perl cannot be started ({error.strerror}), and this file is a Perl program: "
            "run convert where the Perl proxy runs",
        ) from error
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise _error(
            files[0], f"perl was not done after {seconds:g} s and was stopped: see --timeout"
        ) from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    try:
        result: dict[str, Any] = json.loads(output)
    except ValueError as error:
        raise _error(files[0], _why_silent(process.returncode, environment)) from error
    return result


def _why_silent(code: int, environment: Mapping[str, str]) -> str:
    """Say why perl ended without an answer."""
    probe = subprocess.run(
        ["perl", *_MODULES, "-e1"], env=environment, capture_output=True, check=False, timeout=60
    )
    if probe.returncode:
        return "perl lacks its core modules JSON::PP or B::Deparse (Debian: the package perl)"
    return f"perl ended with {code} and without an answer: does a file end it (exec, POSIX::_exit)?"


def _problem(error: Mapping[str, Any]) -> Problem:
    place, text = _place(error), _text(error.get("text", ""))
    see = "Perl's own words may quote a password and are not repeated here: see them with "
    match error["kind"]:
        case "module":
            what = f"this needs the Perl module {text}, which is not installed here"
        case "file":
            what = f"this needs the file {text}, which Perl does not find from this folder"
        case "exit":
            what = "the file ends the program here with exit"
        case "syntax":
            what = f"Perl cannot compile this file. {see}perl -c {place.file}"
        case _:
            what = (
                "the file dies here, and the Perl proxy silently goes on without the rest of it. "
                f"{see}perl {place.file}"
            )
    return Problem(place.file, place.line, "", what)


def _queue(queue: Mapping[str, Any]) -> Queue:
    return Queue(
        key=_text(queue["key"]),
        value=_value(queue),
        place=_place(queue["place"]),
        options={_text(name): _value(value) for name, value in queue.get("options", {}).items()},
        same=queue.get("same"),
        first=_place(queue["first"]) if "first" in queue else None,
    )


def _code(code: Mapping[str, Any]) -> Code:
    scalars = {
        name: None if value is None else _bytes(value) for name, value in code["scalars"].items()
    }
    return Code(_text(code["text"]), _text(code["name"]), _place(code), scalars)


def _value(value: Mapping[str, Any]) -> Value:
    return Value(value["type"], _bytes(value.get("text", "")), value.get("code", -1))


def _place(value: Mapping[str, Any]) -> Place:
    return Place(_text(value["file"]), value["line"])


def _bytes(text: str) -> bytes:
    """Undo what the script does to bytes."""
    return text.encode("latin-1")


def _text(text: str) -> str:
    return _bytes(text).decode(errors="backslashreplace")


def _error(file: str, message: str) -> ConfigError:
    return ConfigError((Problem(file, 0, "", message),))
