"""File systems of a test's own, mounted where a relay keeps its state; nobody else sees them.

The relay is started in a mount namespace, which ends with it. A test looks in through /proc.
"""

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.kit.relay import Relay

FREEZE = 0xC0045877  # FIFREEZE of linux/fs.h
THAW = 0xC0045878  # FITHAW

_MOUNT = 'mount {options} "$0" && exec "$@"'


def lacking() -> str:
    """Return what this machine lacks for a mount of a test's own; "" where it lacks nothing."""
    if os.geteuid():
        return "a mount of a test's own needs root"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return tried.stderr.decode() if tried.returncode else ""


def use_memory(relay: Relay, size: int) -> None:
    """Let a relay keep its state on a file system of so many bytes, from its next start on."""
    _use(relay, f"-t tmpfs -o size={size} none")


def use_image(relay: Relay, image: Path) -> str:
    """Let a relay keep its state on a new file system in a file, or return what is lacking."""
    with image.open("wb") as file:
        file.truncate(8 << 20)
    for command in (
        ["/usr/sbin/mkfs.ext4", "-q", str(image)],
        ["unshare", "--mount", "mount", "-o", "loop", str(image), str(relay.state_folder)],
    ):
        tried = subprocess.run(command, capture_output=True, check=False)
        if tried.returncode:
            return tried.stderr.decode()
    _use(relay, f"-o loop {image}")
    return ""


def seen_from_outside(relay: Relay) -> Path:
    """Return the way to a relay's state folder while it runs."""
    return Path(f"/proc/{relay.pid}/root{relay.state_folder}")


@contextlib.contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """Let a file system answer nobody who writes."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, FREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(fd, THAW, 0)
    finally:
        os.close(fd)


def fill(folder: Path) -> Path:
    """Leave no room in a file system; return the file that took it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def _use(relay: Relay, options: str) -> None:
    script = _MOUNT.format(options=options)
    relay.prefix = ("unshare", "--mount", "sh", "-c", script, str(relay.state_folder))
