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


def resolve_key(spec: str, *, environ: Mapping[str, str]) -> bytes:
    """Return the key that `decrypt` or `encrypt` names, without its one trailing line end.

    `file:PATH` must be readable by its owner alone; `credential:NAME` is a file in
    $CREDENTIALS_DIRECTORY, which systemd protects; anything else is the password itself.
    Raises ConfigError, with one problem and without the key, when there is no key to be had.
    """
    if spec.startswith(FILE):
        path = spec.removeprefix(FILE)
        return _read(Path(path), f"the key file {path}", private=True)
    if spec.startswith(CREDENTIAL):
        name = spec.removeprefix(CREDENTIAL)
        credential = _credential(name, environ)
        if environ[CREDENTIALS_FOLDER] == ELSEWHERE:
            return b"stand-in"
        return _read(credential, f'the credential "{name}"', private=False)
    return spec.encode()


def credentials(config: Config) -> list[str]:
    """Return the names of all credentials that a configuration's forwards use, each once."""
    specs = [spec for each in config.forwards for spec in (*each.decrypt, each.encrypt or "")]
    names = (spec.removeprefix(CREDENTIAL) for spec in specs if spec.startswith(CREDENTIAL))
    return list(dict.fromkeys(names))


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
    """Read a key from a regular file; `private` refuses one that others may read."""
    try:
        status = path.stat()
        # Before it is opened: a FIFO that nobody writes to must be refused, not waited for.
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(what, "is not a regular file")
        if private and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise _unusable(what, f"can be read by others: chmod 600 {path}")
        if status.st_size > MAX_KEY_FILE:
            raise _unusable(what, f"is larger than {MAX_KEY_FILE} bytes: a key is one line")
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else None
        raise _unusable(what, f"cannot be read: {reason or error}") from error
    key = data.removesuffix(b"\n").removesuffix(b"\r") if data.endswith(b"\n") else data
    if not key:
        raise _unusable(what, "is empty")
    return key


def _unusable(what: str, message: str) -> ConfigError:
    """Return the error for a key; the caller knows where in the configuration it is named."""
    return ConfigError((Problem("", 0, "", f"{what} {message}"),))
