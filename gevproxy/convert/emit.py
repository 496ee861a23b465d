"""Writes down what was converted: the JSON, key files, and a Python file for callbacks.

Nothing that exists is overwritten; a key file that already holds its key is left as it is.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from gevproxy import __version__
from gevproxy.config import Payload, Substitute, key_in
from gevproxy.convert.model import Callback, Converted, Forward, Key
from gevproxy.errors import ConfigError, Problem
from gevproxy.stages.crypto import aes_key

DEFAULT_CALLBACKS: Final = Path("/etc/gevproxy/callbacks.py")
"""Where the JSON looks for callbacks that nobody has written yet."""

DEFAULT_KEYS: Final = Path("/etc/gevproxy/keys")
"""The same for keys that JSON cannot hold."""

_PRIVATE: Final = 0o600

_EXISTS: Final = "exists and is not overwritten: move it away, or name another place"

_HEAD: Final = '''"""Callbacks of gearman_proxy.pl, to be written anew in Python.

Each refuses its jobs until that is done, and they become dead letters, which can be replayed.
gevproxy's README tells under "Callbacks" what a function gets and what it returns.
"""
'''

_PRAGMA: Final = re.compile(r"    (package|use|no|BEGIN) ")

_STUB: Final = """

{comment}
def {function}(data, job):
    raise NotImplementedError("this Perl callback has not been written anew in Python")
"""


class KeyFiles:
    """Which password goes into which file: one for each password, named after its server."""

    def __init__(self, forwards: Iterable[Forward], folder: Path | None) -> None:
        self.folder = folder
        self.names: dict[bytes, str] = {}
        for forward in forwards:
            self._name(forward.decrypt, str(forward.source.server))
            self._name(forward.encrypt, str(forward.target.server))

    @property
    def files(self) -> dict[Path, bytes]:
        """The files to write, with what is in them."""
        if self.folder is None:
            return {}
        return {
            self.folder / name: secret + b"\n"
            for secret, name in self.names.items()
            if _fits_file(secret)
        }

    @property
    def inexpressible(self) -> list[str]:
        """Where the keys must go that nothing we write can hold."""
        folder = self.folder or DEFAULT_KEYS
        return [
            str(folder / name)
            for secret, name in self.names.items()
            if not self._in_json(secret) and not (self.folder and _fits_file(secret))
        ]

    @property
    def literal(self) -> bool:
        """Whether a password stands in the JSON itself."""
        return any(map(self._in_json, self.names))

    def spec(self, key: Key) -> str:
        """Return how a key is written in the JSON."""
        if key.path:
            return f"file:{key.path}"
        if self._in_json(key.secret):
            return key.secret.decode()
        return f"file:{(self.folder or DEFAULT_KEYS) / self.names[key.secret]}"

    def _in_json(self, secret: bytes) -> bool:
        return _expressible(secret) and not (self.folder and _fits_file(secret))

    def _name(self, key: Key | None, server: str) -> None:
        if key is None or not key.secret or key.secret in self.names:
            return
        plain = re.sub(r"[^a-z0-9.-]+", "_", server).strip("_")
        taken = set(self.names.values())
        names = (plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 3)))
        self.names[key.secret] = next(name for name in names if name not in taken)


def _expressible(secret: bytes) -> bool:
    """Whether a password can stand in JSON as it is and means itself there."""
    try:
        secret.decode()
    except UnicodeDecodeError:
        return False
    return not secret.startswith(b"credential:")


def _fits_file(secret: bytes) -> bool:
    """Whether a password is the same key in a file, where white space at its end is none of it."""
    return aes_key(key_in(secret)) == aes_key(secret)


def document(
    converted: Converted, files: Iterable[str], keys: KeyFiles, callbacks: Path
) -> dict[str, Any]:
    """Return the configuration as it stands in the JSON."""
    result: dict[str, Any] = {
        "$comment": f"Converted by gevproxy {__version__} from {', '.join(files)}",
    }
    if converted.status_queue:
        result["status_queue"] = str(converted.status_queue)
    if converted.log_file:
        result["log_file"] = converted.log_file
    if converted.debug:
        result["debug"] = True
    result["queues"] = {
        str(forward.source): _forward(forward, keys, callbacks) for forward in converted.forwards
    }
    return result


def _forward(forward: Forward, keys: KeyFiles, callbacks: Path) -> str | dict[str, Any]:
    options: dict[str, Any] = {}
    if forward.decrypt:
        options["decrypt"] = keys.spec(forward.decrypt)
    if forward.rewrite:
        options["rewrite"] = [_rule(rule) for rule in forward.rewrite]
    if forward.callback:
        options["data_callback"] = f"{callbacks}:{forward.callback.function}"
    if forward.encrypt:
        options["encrypt"] = keys.spec(forward.encrypt)
    if forward.payload is not Payload.BASE64:
        options["payload"] = forward.payload.value
    if not forward.asynchronous:
        options |= {"async": False, "workers": forward.workers}
    target = str(forward.target)
    return {"remote_queue": target, **options} if options else target


def _rule(rule: Substitute) -> dict[str, str]:
    return {"pattern": rule.pattern.decode(), "replace": rule.replace.decode()}


def text(value: Mapping[str, Any]) -> str:
    """Return a document as text."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def stubs(forwards: Iterable[Forward]) -> str:
    """Return the Python file with a function for each callback; "" where none is needed."""
    users: dict[str, list[str]] = {}
    callbacks: dict[str, Callback] = {}
    for forward in forwards:
        if forward.callback:
            callbacks[forward.callback.function] = forward.callback
            users.setdefault(forward.callback.function, []).append(str(forward.source))
    if not callbacks:
        return ""
    return _HEAD + "".join(_stub(each, users[name]) for name, each in callbacks.items())


def _stub(callback: Callback, users: Iterable[str]) -> str:
    perl = [line for line in callback.code.text.split("\n") if not _PRAGMA.match(line)]
    lines = [
        *(f"For {user}." for user in users),
        f"{callback.code.place}, as Perl reads it:",
        *perl,
    ]
    comment = "\n".join(f"# {_printable(line)}".rstrip() for line in lines)
    return _STUB.format(comment=comment, function=callback.function)


def _printable(line: str) -> str:
    """Return a line that nothing in it can end."""
    return "".join(
        letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line.expandtabs()
    )


def write(files: Mapping[Path, bytes], keys: Mapping[Path, bytes]) -> None:
    """Write new files, private to their owner; key files may be there with the same key.

    Raises ConfigError, before anything is written, for every file that is in the way.
    """
    new = {path: content for path, content in keys.items() if not _holds(path, content)}
    new.update(files)
    if problems := tuple(_refused(path, _EXISTS) for path in new if os.path.lexists(path)):
        raise ConfigError(problems)
    for path, content in new.items():
        try:
            if path in keys:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
        except OSError as error:
            raise ConfigError((_refused(path, f"cannot be written: {error.strerror}"),)) from error


def _holds(path: Path, content: bytes) -> bool:
    """Whether a file holds just this."""
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _refused(path: Path, message: str) -> Problem:
    return Problem(str(path), 0, "", message)
