"""Where encryption keys come from: the configuration itself, a file, or systemd's credentials.

A configuration holds only the word for a key (a *spec*); whoever needs the key resolves it here.
No message ever shows a key, and none shows a spec that could be a password.
"""

import stat
from collections.abc import Mapping
from pathlib import Path

from gevproxy.config.model import Config
from gevproxy.errors import ConfigError, Problem

FILE = "file:"
CREDENTIAL = "credential:"

CREDENTIALS_FOLDER = "CREDENTIALS_DIRECTORY"
"""The variable that systemd sets for a unit with LoadCredential=."""

ELSEWHERE = "\0"
"""In that variable's place: we check for a unit that we are not. No real environment holds a NUL.

Each credential is then taken as given, and a stand-in is what `resolve_key` returns.
"""

MAX_KEY_FILE = 4096
"""Bytes; a password is one line, and Mod-Gearman uses its first 32 bytes."""

_USED = 32
"""Bytes that Mod-Gearman reads of a key file, if its first line is as long as that."""

_SPACE = b" \t\n\v\f\r"
"""What C's isspace() takes for white space."""


def key_in(content: bytes) -> bytes:
    """Return the key in a file with this content, as Mod-Gearman's C programs find it there.

    They take 32 bytes at most, none behind the first line end or NUL, and no white space at the
    end. Whoever reads the same file must find the same key.
    """
    line = content.partition(b"\n")[0][:_USED]
    return line.partition(b"\0")[0].rstrip(_SPACE)


def resolve_key(spec: str, *, environ: Mapping[str, str]) -> bytes:
    """Return the key that `decrypt` or `encrypt` names.

    `file:PATH` must be readable by its owner alone; `credential:NAME` is a file in
    $CREDENTIALS_DIRECTORY, which systemd protects; anything else is the password itself.
    Raises ConfigError, with one problem and without the key, when there is no key to be had.
    """
    content = _content(spec, environ)
    if content is None:
        return spec.encode()
    key = key_in(content)
    if key:
        return key
    if content.strip(_SPACE + b"\0"):
        raise _unusable(_name(spec), "begins with an empty line: the key is the first line")
    raise _unusable(_name(spec), "is empty")


def credentials(config: Config) -> list[str]:
    """Return the names of all credentials that a configuration's forwards use, each once."""
    specs = _specs(config)
    return [spec.removeprefix(CREDENTIAL) for spec in specs if spec.startswith(CREDENTIAL)]


def key_warnings(config: Config, *, environ: Mapping[str, str]) -> list[str]:
    """Return what is odd about the key files of a configuration that can be used.

    A second line is no part of the key for Mod-Gearman's NEB and its worker in C, but it is for
    the worker in Go: mostly somebody has put a comment, or a new key, into the file.
    """
    return [
        f"{_name(spec)} has more than one line, and only the first is the key: remove the others"
        for spec in _specs(config)
        if (_content(spec, environ) or b"").partition(b"\n")[2].strip(_SPACE + b"\0")
    ]


def _specs(config: Config) -> list[str]:
    """Return how the keys of all forwards are written, each once."""
    specs = (spec for each in config.forwards for spec in (*each.decrypt, each.encrypt or ""))
    return list(dict.fromkeys(spec for spec in specs if spec))


def _name(spec: str) -> str:
    """Return what to call a file or a credential; no password is ever given here."""
    if spec.startswith(FILE):
        return f"the key file {spec.removeprefix(FILE)}"
    return f'the credential "{spec.removeprefix(CREDENTIAL)}"'


def _content(spec: str, environ: Mapping[str, str]) -> bytes | None:
    """Return what the file or credential holds that a spec names; None for a bare password."""
    if spec.startswith(FILE):
        return _read(Path(spec.removeprefix(FILE)), _name(spec), private=True)
    if spec.startswith(CREDENTIAL):
        path = _credential(spec.removeprefix(CREDENTIAL), environ)
        if environ[CREDENTIALS_FOLDER] == ELSEWHERE:
            return b"stand-in"
        return _read(path, _name(spec), private=False)
    return None


def _credential(name: str, environ: Mapping[str, str]) -> Path:
    what = f'the credential "{name}"'
    if not name or "/" in name or name in (".", ".."):
        raise _unusable(what, 'has no valid name: write "credential:NAME" as in LoadCredential=')
    folder = environ.get(CREDENTIALS_FOLDER)
    if not folder:
        raise _unusable(
            what,
            "cannot be found: $CREDENTIALS_DIRECTORY is not set; systemd sets it for a unit with "
            f"LoadCredential={name}:PATH",
        )
    return Path(folder) / name


def _read(path: Path, what: str, *, private: bool) -> bytes:
    """Read a regular file; `private` refuses one that others may read."""
    try:
        status = path.stat()
        # Before it is opened: a FIFO that nobody writes to must be refused, not waited for.
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(what, "is not a regular file")
        if private and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise _unusable(what, f"can be read by others: chmod 600 {path}")
        if status.st_size > MAX_KEY_FILE:
            raise _unusable(what, f"is larger than {MAX_KEY_FILE} bytes: a key is one line")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else None
        raise _unusable(what, f"cannot be read: {reason or error}") from error


def _unusable(what: str, message: str) -> ConfigError:
    """Return the error for a key; the caller knows where in the configuration it is named."""
    return ConfigError((Problem("", 0, "", f"{what} {message}"),))
