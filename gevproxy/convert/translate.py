"""From what the Perl files define to our terms, and to a list of what has no equivalent.

The meaning is that of the Perl program: an unset `async` is true and any text but "0" and "" is
too, `worker` counts for synchronous queues alone, a key that is "" or "0" is none, and an entry
without `remoteQueue` is passed over. Messages name options and queues, never a key.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from keyword import iskeyword
from pathlib import Path
from typing import Final

from gevproxy.config import Payload, QueueAddress, Substitute, parse_address
from gevproxy.convert.evaluate import Evaluated, Queue, Value
from gevproxy.convert.model import Callback, Converted, Forward, Key
from gevproxy.convert.substitute import Untranslatable, rules

_OPTIONS: Final = frozenset(
    {"remoteQueue", "decrypt", "encrypt", "data_callback", "async", "worker"}
)

_FILE: Final = b"file:"

_NOT_HERE: Final = "is not in this folder: write the path as it is for the Perl proxy"

_NO_CHECKS: Final = frozenset({"perfdata", "export"})
"""Queues of Mod-Gearman's NEB whose texts begin with neither type= nor host_name=."""

MAX_WORKERS: Final = 1_000_000
"""The schema's; Perl would start as many threads."""


def translate(evaluated: Evaluated, folder: Path) -> Converted:
    """Return the configuration in our terms, with everything that a person must do.

    Relative paths start at `folder`, where the Perl proxy runs, if that is so: what they name is
    looked for there.
    """
    return _Translator(evaluated, folder).converted


class _Unusable(Exception):  # noqa: N818 - an entry that is left out; never leaves this file
    """Why an entry of `$queues` cannot be a forward."""


@dataclass(slots=True)
class _Entry:
    """An entry of `$queues` on its way; remarks are made about it as it goes."""

    queue: Queue
    to_do: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def option(self, name: str) -> Value:
        """Return an option, which is undefined where it is not set."""
        return self.queue.options.get(name, Value("undef"))


class _Translator:
    def __init__(self, evaluated: Evaluated, folder: Path) -> None:
        self.evaluated = evaluated
        self.folder = folder
        self.converted = Converted()
        self.callbacks: dict[int, Callback | tuple[Substitute, ...]] = {}
        self.sources: dict[QueueAddress, Queue] = {}
        self.top()
        self.shared()
        for queue in evaluated.queues:
            self.queue(queue)

    def top(self) -> None:
        """Take in what is not about a single queue."""
        evaluated, converted = self.evaluated, self.converted
        converted.debug = evaluated.debug.true
        if evaluated.log_file.true:
            self.log_file(evaluated.log_file)
        if evaluated.status_queue.true:
            try:
                converted.status_queue = parse_address(_plain(evaluated.status_queue))
            except ValueError as error:
                converted.to_do.append(f"$statusqueue: {error}; status_queue is left out")
        for place, file in evaluated.missing:
            converted.left_out.append(
                f"{place}: {file} is not found from this folder, and what it defines is not here: "
                "run convert in the folder where the Perl proxy runs"
            )
        for place, name in evaluated.unset:
            converted.to_do.append(
                f"{place}: $ENV{{{name}}} is not set here: if it is for the Perl proxy, convert "
                "again with it"
            )
        for place, key, by in evaluated.lost:
            converted.notes.append(
                f"{place}: {key} is not converted: {by} sets $queues anew, and the Perl proxy "
                "forgets it too"
            )

    def log_file(self, value: Value) -> None:
        """Take in $logfile, which knows two names for a stream and else a path."""
        path = _plain(value)
        stream = {"-": "stdout", "stdout": "stdout", "stderr": "stderr"}.get(path.lower())
        if stream:
            self.converted.log_file = stream
            return
        if not path.startswith("/"):
            if not (self.folder / path).parent.is_dir():
                self.converted.to_do.append(f"log_file: {path} {_NOT_HERE}")
            path = str(self.folder / path)
        self.converted.log_file = path
        self.converted.notes.append(
            f"log_file: {path} gets a JSON object a line: while both proxies run, give one of them "
            "another file"
        )

    def shared(self) -> None:
        """Name hashes that stand for several queues: the Perl proxy writes into them."""
        same: dict[int, list[Queue]] = {}
        for queue in self.evaluated.queues:
            if queue.same is not None:
                same.setdefault(queue.same, []).append(queue)
        for queues in same.values():
            if len(queues) > 1:
                names = ", ".join(queue.key for queue in queues)
                self.converted.notes.append(
                    f"{queues[0].place}: {names} share one hash: the Perl proxy changes it and "
                    "then forwards none of them; here each is a forward"
                )

    def queue(self, queue: Queue) -> None:
        """Take in one entry, or name why it is left out."""
        entry = _Entry(queue)
        if queue.first:
            entry.notes.append(f"is set twice, first in {queue.first}: as in Perl, the last counts")
        try:
            forward = self.forward(entry)
        except _Unusable as error:
            self.converted.left_out.append(f"{queue.place}: {queue.key} is left out: {error}")
        else:
            self.converted.forwards.append(forward)
        where = f"{queue.place}: {queue.key}"
        self.converted.to_do += (f"{where} {text}" for text in entry.to_do)
        self.converted.notes += (f"{where} {text}" for text in entry.notes)

    def forward(self, entry: _Entry) -> Forward:
        """Return an entry's forward. Raises _Unusable."""
        source = self.source(entry.queue)
        target = _target(entry)
        asynchronous, workers = _kind(entry)
        decrypt, encrypt = (_key(entry, option, self.folder) for option in ("decrypt", "encrypt"))
        if decrypt is not None and source.queue in _NO_CHECKS:
            entry.to_do.append(
                "decrypts jobs that are neither checks nor results, and would be refused: if they "
                'are Mod-Gearman\'s, write "expect": "any"'
            )
        found = self.callback(entry)
        self.sources[source] = entry.queue
        for name in sorted(entry.queue.options.keys() - _OPTIONS):
            entry.notes.append(
                f'has the option "{name}", which the Perl proxy does not know either'
            )
        return Forward(
            source=source,
            target=target,
            asynchronous=asynchronous,
            workers=workers,
            decrypt=decrypt,
            encrypt=encrypt,
            rewrite=found if isinstance(found, tuple) else (),
            callback=found if isinstance(found, Callback) else None,
            payload=_payload(
                entry, decrypt, encrypt, has_callback=entry.option("data_callback").true
            ),
        )

    def source(self, queue: Queue) -> QueueAddress:
        """Return the source, once."""
        address = _address(queue.key, "its name")
        if first := self.sources.get(address):
            raise _Unusable(
                f"it is the queue {first.key} in other words; the Perl proxy shares the jobs out "
                "between the two, here one must do"
            )
        return address

    def callback(self, entry: _Entry) -> Callback | tuple[Substitute, ...]:
        """Return what becomes of an entry's callback; the empty tuple where there is none."""
        value = entry.option("data_callback")
        if not value.true:
            return ()
        if value.kind != "code":
            what = "a text" if value.kind == "text" else f"of type {value.kind}"
            raise _Unusable(
                f"its data_callback is {what}, no sub: the Perl proxy fails at every job"
            )
        if value.code not in self.callbacks:
            self.callbacks[value.code] = self.translated(value.code, entry.queue)
        found = self.callbacks[value.code]
        if isinstance(found, Callback):
            entry.to_do.append(
                f"has a data_callback ({found.code.place}) that cannot be rewrite rules, as "
                f'{found.why}: write the function "{found.function}" in Python'
            )
        return found

    def translated(self, position: int, queue: Queue) -> Callback | tuple[Substitute, ...]:
        """Return a callback's rules, or the function to be written for it."""
        code = self.evaluated.codes[position]
        try:
            return rules(code)
        except Untranslatable as error:
            name = queue.key.partition("/")[2] if code.name == "__ANON__" else code.name
            return Callback(self.function(name), code, str(error))

    def function(self, name: str) -> str:
        """Return a name for a function that no other has."""
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        if not plain.isidentifier() or iskeyword(plain):
            plain = f"queue_{plain}"
        taken = {each.function for each in self.callbacks.values() if isinstance(each, Callback)}
        return next(name for name in _numbered(plain) if name not in taken)


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def _target(entry: _Entry) -> QueueAddress:
    value = entry.queue.value
    if value.kind == "text":
        return _address(_plain(value), "its target")
    if value.kind != "HASH":
        raise _Unusable(f"it is of type {value.kind}, neither a text nor a hash {{...}}")
    remote = entry.option("remoteQueue")
    if not remote.true:
        near = [name for name in entry.queue.options if name.lower() == "remotequeue"]
        hint = f' (but "{near[0]}")' if near else ""
        raise _Unusable(f"it has no remoteQueue{hint}, and the Perl proxy passes over it")
    return _address(_plain(remote), "its remoteQueue")


def _address(text: str, what: str) -> QueueAddress:
    try:
        return parse_address(text)
    except ValueError as error:
        raise _Unusable(f"{what} cannot be used: {error}") from error


def _kind(entry: _Entry) -> tuple[bool, int]:
    """Return whether an entry is asynchronous, and its workers."""
    value, worker = entry.option("async"), entry.option("worker")
    if value.kind == "undef" or value.true:
        if _plain(value).lower() in ("no", "off", "false"):
            entry.notes.append("is asynchronous: Perl takes every text but 0 for true")
        if worker.kind != "undef" and _plain(worker) != "1":
            entry.notes.append('is asynchronous, where "worker" means nothing: it is left out')
        return True, 1
    if worker.kind == "undef":
        return False, 1
    if not re.fullmatch(r"\d+", _plain(worker), re.ASCII):
        entry.to_do.append('has a "worker" that is no whole number: it is taken for 1')
        return False, 1
    count = int(_plain(worker)[:18])
    if not 1 <= count <= MAX_WORKERS:
        raise _Unusable(f"its worker is {count}: the Perl proxy starts none for it, or too many")
    return False, count


def _key(entry: _Entry, option: str, folder: Path) -> Key | None:
    value = entry.option(option)
    if not value.true:
        return None
    if value.kind != "text":
        raise _Unusable(f"its {option} is of type {value.kind}, no text")
    if not value.text.startswith(_FILE):
        return Key(secret=value.text)
    path = value.text.removeprefix(_FILE).decode(errors="backslashreplace")
    if not path.startswith("/"):
        if not (folder / path).is_file():
            entry.to_do.append(f"has a key file {path}, which {_NOT_HERE}")
        path = str(folder / path)
    return Key(path=path)


def _payload(
    entry: _Entry, decrypt: Key | None, encrypt: Key | None, *, has_callback: bool
) -> Payload:
    """Return how unencrypted text is packed. Without a callback Perl leaves that to one key."""
    if has_callback or (decrypt is None) == (encrypt is None):
        return Payload.BASE64
    done = "encrypts what comes as it is" if decrypt is None else "sends the text as it is"
    side = "source sends" if decrypt is None else "target takes"
    entry.to_do.append(
        f'has one key alone, with which the Perl proxy {done}, not in base64: so does "payload": '
        f'"raw". If the {side} Mod-Gearman without encryption, which is base64, take that out'
    )
    return Payload.RAW


def _plain(value: Value) -> str:
    return value.text.decode(errors="backslashreplace")
