"""The control socket from a command's side: where it is, and one question with its answer.

One JSON object a line each way, one question a connection. Standard library alone, so that a
command needs nothing of the daemon's; it changes nothing by itself.
"""

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gevproxy.errors import GevproxyError

SOCKET_NAME: Final = "control.sock"

SYSTEM_FOLDER: Final = Path("/run/gevproxy")
"""$RUNTIME_DIRECTORY of gevproxy.service, which a shell does not know."""

MAX_REQUEST: Final = 16 * 1024
"""Bytes; the longest forward has 800 characters, each at most six bytes in JSON."""

MAX_ANSWER: Final = 64 * 1024 * 1024
"""Bytes; the state of a thousand forwards takes two million."""


class ControlError(GevproxyError):
    """The daemon gave no answer, or a refusal. The text says why, and what to do."""


def runtime_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder in which a daemon started with this environment has its socket."""
    if "RUNTIME_DIRECTORY" in environ:
        return Path(environ["RUNTIME_DIRECTORY"].partition(":")[0])  # systemd.exec(5): may be many
    if "XDG_RUNTIME_DIR" in environ:
        return Path(environ["XDG_RUNTIME_DIR"]) / "gevproxy"
    return None


def find_socket(environ: Mapping[str, str], system: Path = SYSTEM_FOLDER) -> Path:
    """Return where to ask: the system's daemon, or where there is none one of our own.

    $RUNTIME_DIRECTORY decides alone: systemd sets it for ExecReload=. The path need not exist.
    """
    own = runtime_folder(environ)
    folders = [own] if "RUNTIME_DIRECTORY" in environ else [system, own]
    paths = [folder / SOCKET_NAME for folder in folders if folder is not None]
    # Not Path.exists(), which raises where we may not look.
    return next(filter(os.path.exists, paths), paths[0])


def ask(path: Path, command: str, *, forward: str = "", deadline: float) -> dict[str, Any]:
    """Send one command and return its answer. `deadline` is in seconds, for all of it.

    Raises ControlError, with a sentence for a person, where there is no answer or it is a refusal.
    """
    end = time.monotonic() + deadline
    request = {"command": command, **({"forward": forward} if forward else {})}
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(deadline)
            sock.connect(str(path))
            sock.sendall(json.dumps(request).encode() + b"\n")
            line = _read_line(sock, end)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        text = f"no gevproxy listens at {path}: is it running? --socket names another place"
        raise ControlError(text) from error
    except PermissionError as error:
        raise ControlError(
            f"no permission for {path}: ask as root or as gevproxy's user"
        ) from error
    except TimeoutError as error:
        raise ControlError(f"no answer from {path} within {deadline:g} s") from error
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror or error}") from error
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise ControlError(f"the answer from {path} is cut short, or no JSON") from error
    if not isinstance(answer, dict):
        raise ControlError(f"the answer from {path} is no JSON object")
    if "error" in answer:
        raise ControlError(str(answer["error"]))
    return answer


def _read_line(sock: socket.socket, end: float) -> bytes:
    """Return what comes up to the first line feed or the end; TimeoutError when `end` is past."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < MAX_ANSWER:
        sock.settimeout(max(end - time.monotonic(), 0.001))
        data = sock.recv(65536)
        if not data:
            break
        line += data
    return bytes(line)
